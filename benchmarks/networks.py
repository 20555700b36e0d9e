"""The same network in several forms: step by step, layer by layer, and only its matrix products.

Each copies the weights of a trained `scnn.models.Network`, so that all compute the same.
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

Step = Callable[[torch.Tensor, torch.Tensor], object]  # is timed; takes images [N, C, H, W] and labels [N]
LEARNING_RATE = 1.0e-3


def synapses(network: Network) -> nn.ModuleList:
    """A copy of each layer's synapses, including pooling and flattening: [N, ...] to [N, ...]."""
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
    """The baseline: the network step by step, as in snnTorch's tutorials."""

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
    """The tutorials' loss: the cross-entropy of the membranes, summed over the time steps."""
    cross_entropy = nn.CrossEntropyLoss()
    value = torch.zeros(1)
    for membrane in output.membrane:
        value = value + cross_entropy(membrane, labels)
    return value


class LayerByLayer(nn.Module):
    """The network layer by layer, each over all time steps at once, on whole maps.

    Args:
        neurons: for each layer, a function from its current, `[T, N, ...]` or, if constant, `[1, N, ...]`, to
            spikes and membrane potentials `[T, N, ...]`.
        once: compute the first layer's current, which is the same at every step, only once.
    """

    def __init__(self, network: Network, neurons: Sequence[Callable], once: bool = True):
        super().__init__()
        self.num_steps, self.once = network.num_steps, once
        self.synapses = synapses(network)
        # Modules must be registered, so that eval() and parameters() find them; functions need not.
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
    """A training step of `network` with Adam."""
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
    """Classification of a batch by `network`."""
    network.eval()

    def step(images: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        with torch.no_grad():
            return scores(network(images)).argmax(dim=1)

    return step


def difference(gradients: Sequence[torch.Tensor], reference: Sequence[torch.Tensor]) -> float:
    """The largest relative difference of any layer's gradient; gradients alternate between weight and bias.

    Weight and bias count together, because the gradient of a bias alone is a long sum that nearly cancels.
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
    """This package; for training, everything that `scnn.training.fit` does with a batch."""
    network = copy.deepcopy(network)
    if task == "infer":
        return infer(network)
    return partial(training.step, network, training.adam(network, LEARNING_RATE))


def dense_bound(network: Network, task: str) -> Step:
    """Only the products of weights with inputs and gradients, on whole maps: no neurons, no optimiser.

    No dense implementation can be faster. The first layer is computed for one time step, because its input is
    constant; the others for all. Inputs are the spikes of the first batch.
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
