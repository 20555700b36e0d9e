"""Quantisation: named recipes, and weights quantised by Brevitas.

A recipe defines what is quantised during training (quantisation-aware training). Weights are rounded to
signed integers of a few bits times a scale, which comes from the largest magnitude in the tensor or in each
output channel; membranes are rounded to levels around the threshold (`scnn.neurons.Neuron.levels`). The
forward pass computes with rounded values in float32; the backward pass treats the rounding as the identity.

`static_ptq` quantises a trained ReLU network without further training (static post-training quantisation).
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import nn
from torch.nn import functional

from scnn._jit import njit
from scnn.neurons import Output

if TYPE_CHECKING:
    from scnn.models import Network

_SMALLEST = np.float32(1e-10)  # Brevitas' lower bound for the magnitude that sets a scale


Synapse = nn.Conv2d | nn.Linear  # a layer's weights: PyTorch's class, or Brevitas' quantising subclass


@dataclass(frozen=True)
class Recipe:
    """What is quantised, and how.

    Attributes:
        weight_bits: 2 to 8; 0 for full precision.
        per_channel: use a scale per output channel or unit, not one for the whole tensor.
        bias: whether layers have a bias, in full precision.
        membrane_bits: as in `scnn.neurons.Neuron`.
        clip_gradient: as in `scnn.neurons.Neuron`.
        round_output: quantise the output units' membranes, too, from which answer and loss are computed.

    Raises:
        ValueError: a field is not valid; the message names it and what is valid.
    """

    weight_bits: int = 0
    per_channel: bool = False
    bias: bool = True
    membrane_bits: int = 0
    clip_gradient: str = "masked"
    round_output: bool = False

    def __post_init__(self):
        if type(self.weight_bits) is not int or self.weight_bits not in (0, *range(2, 9)):
            raise ValueError(f"weight_bits must be 0 or a whole number in 2..8, not {self.weight_bits!r}")
        for name in ("per_channel", "bias", "round_output"):
            if not isinstance(getattr(self, name), bool):
                raise ValueError(f"{name} must be True or False, not {getattr(self, name)!r}")


# "int8-paper" has no biases and the straight clip gradient. "int8-nobias" shares only the first with it,
# "int8-straight" only the second, "int8-output" neither. "int8" also leaves the output membranes in full
# precision; the recipes below it differ as their names say. A ReLU network has no membranes to quantise.
RECIPES = {
    "fp32": Recipe(),
    "int8-paper": Recipe(8, bias=False, membrane_bits=8, clip_gradient="straight", round_output=True),
    "int8-nobias": Recipe(8, bias=False, membrane_bits=8, round_output=True),
    "int8-straight": Recipe(8, membrane_bits=8, clip_gradient="straight", round_output=True),
    "int8-output": Recipe(8, membrane_bits=8, round_output=True),
    "int8": Recipe(8, membrane_bits=8),
    "int8-weights": Recipe(8),
    "int4-weights": Recipe(4, per_channel=True),
    "int8-m16": Recipe(8, membrane_bits=16),
    "int8-channel": Recipe(8, per_channel=True, membrane_bits=8),
    "int4": Recipe(4, membrane_bits=8),
    "int4-channel": Recipe(4, per_channel=True, membrane_bits=8),
    "int2": Recipe(2, membrane_bits=8),
    "int2-channel": Recipe(2, per_channel=True, membrane_bits=8),
}


def recipe(precision: str) -> Recipe:
    """The recipe with a given name.

    Raises:
        ValueError: there is no such recipe; the message lists the names.

    >>> chosen = recipe("int4-weights")
    >>> chosen.weight_bits, chosen.per_channel, chosen.membrane_bits
    (4, True, 0)
    """
    if precision not in RECIPES:
        raise ValueError(f"precision must be one of {', '.join(RECIPES)}, not {precision!r}")
    return RECIPES[precision]


def convolution(chosen: Recipe, *sizes: int) -> nn.Conv2d:
    """A convolution with `sizes` (channels in and out, kernel, stride, padding) and the recipe `chosen`."""
    return _layer(chosen, nn.Conv2d, "QuantConv2d", sizes)


def linear(chosen: Recipe, *sizes: int) -> nn.Linear:
    """A fully connected layer with `sizes` (units in and out) and the recipe `chosen`."""
    return _layer(chosen, nn.Linear, "QuantLinear", sizes)


def _layer(chosen: Recipe, plain: type[nn.Module], quantised: str, sizes: tuple[int, ...]) -> Any:
    if not chosen.weight_bits:
        return plain(*sizes, bias=chosen.bias)
    from brevitas import nn as brevitas_nn  # imported here, as it takes seconds and fp32 does not need it
    from brevitas.quant import Int8WeightPerChannelFloat, Int8WeightPerTensorFloat

    quantizer = Int8WeightPerChannelFloat if chosen.per_channel else Int8WeightPerTensorFloat
    layer = getattr(brevitas_nn, quantised)(
        *sizes, bias=chosen.bias, weight_quant=quantizer, weight_bit_width=chosen.weight_bits
    )
    layer.rounding = chosen.weight_bits, chosen.per_channel
    return layer


def weight_of(layer: Synapse) -> torch.Tensor:
    """The weight that `layer` computes with: rounded if it is quantised.

    On the CPU, one fused pass over the memory gives exactly the value of Brevitas' `quant_weight`, which
    needs about thirty operations and several times as long.
    """
    rounded: Any = layer  # Brevitas' classes have no types
    if not hasattr(layer, "quant_weight"):
        return layer.weight
    if layer.weight.device.type != "cpu" or layer.weight.dtype != torch.float32:
        return rounded.quant_weight().value
    return _Round.apply(layer.weight, *rounded.rounding)


class _Round(torch.autograd.Function):
    """Round a weight [O, ...] to `bits` bits; the gradient passes through the rounding and to the scale."""

    @staticmethod
    def forward(ctx, weight, bits, per_channel):
        flat = weight.detach().numpy().reshape(len(weight) if per_channel else 1, -1)
        rounded, largest = torch.empty_like(weight), np.empty(len(flat), np.int64)
        _round(flat, np.float32(2 ** (bits - 1) - 1), rounded.numpy().reshape(flat.shape), largest)
        ctx.save_for_backward(weight)
        ctx.bits, ctx.largest = bits, largest
        return rounded

    @staticmethod
    def backward(ctx, grad):
        (weight,) = ctx.saved_tensors
        flat = weight.detach().numpy().reshape(len(ctx.largest), -1)
        passed = grad.contiguous().clone()
        top = np.float32(2 ** (ctx.bits - 1) - 1)
        _round_backward(flat, top, ctx.largest, passed.numpy().reshape(flat.shape))
        return passed, None, None


@njit(nogil=True, inline="always")
def _scale(row, largest, top):
    return max(abs(row[largest]), _SMALLEST) / top


@njit(nogil=True, fastmath={"nnan", "nsz"})  # these flags allow vectorisation
def _magnitude(row):
    magnitude = np.float32(0)
    for j in range(row.size):
        magnitude = max(magnitude, abs(row[j]))
    return magnitude


@njit(nogil=True, error_model="numpy")
def _round(weight, top, rounded, largest):
    """Write `weight` [rows, N], rounded with a scale per row, to `rounded`.

    The index of each row's largest magnitude is written to `largest`.
    """
    for i in range(len(weight)):
        row, out = weight[i], rounded[i]
        magnitude = _magnitude(row)
        largest[i] = 0
        while abs(row[largest[i]]) < magnitude:
            largest[i] += 1
        scale = _scale(row, largest[i], top)
        for j in range(row.size):
            out[j] = np.rint(row[j] / scale) * scale


@njit(nogil=True, error_model="numpy", fastmath={"reassoc"})
def _round_backward(weight, top, largest, grad):
    """Add to `grad` [rows, N] the gradient through each row's scale, |largest weight| / top."""
    for i in range(len(weight)):
        row, scale = weight[i], _scale(weight[i], largest[i], top)
        of_scale = 0.0
        for j in range(row.size):
            whole = row[j] / scale
            of_scale += grad[i, j] * (np.rint(whole) - whole)
        grad[i, largest[i]] += np.float32(np.sign(row[largest[i]]) * of_scale / top)


