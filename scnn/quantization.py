"""Low precision: the recipes by name, and weights quantised by Brevitas.

A recipe says what is rounded while a network is trained (quantisation-aware training). Weights are rounded
to signed integers of a few bits times one scale, the largest magnitude of the tensor or of each output
channel; membranes to levels around the threshold (`scnn.neurons.Neuron.levels`). The forward pass computes
with rounded values in float32, the backward pass takes the rounding's gradient as 1.
"""

from dataclasses import dataclass

import torch
from torch import nn


@dataclass(frozen=True)
class Recipe:
    """What is rounded, and how. Raises `ValueError` naming the field and what is valid."""

    weight_bits: int = 0  # 2 to 8; 0: full precision
    per_channel: bool = False  # a scale for each output channel or unit, not one for the whole tensor
    bias: bool = True  # layers have a bias, in full precision
    membrane_bits: int = 0  # of `scnn.neurons.Neuron`, as the next
    clip_gradient: str = "masked"

    def __post_init__(self):
        if isinstance(self.weight_bits, bool) or self.weight_bits not in (0, *range(2, 9)):
            raise ValueError(f"weight_bits must be 0 or a whole number in 2..8, not {self.weight_bits!r}")
        for name in ("per_channel", "bias"):
            if not isinstance(getattr(self, name), bool):
                raise ValueError(f"{name} must be True or False, not {getattr(self, name)!r}")


# One thing differs from "int8" in each but the first two. A ReLU network has no membranes to round.
RECIPES = {
    "fp32": Recipe(),
    "int8-paper": Recipe(8, bias=False, membrane_bits=8, clip_gradient="straight"),
    "int8": Recipe(8, membrane_bits=8),
    "int8-weights": Recipe(8),
    "int8-straight": Recipe(8, membrane_bits=8, clip_gradient="straight"),
    "int8-nobias": Recipe(8, bias=False, membrane_bits=8),
    "int8-m16": Recipe(8, membrane_bits=16),
    "int8-channel": Recipe(8, per_channel=True, membrane_bits=8),
    "int4": Recipe(4, membrane_bits=8),
    "int4-channel": Recipe(4, per_channel=True, membrane_bits=8),
    "int2": Recipe(2, membrane_bits=8),
    "int2-channel": Recipe(2, per_channel=True, membrane_bits=8),
}


def recipe(precision: str) -> Recipe:
    """The recipe of that name; `ValueError` lists the names."""
    if precision not in RECIPES:
        raise ValueError(f"precision must be one of {', '.join(RECIPES)}, not {precision!r}")
    return RECIPES[precision]


def convolution(chosen: Recipe, *sizes: int) -> nn.Conv2d:
    """A convolution of `sizes` (channels in and out, kernel, stride, padding), weights as in `chosen`."""
    return _layer(chosen, nn.Conv2d, "QuantConv2d", sizes)


def linear(chosen: Recipe, *sizes: int) -> nn.Linear:
    """A fully connected layer of `sizes` (units in and out), weights as in `chosen`."""
    return _layer(chosen, nn.Linear, "QuantLinear", sizes)


def _layer(chosen, plain, quantised, sizes):
    if not chosen.weight_bits:
        return plain(*sizes, bias=chosen.bias)
    from brevitas import nn as brevitas_nn  # takes seconds, and full precision does without
    from brevitas.quant import Int8WeightPerChannelFloat, Int8WeightPerTensorFloat

    quantizer = Int8WeightPerChannelFloat if chosen.per_channel else Int8WeightPerTensorFloat
    return getattr(brevitas_nn, quantised)(
        *sizes, bias=chosen.bias, weight_quant=quantizer, weight_bit_width=chosen.weight_bits
    )


def weight_of(layer: nn.Module) -> torch.Tensor:
    """The weight that `layer` computes with: rounded where it is quantised."""
    return layer.quant_weight().value if hasattr(layer, "quant_weight") else layer.weight


def packed_bytes(network: nn.Module) -> int:
    """Bytes of a network's weights packed at their width, its scales (float32) and biases (4 bytes each)."""
    total = 0
    for layer in network.weights:
        bits, scales = 32, 0
        if hasattr(layer, "quant_weight"):
            quantised = layer.quant_weight()
            bits, scales = int(quantised.bit_width), quantised.scale.numel()
        total += -(-layer.weight.numel() * bits // 8) + 4 * scales
        total += 0 if layer.bias is None else 4 * layer.bias.numel()
    return total
