"""A network from the paper's own notation, spiking or not, run layer by layer over all time steps.

`"6C3-P2-128FC-10FC"` is a convolution of 6 channels with a 3 x 3 kernel, a 2 x 2 max pooling of its
current, a fully connected layer of 128 units and one of 10. `6C3s2p1` adds a stride and a padding, `P3s2` a
stride. A unit follows every layer (after its pooling): leaky and spiking, or a ReLU everywhere but at the
output.

The paper's images are mostly padding: zeros around a small window of data. Every neuron of a layer that
sees only padding receives the same current, so a network computes one of them per channel
(`Patch.background`) and the window itself. This changes the order of a few sums and nothing else.
"""

import re
from dataclasses import dataclass, replace
from itertools import zip_longest
from typing import NamedTuple

import torch
from torch import nn
from torch.nn import functional

from scnn import kernels, quantization
from scnn._jit import njit
from scnn.boxed import boxed_linear
from scnn.checks import whole
from scnn.neurons import Neuron, Output
from scnn.quantization import Recipe

ALEXNET = "64C3s2p1-P2-192C3p1-P2-384C3p1-256C3p1-256C3p1-P2-4096FC-4096FC-10FC"
ZOO = {  # name: (architecture, spiking)
    "A": ("6C3-16C3-128FC-64FC-10FC", True),
    "B": ("6C3-128FC-10FC", True),
    "C": ("6C3-P2-128FC-10FC", True),
    "CNN": ("6C3-P2-16C3-P2-128FC-64FC-10FC", False),  # the paper's control
    "LeNet": ("6C5-P2-16C5-P2-120FC-84FC-10FC", False),
    "AlexNet": (ALEXNET, False),
    "SpikingAlexNet": (ALEXNET, True),
    "R": ("16C3s2p1-32C3s2p1-48C3s2p1-52C3s2p1-10FC", True),  # the packaged network, and its teacher
    "RTeacher": ("24C3s2p1-48C3s2p1-64C3s2p1-128FC-10FC", False),
}
_MOST_LAYERS, _MOST_STEPS = 64, 1000
_MOST_VALUES = 2**26  # that all neurons have in all time steps of one recording: 256 MB of each kind
_MOST_MACS = 2**36  # of one recording: seconds
_MOST_WEIGHTS = 2**26  # AlexNet has 23 million
TOKEN = re.compile(
    r"(?P<channels>\d+)C(?P<kernel>\d+)(?:s(?P<stride>\d+))?(?:p(?P<padding>\d+))?"
    r"|P(?P<pool>\d+)(?:s(?P<pool_stride>\d+))?"
    r"|(?P<units>\d+)FC"
)


