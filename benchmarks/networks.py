"""One network in other people's words: step by step, layer by layer, and its matrix products alone.

Each takes a trained `scnn.models.Network` and copies its weights, so that all of them compute the same.
"""

import copy
from collections.abc import Callable, Sequence
from functools import partial

import snntorch as snn
import torch
from snntorch import surrogate
from torch import nn

from scnn import training
from scnn.models import Network
from scnn.neurons import Output
from scnn.training import loss, scores

Step = Callable[[torch.Tensor, torch.Tensor], object]  # what is timed: images [N, C, H, W] and labels [N]
LEARNING_RATE = 1.0e-3


def synapses(network: Network) -> nn.ModuleList:
    """A copy of each layer's synapses, with its pooling or the flattening before it: [N, ...] to [N, ...]."""
    modules, maps = nn.ModuleList(), True
    for layer, weight in zip(network.layers, copy.deepcopy(network.weights), strict=True):
        parts = [weight]
        if layer.pool:
            parts.append(nn.MaxPool2d(layer.pool, layer.pool_stride))
        if maps and not layer.kernel:
            parts.insert(0, nn.Flatten())
            maps = False
        modules.append(nn.Sequential(*parts))
    return modules


class Loop(nn.Module):
    """The network step by step, as snnTorch's tutorials write it: the baseline."""

    def __init__(self, network: Network):
        super().__init__()
        self.num_steps, neuron = network.num_steps, network.neuron
        self.synapses = synapses(network)
        self.neurons = nn.ModuleList(
            snn.Leaky(
                beta=neuron.beta,
                threshold=neuron.threshold,
                reset_mechanism=neuron.reset,
                spike_grad=surrogate.fast_sigmoid(slope=neuron.slope),
            )
            for _ in network.layers
        )

    def forward(self, images: torch.Tensor) -> Output:
        membranes = [neuron.init_leaky() for neuron in self.neurons]
        spike_record, membrane_record = [], []
        for _ in range(self.num_steps):
            spikes = images
            for layer, (synapse, neuron) in enumerate(zip(self.synapses, self.neurons, strict=True)):
                spikes, membranes[layer] = neuron(synapse(spikes), membranes[layer])
            spike_record.append(spikes)
            membrane_record.append(membranes[-1])
        return Output(torch.stack(spike_record), torch.stack(membrane_record))


def loss_by_steps(output: Output, labels: torch.Tensor) -> torch.Tensor:
    """The tutorials' loss: cross-entropy of the membranes, step by step, summed."""
    cross_entropy = nn.CrossEntropyLoss()
    value = torch.zeros(1)
    for membrane in output.membrane:
        value = value + cross_entropy(membrane, labels)
    return value


class LayerByLayer(nn.Module):
    """The network with each layer over all time steps at once, on whole maps.

    Args:
        neurons: for each layer a function of its current `[T, N, ...]`, or `[1, N, ...]` where it is
            constant, that returns spikes and membrane potentials `[T, N, ...]`.
        once: compute the first layer's current, which is the same at every step, for one of them.
    """

    def __init__(self, network: Network, neurons: Sequence[Callable], once: bool = True):
        super().__init__()
        self.num_steps, self.once = network.num_steps, once
        self.synapses = synapses(network)
        # Functions are kept as they are; modules are registered, so that eval() and parameters() find them.
        self.neurons = nn.ModuleList(neurons) if isinstance(neurons[0], nn.Module) else list(neurons)

    def forward(self, images: torch.Tensor) -> Output:
        spikes = images[None] if self.once else images.expand(self.num_steps, *images.shape)
        for synapse, neuron in zip(self.synapses, self.neurons, strict=True):
            current = synapse(spikes.flatten(0, 1)).unflatten(0, spikes.shape[:2])
            spikes, membrane = neuron(current)
        return Output(spikes, membrane)


def train(
    network: nn.Module, loss: Callable[[Output, torch.Tensor], torch.Tensor] = loss, fused: bool = False
) -> Step:
    """Training of `network`, a batch at a time, with Adam."""
    weights = [parameter for parameter in network.parameters() if parameter.requires_grad]
    optimizer = torch.optim.Adam(weights, lr=LEARNING_RATE, fused=fused)

    def step(images: torch.Tensor, labels: torch.Tensor) -> float:
        value = loss(network(images), labels)
        optimizer.zero_grad()
        value.backward()
        optimizer.step()
        return value.item()

    return step


def infer(network: nn.Module) -> Step:
    """Classification by `network`, a batch at a time."""
    network.eval()

    def step(images: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        with torch.no_grad():
            return scores(network(images)).argmax(dim=1)

    return step


def difference(gradients: Sequence[torch.Tensor], reference: Sequence[torch.Tensor]) -> float:
    """The largest relative difference of any layer's gradient, given its weights' and biases' in turn.

    Weights and biases count together: those of a bias alone are long sums that nearly cancel.
    """

    def joined(tensors, layer):
        return torch.cat([one.flatten() for one in tensors[layer : layer + 2]])

    return max(
        (
            (joined(gradients, layer) - joined(reference, layer)).norm() / joined(reference, layer).norm()
        ).item()
        for layer in range(0, len(reference), 2)
    )


def snntorch_loop(network: Network, task: str) -> Step:
    """The baseline."""
    return train(Loop(network), loss_by_steps) if task == "train" else infer(Loop(network))


def scnn(network: Network, task: str) -> Step:
    """This package: for training, all that `scnn.training.fit` does with a batch."""
    network = copy.deepcopy(network)
    if task == "infer":
        return infer(network)
    return partial(training.step, network, training.adam(network, LEARNING_RATE))


def dense_bound(network: Network, task: str) -> Step:
    """The products of weights with currents or gradients alone, on whole maps: no neurons, no optimiser.

    No dense form is faster. The first layer is computed for one time step, as its input is constant; the
    others for all. Inputs are the spikes of the batch that comes first.
    """
    modules = synapses(network)
    inputs: list[torch.Tensor] = []
    gradients: list[torch.Tensor] = []

    def prepare(images: torch.Tensor) -> None:
        spikes = [trace.spikes.flatten(0, 1) for trace in network.trace(images)[:-1]]
        inputs[:] = [images, *spikes]
        with torch.no_grad():
            gradients[:] = [torch.rand_like(module(x)) for module, x in zip(modules, inputs, strict=True)]
        for spike in spikes:
            spike.requires_grad_(task == "train")

    def step(images: torch.Tensor, labels: torch.Tensor) -> None:
        if not inputs:
            prepare(images)
        for number, module in enumerate(modules):
            if task == "infer":
                with torch.no_grad():
                    module(inputs[number])
                continue
            wanted = [*module.parameters(), *([inputs[number]] if number else [])]
            torch.autograd.grad(module(inputs[number]), wanted, gradients[number])

    return step


VARIANTS: dict[str, Callable[[Network, str], Step]] = {
    "snntorch-loop": snntorch_loop,
    "scnn": scnn,
    "dense-bound": dense_bound,
}
BASELINE = "snntorch-loop"
