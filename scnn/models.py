"""Networks in the paper's notation (`scnn.notation`), spiking or not.

`Network.plain` is the textbook definition. `Network.forward` computes the same in a fraction of the time: a
constant current goes through its layer once, a layer's neurons compute all time steps in one pass
(`scnn.kernels`), and the padding around the data costs one neuron per channel (`scnn.window`).
"""

from dataclasses import replace
from itertools import zip_longest
from typing import NamedTuple, cast

import torch
from torch import nn
from torch.nn import functional

from scnn import kernels, neurons, quantization, window
from scnn.checks import whole
from scnn.neurons import Neuron, Output
from scnn.notation import MOST_LAYERS, ZOO, ending_in, parse
from scnn.quantization import Recipe
from scnn.window import data_box

_MOST_STEPS = 1000
_MOST_VALUES = 2**26  # neurons times time steps for one recording: 256 MB of float32
_MOST_MACS = 2**36  # for one recording: seconds of computing
_MOST_WEIGHTS = 2**26  # AlexNet has 23 million


class Trace(NamedTuple):
    """The activity of one layer over the time steps. A ReLU layer has one step.

    Attributes:
        name: the layer in the notation.
        current: `[T, N, ...]`, the input current.
        membrane: `[T, N, ...]`, the membrane potentials; None for a ReLU layer.
        spikes: `[T, N, ...]`; the activations of a ReLU layer.
    """

    name: str
    current: torch.Tensor
    membrane: torch.Tensor | None
    spikes: torch.Tensor


