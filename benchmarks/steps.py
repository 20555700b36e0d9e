"""The steps from the naive loop to scnn, one change at a time, and a profile of a training step."""

import copy
import os
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from unittest.mock import patch

import pandas as pd
import torch
from torch import nn
from torch.profiler import ProfilerActivity, profile, record_function

from benchmarks.networks import LayerByLayer, Loop, Step, difference, loss_by_steps, train
from benchmarks.timing import interleaved, ratios
from scnn import boxed, kernels, neurons
from scnn.models import Network
from scnn.neurons import Output
from scnn.training import loss


class _EveryStep(nn.Module):
    """A network that computes the full product inside the window at every time step."""

    def __init__(self, network: Network):
        super().__init__()
        self.network = network

    def forward(self, images: torch.Tensor) -> Output:
        with patch.object(boxed, "SPARSE", 0):
            return self.network(images)


@dataclass(frozen=True)
class Way:
    """One way to train the same network."""

    network: nn.Module
    loss: Callable[[Output, torch.Tensor], torch.Tensor] = loss
    fused: bool = False  # whether Adam is

    def step(self) -> Step:
        """The function to time. It updates the network's weights."""
        return train(self.network, self.loss, self.fused)


def ways(network: Network) -> dict[str, Way]:
    """The naive loop, then one more change in each way, up to what `scnn.training.fit` does."""
    settings = {"neuron": network.neuron, "num_steps": network.num_steps}
    plain = [partial(neurons.leaky, **settings) for _ in network.layers]
    fused = [
        partial(kernels.leaky, **settings, membrane=layer is network.layers[-1]) for layer in network.layers
    ]
    return {
        "naive loop": Way(Loop(network), loss_by_steps),
        "layer by layer": Way(LayerByLayer(network, plain, once=False)),
        "first current once": Way(LayerByLayer(network, plain)),
        "fused neurons": Way(LayerByLayer(network, fused)),
        "data window": Way(_EveryStep(copy.deepcopy(network))),
        "changes alone": Way(copy.deepcopy(network)),
        "fused Adam": Way(copy.deepcopy(network), fused=True),
    }


def parity(way: Way, reference: Way, images: torch.Tensor, labels: torch.Tensor) -> tuple[bool, float]:
    """Whether the output spikes equal those of `reference`, and the relative difference of the gradients."""
    outputs, gradients = [], []
    for each in (way, reference):
        outputs.append(each.network(images))
        gradients.append(torch.autograd.grad(each.loss(outputs[-1], labels), list(each.network.parameters())))
    return torch.equal(outputs[0].spikes, outputs[1].spikes), difference(*gradients)


def crossing(
    shares: Sequence[float], batch_size: int, num_steps: int, rounds: int, seed: int = 0
) -> pd.DataFrame:
    """The speedup from adding the weights of changed neurons, compared with a product at every time step.

    A changing neuron differs from its first step at 3/8 of the later steps, about as in a trained Model B.

    Args:
        shares: shares of Model B's first-layer neurons, in a box of 14 x 12, that change over time.

    Returns:
        For each share, `ratio`, `ratio_low` and `ratio_high` of `timing.ratios`, for forward plus backward.
    """
    draw = torch.Generator().manual_seed(seed)
    box, size, units = (8, 22, 9, 21), (30, 30), 128
    weight = torch.randn(units, 6 * size[0] * size[1], generator=draw).mul_(0.01).requires_grad_()
    grad = torch.randn(num_steps, batch_size, units, generator=draw)
    background, bias = torch.zeros(num_steps, 6), torch.zeros(units, requires_grad=True)
    shape = (num_steps, batch_size, 6, box[1] - box[0], box[3] - box[2])

    def both_ways(values, most):
        with patch.object(boxed, "SPARSE", most):
            boxed.boxed_linear(values, background, box, size, weight, bias).backward(grad)

    found = {}
    for share in shares:
        first = torch.rand(shape[1:], generator=draw) < 0.5
        changing = torch.rand(shape[1:], generator=draw) < share
        differs = (torch.rand(shape, generator=draw) < 3 / 8) & changing
        differs[0] = False
        values = (first ^ differs).float().requires_grad_()
        ways = {"product": partial(both_ways, values, 0), "additions": partial(both_ways, values, 1)}
        found[share] = ratios(interleaved(ways, rounds, label="crossing"), "product")["additions"]
    return pd.DataFrame(found).T


GROUPS = ("convolutions", "matrix products", "neurons", "Adam", "copies, sums, loss", "between operations")
_NAMES = (  # (part of an operation's name, its group); the first match counts
    ("Optimizer.step", "Adam"),
    ("onvolution", "convolutions"),
    ("mm", "matrix products"),
    ("_BoxedLinear", "matrix products"),
    ("_Leaky", "neurons"),
    ("softmax", "copies, sums, loss"),
    ("nll_loss", "copies, sums, loss"),
)
_PROFILED = 10  # steps


@dataclass(frozen=True)
class Profile:
    """Where the time of a training step goes."""

    shares: dict[str, float]  # of the time, for each of GROUPS
    operations: int  # of PyTorch, in a step


def profiled(step: Step, batches: Sequence[tuple[torch.Tensor, torch.Tensor]], rest: str) -> Profile:
    """Profile a training step.

    Operations that match no name count towards the group `rest`; in plain PyTorch, these are the neurons. The
    profiler adds overhead to each operation, so many small operations appear slower than they are.
    """
    for batch in batches[:2]:
        step(*batch)
    os.environ.setdefault("KINETO_LOG_LEVEL", "99")  # keeps the profiler from writing to standard error
    with profile(activities=[ProfilerActivity.CPU], acc_events=True) as profiler:
        for number in range(_PROFILED):
            with record_function("step"):
                step(*batches[number % len(batches)])
    times: Counter[str] = Counter()
    for event in profiler.events():
        times[_group(event, rest)] += event.self_cpu_time_total
    operations = sum(event.name.startswith("aten::") for event in profiler.events()) // _PROFILED
    return Profile({group: times[group] / times.total() for group in GROUPS}, operations)


def _group(event, rest: str) -> str:
    if event.name == "step":
        return "between operations"
    above = event
    while above is not None:  # operations called by Adam count as Adam
        if above.name.startswith("Optimizer.step"):
            return "Adam"
        above = above.cpu_parent
    return next((group for part, group in _NAMES if part in event.name), rest)