@dataclass(frozen=True)
class Layer:
    """A layer of the notation: a convolution (`kernel` > 0) with its pooling, or fully connected."""

    name: str  # as in the notation, "6C3" or "128FC"
    units: int  # output channels, or output units
    kernel: int = 0
    stride: int = 1
    padding: int = 0
    pool: int = 0
    pool_stride: int = 0

    def convolved(self, size: tuple[int, int]) -> tuple[int, int]:
        """Height and width of the convolution of a map of `size`."""
        return tuple((length + 2 * self.padding - self.kernel) // self.stride + 1 for length in size)

    def pooled(self, size: tuple[int, int]) -> tuple[int, int]:
        """Height and width of the pooling of a map of `size`."""
        return tuple((length - self.pool) // self.pool_stride + 1 for length in size) if self.pool else size


def parse(architecture: str) -> tuple[Layer, ...]:
    """The layers of `architecture`; `ValueError` names the token that cannot be read or is out of place."""
    if not isinstance(architecture, str) or len(architecture) > 32 * _MOST_LAYERS:
        raise ValueError(f"architecture must be text, of at most {_MOST_LAYERS} layers")
    layers: list[Layer] = []
    for token in architecture.split("-"):
        match = TOKEN.fullmatch(token)
        if match is None:
            raise ValueError(
                f"{token!r} in architecture {architecture!r} is not a layer: write "
                f"6C3 (channels C kernel, then s stride and "
                f"p padding), P2 (pooling, then s stride) or 128FC; or name one of {', '.join(ZOO)}"
            )
        sizes = {key: int(value) for key, value in match.groupdict().items() if value is not None}
        if any(value == 0 for key, value in sizes.items() if key != "padding"):
            raise ValueError(f"{token!r} in architecture {architecture!r} has a size of 0")
        if "channels" in sizes:
            if layers and not layers[-1].kernel:
                raise ValueError(
                    f"{token!r} in architecture {architecture!r} follows a fully connected layer"
                )
            stride, padding = sizes.get("stride", 1), sizes.get("padding", 0)
            layers.append(Layer(token, sizes["channels"], sizes["kernel"], stride, padding))
        elif "pool" in sizes:
            if not layers or not layers[-1].kernel or layers[-1].pool:
                raise ValueError(f"{token!r} in architecture {architecture!r} must follow a convolution")
            last, size = layers.pop(), sizes["pool"]
            stride = sizes.get("pool_stride", size)
            layers.append(
                Layer(
                    f"{last.name}-{token}", last.units, last.kernel, last.stride, last.padding, size, stride
                )
            )
        else:
            layers.append(Layer(token, sizes["units"]))
    if layers[-1].kernel:
        raise ValueError(
            f"architecture {architecture!r} must end with a fully connected layer, one unit per class"
        )
    return tuple(layers)


def ending_in(architecture: str, classes: int) -> str:
    """The notation with `classes` outputs in place of its own."""
    return re.sub(r"\d+FC$", f"{classes}FC", architecture)


class Patch(NamedTuple):
    """Activity of a layer: inside a box of its map, and once for all neurons outside it."""

    values: (
        torch.Tensor
    )  # [S, N, C, h, w] in the box, or on the whole map; S is T, or 1 if constant over time
    background: torch.Tensor | None  # [S, C]; None where it is zero, in an image
    box: tuple[int, int, int, int]  # rows and columns: top, bottom, left, right (bottom and right excluded)
    size: tuple[int, int]  # height and width of the whole map

    def grown(self, box: tuple[int, int, int, int]) -> torch.Tensor:
        """`values` over a larger `box`, filled up from the background."""
        if self.values.shape[3:] == self.size:
            return self.values[..., box[0] : box[1], box[2] : box[3]]
        if box == self.box:
            return self.values
        steps, count, channels = self.values.shape[:3]
        top, bottom, left, right = box
        shape = (steps, count, channels, bottom - top, right - left)
        grown = self.background[:, None, :, None, None].expand(shape).clone()
        rows = slice(self.box[0] - top, self.box[1] - top)
        columns = slice(self.box[2] - left, self.box[3] - left)
        grown[:, :, :, rows, columns] = self.values
        return grown


class Trace(NamedTuple):
    """What one layer did: its name, and `[T, N, ...]` of currents, membrane potentials and spikes.

    A ReLU layer has one time step, its activations as `spikes` and no membrane.
    """

    name: str
    current: torch.Tensor
    membrane: torch.Tensor | None
    spikes: torch.Tensor


def data_box(images: torch.Tensor) -> tuple[int, int, int, int]:
    """The smallest box of `images` `[N, C, H, W]` outside which every pixel of every image is zero."""
    images = images.detach().cpu()
    if images.dtype not in (torch.float32, torch.float64):
        images = images != 0  # numpy knows no bfloat16, and numba no float16
    top, bottom, left, right = _bounds(images.numpy())
    return (top, bottom, left, right) if bottom else (0, 1, 0, 1)


@njit(nogil=True)
def _bounds(images):
    top, bottom, left, right = images.shape[2], 0, images.shape[3], 0
    for image in range(images.shape[0]):
        for channel in range(images.shape[1]):
            for row in range(images.shape[2]):
                for column in range(images.shape[3]):
                    if images[image, channel, row, column] != 0:
                        top, bottom = min(top, row), max(bottom, row + 1)
                        left, right = min(left, column), max(right, column + 1)
    return top, bottom, left, right


class Network(nn.Module):
    """A feed-forward network of the paper's notation; see `build`.

    `forward` takes images `[N, C, H, W]` and gives an `Output`. The image is the same input current at each
    of `num_steps` time steps (direct encoding).
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
        self.num_steps, self.neuron, self.input_shape = num_steps, neuron, tuple(input_shape)
        self.dropout = (
            0.0  # share of the last layer's inputs that are blanked in training; not part of what is saved
        )
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
        self.weights, self.norms = nn.ModuleList(), nn.ModuleList()
        channels, *size = input_shape
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
        """Refuse, before anything is made, layers that do not fit their maps, or would fill the memory."""
        if len(self.layers) > _MOST_LAYERS:
            raise ValueError(f"architecture has {len(self.layers)} layers of at most {_MOST_LAYERS}")
        channels, *size = self.input_shape
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

    def forward(self, images: torch.Tensor) -> Output:
        return self._run(images, traces=None)

    @torch.no_grad()
    def trace(self, images: torch.Tensor) -> list[Trace]:
        """What every layer did for `images` `[N, C, H, W]`: whole maps, nothing left out."""
        traces: list[Trace] = []
        self._run(images, traces)
        return traces

    def _run(self, images: torch.Tensor, traces: list[Trace] | None) -> Output:
        if images.dim() != 4 or tuple(images.shape[1:]) != self.input_shape:
            raise ValueError(
                f"images must be [N, {', '.join(map(str, self.input_shape))}], not {list(images.shape)}"
            )
        dtype = self.weights[0].weight.dtype
        if images.dtype != dtype:
            raise ValueError(
                f"images must be of the type of the network's weights, {dtype}, not {images.dtype}; "
                "convert one of them"
            )
        if dtype == torch.float16 and self.recipe.weight_bits:
            raise ValueError("rounded weights are not computed in float16, where their gradient overflows")
        height, width = images.shape[2:]
        padded = any(layer.padding for layer in self.layers)
        whole = traces is not None or padded or images.requires_grad or len(self.norms) > 0
        box = (0, height, 0, width) if whole else data_box(images)
        patch = Patch(images[None], None, box, (height, width))
        flat = None  # [S, N, units] once the maps are behind
        for layer, module, norm in zip_longest(self.layers, self.weights, self.norms):
            last = layer is self.layers[-1]
            weight = quantization.weight_of(module) if self.recipe.weight_bits else module.weight
            bias = weight.new_zeros(layer.units) if module.bias is None else module.bias
            if layer.kernel:
                patch = _convolve(patch, layer, weight, bias)
                if norm is not None:
                    patch = patch._replace(values=_normalised(norm, patch.values))
                patch = _pool(patch, layer)
                spikes, membrane = self._fire(patch.values, traces is not None)
                background = patch.background
                if patch.box != (0, patch.size[0], 0, patch.size[1]):
                    background, _ = self._fire(patch.background, False)
                else:
                    background = background.new_zeros(spikes.shape[0], layer.units)
                current, patch = patch.values, patch._replace(values=spikes, background=background)
            else:
                if flat is None:
                    if patch.background is None:
                        patch = patch._replace(background=images.new_zeros(1, images.shape[1]))
                    inside = patch.grown(patch.box)
                    current = boxed_linear(inside, *patch[1:], weight, bias)
                else:
                    if last and self.dropout and self.training:
                        flat = functional.dropout(flat, self.dropout)
                    current = functional.linear(flat, weight, bias)
                if norm is not None:
                    current = _normalised(norm, current)
                if last and not self.spiking:
                    spikes, membrane = current, None
                else:
                    spikes, membrane = self._fire(current, traces is not None or last, last)
                flat = spikes
            if traces is not None:
                traces.append(Trace(layer.name, current, membrane, spikes))
        return Output(spikes, membrane) if self.spiking else Output(None, current)

    def _fire(
        self, current: torch.Tensor, membrane: bool, last: bool = False
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        if not self.spiking:
            return torch.relu(current), None
        neuron = self.output_neuron if last else self.neuron
        return kernels.leaky(current, neuron, self.num_steps, membrane)


def _normalised(norm: nn.Module, current: torch.Tensor) -> torch.Tensor:
    """A current `[S, N, ...]` normalised per channel, over all steps and recordings together."""
    return norm(current.flatten(0, 1)).unflatten(0, current.shape[:2])


def fold(network: Network) -> Network:
    """`network` without its batch normalisation, which its weights and biases take in; in evaluation mode.

        w' = w gamma / sqrt(var + eps),    b' = (b - mean) gamma / sqrt(var + eps) + beta

    where mean and var are the running ones. Spikes are those of `network` but for the rounding of sums. What
    is saved, counted, quantised and exported is a network of plain notation.
    """
    about = network.architecture, network.num_steps, network.neuron, network.input_shape, network.spiking
    folded = Network(*about, network.recipe)
    with torch.no_grad():
        for new, old, norm in zip_longest(folded.weights, network.weights, network.norms):
            scale, shift = torch.ones(len(old.weight)), torch.zeros(len(old.weight))
            if norm is not None:
                scale = norm.weight / torch.sqrt(norm.running_var + norm.eps)
                shift = norm.bias - norm.running_mean * scale
            new.weight.copy_(old.weight * scale.view(-1, *[1] * (old.weight.dim() - 1)))
            new.bias.copy_(old.bias * scale + shift)
    return folded.eval()


def unfold(network: Network, spiking: bool, images: torch.Tensor) -> Network:
    """A ReLU network of plain notation given its batch normalisation back, as a spiking or a ReLU network.

    Its normalisation is such that, for `images` `[N, C, H, W]`, the ReLU network's currents stay as they are:
    mean and deviation of each channel become those that it gives. A spiking network that starts so needs
    fewer epochs.
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
            norm.weight.copy_(torch.sqrt(variance + norm.eps))
            norm.running_var.copy_(variance)
            for statistic in (norm.bias, norm.running_mean):
                statistic.copy_(mean)
            if layer.pool:
                current = functional.max_pool2d(current, layer.pool, layer.pool_stride)
            values = torch.relu(current)
    return unfolded


def _convolve(patch: Patch, layer: Layer, weight: torch.Tensor, bias: torch.Tensor) -> Patch:
    """The convolution of `patch`: every output that touches its box, and the value of all others."""
    size = layer.convolved(patch.size)
    if layer.padding:
        box, wanted = (0, size[0], 0, size[1]), (0, patch.size[0], 0, patch.size[1])
    else:
        box, wanted = _reach(patch.box, layer.kernel, layer.stride, size)
    values = patch.grown(wanted)
    maps = functional.conv2d(values.flatten(0, 1), weight, bias, layer.stride, layer.padding)
    current = maps.unflatten(0, values.shape[:2])
    background = bias[None]
    if patch.background is not None:
        background = functional.linear(patch.background, weight.sum(dim=(2, 3)), bias)
    return Patch(current, background, box, size)


def _pool(patch: Patch, layer: Layer) -> Patch:
    """Max pooling of `patch`, as `_convolve`."""
    if not layer.pool:
        return patch
    size = layer.pooled(patch.size)
    box, wanted = _reach(patch.box, layer.pool, layer.pool_stride, size)
    values = patch.grown(wanted)
    pooled = functional.max_pool2d(values.flatten(0, 1), layer.pool, layer.pool_stride)
    return Patch(pooled.unflatten(0, values.shape[:2]), patch.background, box, size)


def _reach(box, kernel, stride, size):
    """The box of outputs of a sliding window that touch `box`, and the box of inputs they need."""
    reached, wanted = [], []
    for low, high, length in ((*box[:2], size[0]), (*box[2:], size[1])):
        # Not behind `low`, where a stride beyond the kernel puts it: `wanted` begins at an output's edge.
        first = min(max(0, -(-(low - kernel + 1) // stride)), low // stride, length - 1)
        last = max(first, min((high - 1) // stride, length - 1))
        reached += [first, last + 1]
        wanted += [min(first * stride, low), max(last * stride + kernel, high)]
    return tuple(reached), tuple(wanted)


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
    """A network from its notation, or from a name of the `ZOO`.

    `num_steps`, `beta`, `threshold`, `reset` and `slope` are the neurons' (see `scnn.neurons.leaky`) and
    mean nothing to a ReLU network. `input_shape` is channels, height and width. `spiking` defaults to the
    zoo's entry, and to True for a notation. `precision` is a name of `scnn.quantization.RECIPES`: what is
    rounded in training and after it. The weights are PyTorch's default initialisation from `seed`;
    the global random state is left alone. `classes` is the number of outputs that is needed, if given: a
    network of the zoo, which has the paper's ten otherwise, ends with that many; a notation must say the
    same. `batch_norm` normalises the current of every layer but the last (Ioffe and Szegedy, 2015), for
    training; `fold` takes it out again. Raises `ValueError` for a notation that cannot be read or has
    another number of outputs, an input too small, or a parameter out of range.
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
        raise ValueError(f"batch_norm folds into full precision only, not into precision {precision!r}")
    neuron = Neuron(beta, threshold, reset, slope, recipe.membrane_bits, recipe.clip_gradient)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        spiking = spiking is None or bool(spiking)
        return Network(architecture, num_steps, neuron, input_shape, spiking, recipe, batch_norm)