class Network(nn.Module):
    """A feed-forward network in the paper's notation; see `build`.

    `forward` takes images `[N, C, H, W]` and returns an `Output`. The image is the input current at each of
    `num_steps` time steps (direct encoding).
    """

    def __init__(
        self,
        architecture: str,
        num_steps: int,
        neuron: Neuron,
        input_shape: tuple[int, int, int],
        spiking: bool,
        recipe: Recipe = Recipe(),
        batch_norm: bool = False,
    ):
        super().__init__()
        self.architecture, self.spiking, self.recipe = architecture, spiking, recipe
        self.num_steps, self.neuron = num_steps, neuron
        self.input_shape = cast(tuple[int, int, int], tuple(input_shape))  # a list if read from a file
        self.dropout = 0.0  # share of the last layer's inputs that are zeroed in training; not saved
        self.output_neuron = neuron if recipe.round_output else replace(neuron, membrane_bits=0)
        self.layers = parse(architecture)
        if len(self.input_shape) != 3 or not all(type(n) is int and n > 0 for n in self.input_shape):
            raise ValueError(
                f"input_shape must be channels, height and width, all at least 1, not {self.input_shape}"
            )
        if not isinstance(spiking, bool):
            raise ValueError(f"spiking must be True or False, not {spiking!r}")
        whole("num_steps", num_steps, 1, _MOST_STEPS)
        self._check_size()
        # ModuleLists, so that their modules are registered.
        self.weights = cast(list[quantization.Synapse], nn.ModuleList())
        self.norms = cast(list[nn.BatchNorm1d | nn.BatchNorm2d], nn.ModuleList())
        channels, size = input_shape[0], (input_shape[1], input_shape[2])
        for layer in self.layers:
            if layer.kernel:
                size = layer.pooled(layer.convolved(size))
                sizes = channels, layer.units, layer.kernel, layer.stride, layer.padding
                self.weights.append(quantization.convolution(recipe, *sizes))
            else:
                self.weights.append(quantization.linear(recipe, channels * size[0] * size[1], layer.units))
                size = (1, 1)
            channels = layer.units
            if batch_norm and layer is not self.layers[-1]:
                self.norms.append((nn.BatchNorm2d if layer.kernel else nn.BatchNorm1d)(channels))

    def _check_size(self) -> None:
        """Refuse layers that do not fit their maps or need too much memory, before allocating anything."""
        if len(self.layers) > MOST_LAYERS:
            raise ValueError(f"architecture has {len(self.layers)} layers, at most {MOST_LAYERS} are valid")
        channels, size = self.input_shape[0], self.input_shape[1:]
        values, macs, weights = channels * size[0] * size[1], 0, 0
        for index, layer in enumerate(self.layers):
            times = self.num_steps if self.spiking and index else 1  # the first layer's current is constant
            if layer.kernel:
                convolved = layer.convolved(size)
                size = layer.pooled(convolved)
                if min(size) < 1:
                    raise ValueError(
                        f"input_shape {self.input_shape} is too small for {layer.name!r} in "
                        f"{self.architecture!r}"
                    )
                outputs = layer.units * convolved[0] * convolved[1]
                inputs = channels * layer.kernel**2
            else:
                outputs, inputs = layer.units, channels * size[0] * size[1]
                size = (1, 1)
            macs += times * outputs * inputs
            weights += layer.units * inputs
            values += self.num_steps * outputs
            channels = layer.units
        if values > _MOST_VALUES or macs > _MOST_MACS or weights > _MOST_WEIGHTS:
            raise ValueError(
                f"{self.architecture!r} on input_shape {self.input_shape} with num_steps={self.num_steps} is "
                f"too large: {weights} weights (at most {_MOST_WEIGHTS}), and for one recording {values} "
                f"values (at most {_MOST_VALUES}) and {macs} multiplications (at most {_MOST_MACS})"
            )

    def extra_repr(self) -> str:
        unit = f"num_steps={self.num_steps}, {self.neuron}" if self.spiking else "ReLU"
        return f"{self.architecture}, {unit}, {self.recipe}"

    @property
    def num_parameters(self) -> int:
        return sum(parameter.numel() for parameter in self.parameters())

    def plain(self, images: torch.Tensor) -> Output:
        """The network's output by definition, as a reference for `forward`.

        The image is the input current at every time step (direct encoding).

        Args:
            images: `[N, C, H, W]`.
        """
        values = images.expand(self.num_steps if self.spiking else 1, *images.shape)
        for layer, weight, norm in zip_longest(self.layers, self.weights, self.norms):
            last = layer is self.layers[-1]
            current = weight((values if layer.kernel else values.flatten(2)).flatten(0, 1))
            if norm is not None:
                current = norm(current)
            if layer.pool:
                current = functional.max_pool2d(current, layer.pool, layer.pool_stride)
            current = current.unflatten(0, values.shape[:2])
            if self.spiking:
                values, membrane = neurons.leaky(current, self.output_neuron if last else self.neuron)
            else:
                values = current if last else torch.relu(current)
        return Output(values, membrane) if self.spiking else Output(None, values)

    def forward(self, images: torch.Tensor, traces: list[Trace] | None = None) -> Output:
        """The same output as `plain` up to the order of sums; in training also with any dropout.

        Args:
            images: `[N, C, H, W]`.
            traces: a list to which each layer's `Trace` is appended, with gradients.

        Raises:
            ValueError: the shape or dtype of the images does not fit the network.
        """
        self._check_images(images)
        traced = traces is not None
        padded = any(layer.padding for layer in self.layers)
        whole_maps = traced or padded or images.requires_grad or len(self.norms) > 0
        size = images.shape[2], images.shape[3]
        patch = window.cut(images, window.whole(size) if whole_maps else data_box(images))
        spikes, membrane = images, None
        for index, (layer, module, norm) in enumerate(zip_longest(self.layers, self.weights, self.norms)):
            last = layer is self.layers[-1]
            weight = quantization.weight_of(module)
            bias = weight.new_zeros(layer.units) if module.bias is None else module.bias
            if layer.kernel:
                patch = window.convolve(patch, layer, weight, bias)
                if norm is not None:
                    patch = patch._replace(values=_normalised(norm, patch.values))
                patch = window.pool(patch, layer)
                current = patch.values
                spikes, membrane = self._fire(current, traced)
                background = spikes.new_zeros(len(spikes), layer.units)
                if not patch.is_whole:
                    background, _ = self._fire(patch.background, False)
                patch = patch._replace(values=spikes, background=background)
            else:
                if index == 0 or self.layers[index - 1].kernel:
                    current = window.linear(patch, weight, bias)
                else:
                    if last and self.dropout and self.training:
                        spikes = functional.dropout(spikes, self.dropout)
                    current = functional.linear(spikes, weight, bias)
                if norm is not None:
                    current = _normalised(norm, current)
                if last and not self.spiking:
                    spikes, membrane = current, None
                else:
                    spikes, membrane = self._fire(current, traced or last, last)
            if traces is not None:
                traces.append(Trace(layer.name, current, membrane, spikes))
        return Output(None, current) if membrane is None else Output(spikes, membrane)

    @torch.no_grad()
    def trace(self, images: torch.Tensor) -> list[Trace]:
        """The `Trace` of each layer, with full maps, for `images` `[N, C, H, W]`."""
        traces: list[Trace] = []
        self(images, traces)
        return traces

    def _check_images(self, images: torch.Tensor) -> None:
        if images.dim() != 4 or tuple(images.shape[1:]) != self.input_shape:
            raise ValueError(
                f"images must be [N, {', '.join(map(str, self.input_shape))}], not {list(images.shape)}"
            )
        dtype = self.weights[0].weight.dtype
        if images.dtype != dtype:
            raise ValueError(
                f"images must have the dtype of the network's weights, {dtype}, not {images.dtype}; "
                "convert one of them"
            )
        if dtype == torch.float16 and self.recipe.weight_bits:
            raise ValueError("quantised weights do not work in float16, where their gradient overflows")

    def _fire(
        self, current: torch.Tensor, membrane: bool, last: bool = False
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        if not self.spiking:
            return torch.relu(current), None
        neuron = self.output_neuron if last else self.neuron
        return kernels.leaky(current, neuron, self.num_steps, membrane)


def _normalised(norm: nn.Module, current: torch.Tensor) -> torch.Tensor:
    """Normalise a current `[S, N, ...]` per channel, over all steps and recordings together."""
    return norm(current.flatten(0, 1)).unflatten(0, current.shape[:2])


def fold(network: Network) -> Network:
    """Fold the batch normalisation of `network` into weights and biases of a new one, in evaluation mode::

        w' = w gamma / sqrt(var + eps),    b' = (b - mean) gamma / sqrt(var + eps) + beta

    where mean and var are the running statistics. The spikes equal those of `network` in evaluation mode, up
    to the rounding of sums. The folded network is the one that is saved, counted, quantised and exported.
    """
    about = network.architecture, network.num_steps, network.neuron, network.input_shape, network.spiking
    folded = Network(*about, network.recipe)
    with torch.no_grad():
        for new, old, norm in zip_longest(folded.weights, network.weights, network.norms):
            scale, shift = torch.ones(len(old.weight)), torch.zeros(len(old.weight))
            if norm is not None:
                mean, variance = norm.running_mean, norm.running_var
                assert mean is not None and variance is not None  # tracked by default
                scale = norm.weight / torch.sqrt(variance + norm.eps)
                shift = norm.bias - mean * scale
            assert new.bias is not None and old.bias is not None  # always so in full precision
            new.weight.copy_(old.weight * scale.view(-1, *[1] * (old.weight.dim() - 1)))
            new.bias.copy_(old.bias * scale + shift)
    return folded.eval()


def unfold(network: Network, spiking: bool, images: torch.Tensor) -> Network:
    """Add batch normalisation to a ReLU network without it, as a spiking or a ReLU network.

    A spiking network that starts from these weights needs fewer epochs.

    Args:
        network: the ReLU network.
        spiking: whether the new network spikes.
        images: `[N, C, H, W]`. Each channel's mean and standard deviation over them initialise the
            normalisation, so that it leaves the ReLU network's currents unchanged.
    """
    about = network.architecture, network.num_steps, network.neuron, network.input_shape, spiking
    unfolded = Network(*about, network.recipe, batch_norm=True)
    unfolded.load_state_dict(network.state_dict(), strict=False)
    values = images
    with torch.no_grad():
        for layer, module, norm in zip(network.layers, network.weights, unfolded.norms, strict=False):
            current = module(values if layer.kernel else values.flatten(1))
            over = [0, 2, 3] if layer.kernel else [0]
            variance, mean = torch.var_mean(current, over, correction=0)
            statistics = {"weight": torch.sqrt(variance + norm.eps), "bias": mean}
            statistics |= {"running_var": variance, "running_mean": mean}
            norm.load_state_dict(statistics, strict=False)
            if layer.pool:
                current = functional.max_pool2d(current, layer.pool, layer.pool_stride)
            values = torch.relu(current)
    return unfolded


def build(
    architecture: str,
    *,
    num_steps: int = 10,
    beta: float = 0.5,
    threshold: float = 1.0,
    reset: str = "subtract",
    slope: float = 25.0,
    input_shape: tuple[int, int, int] = (1, 32, 32),
    spiking: bool | None = None,
    precision: str = "fp32",
    seed: int = 0,
    classes: int | None = None,
    batch_norm: bool = False,
) -> Network:
    """Build a network from its notation, or from a name in `ZOO`.

    `num_steps`, `beta`, `threshold`, `reset` and `slope` are parameters of the neurons (see
    `scnn.neurons.leaky`); a ReLU network ignores them. The weights have PyTorch's default initialisation; the
    global random state is left unchanged.

    Args:
        architecture: a notation (see `scnn.notation`) or a name.
        input_shape: channels, height and width.
        spiking: by default as in the zoo, and True for a notation.
        precision: a name in `scnn.quantization.RECIPES`: what is quantised in training and after it.
        seed: seed of the initial weights.
        classes: required number of outputs, if given. A network of the zoo, by default with the paper's ten,
            is adapted to it; a notation must already have it.
        batch_norm: normalise the current of every layer but the last (Ioffe and Szegedy, 2015) in training;
            `fold` removes it.

    Raises:
        ValueError: the notation cannot be read or has another number of outputs, the input is too small, or a
            parameter is out of range.

    >>> network = build("6C3-P2-128FC-10FC", num_steps=10)
    >>> network.num_parameters
    174278
    >>> network(torch.zeros(5, 1, 32, 32)).spikes.shape
    torch.Size([10, 5, 10])
    """
    if architecture in ZOO:
        architecture, default = ZOO[architecture]
        spiking = default if spiking is None else spiking
        if classes is not None:
            architecture = ending_in(architecture, classes)
    elif classes is not None and parse(architecture)[-1].units != classes:
        raise ValueError(
            f"model {architecture!r} ends with {parse(architecture)[-1].name}, but there are {classes} "
            f"classes; write {ending_in(architecture, classes)}"
        )
    recipe = quantization.recipe(precision)
    if batch_norm and (recipe.weight_bits or not recipe.bias):
        raise ValueError(f"batch_norm works in full precision only, not with precision {precision!r}")
    neuron = Neuron(beta, threshold, reset, slope, recipe.membrane_bits, recipe.clip_gradient)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        spiking = spiking is None or bool(spiking)
        return Network(architecture, num_steps, neuron, input_shape, spiking, recipe, batch_norm)