def packed_bytes(network: Network) -> int:
    """Bytes of a network's weights packed at their bit width, plus scales and biases (4 bytes each)."""
    total = 0
    for layer in network.weights:
        bits, scales = 32, 0
        if rounded := getattr(layer, "quant_weight", None):
            quantised = rounded()
            bits, scales = int(quantised.bit_width), quantised.scale.numel()
        total += -(-layer.weight.numel() * bits // 8) + 4 * scales
        total += 0 if layer.bias is None else 4 * layer.bias.numel()
    return total


def static_ptq(network: Network, images: torch.Tensor, bits: int = 8) -> StaticNetwork:
    """Quantise weights and activations of a trained ReLU `scnn.models.Network` without further training.

    Weights are rounded as in a `Recipe`, per tensor. The image and the output of each ReLU are rounded to
    signed and unsigned integers, respectively, times a fixed scale each: the 99.999th percentile of the
    activations for `images` becomes the outermost level. Biases and logits stay in full precision. `network`
    is left unchanged.

    Args:
        network: a ReLU network in full precision.
        images: `[N, C, H, W]`, the images to determine the scales from.
        bits: bits of weights and activations, 2..8.

    Raises:
        ValueError: the network spikes or is quantised, or `bits` is outside 2..8.
    """
    if network.spiking or network.recipe != RECIPES["fp32"]:
        raise ValueError(f"network must be a ReLU network in full precision, not {network.extra_repr()}")
    chosen = Recipe(weight_bits=bits)
    if not chosen.weight_bits:
        raise ValueError(f"bits must be a whole number in 2..8, not {bits!r}")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about an optional package that only language models need
        from brevitas.graph.calibrate import calibration_mode

    quantised = StaticNetwork(network, chosen).eval()
    with torch.no_grad(), calibration_mode(quantised):
        quantised(images)
    return quantised


class StaticNetwork(nn.Module):
    """A network quantised by `static_ptq`; like `Network`, it takes images and returns an `Output`."""

    def __init__(self, network: Network, chosen: Recipe):
        from brevitas import nn as brevitas_nn

        super().__init__()
        self.layers, self.weights = network.layers, nn.ModuleList()
        self.inputs = nn.ModuleList([brevitas_nn.QuantIdentity(bit_width=chosen.weight_bits)])
        for layer, trained in zip(network.layers, network.weights, strict=True):
            if isinstance(trained, nn.Conv2d):
                sizes = trained.in_channels, layer.units, layer.kernel, layer.stride, layer.padding
                self.weights.append(convolution(chosen, *sizes))
            else:
                self.weights.append(linear(chosen, trained.in_features, layer.units))
            for name, value in trained.named_parameters():
                getattr(self.weights[-1], name).data.copy_(value)
            self.inputs.append(brevitas_nn.QuantReLU(bit_width=chosen.weight_bits))
        self.inputs = self.inputs[:-1]  # the last layer's output is not quantised

    def forward(self, images: torch.Tensor) -> Output:
        values = images
        for layer, rounded, weight in zip(self.layers, self.inputs, self.weights, strict=True):
            values = weight(rounded(values if layer.kernel else values.flatten(1)))
            if layer.pool:
                values = functional.max_pool2d(values, layer.pool, layer.pool_stride)
        return Output(None, values[None])
