"""A trained network as integers: weights, biases, thresholds and leak, with proof that nothing overflows.

A layer's weights become whole numbers W times a scale s, one for the tensor or one for each output. Divided
by its scale, the layer reads::

    I[t] = (sum of W x[t]) 2^f + bias        bias = b 2^f / (s u)
    U[t] = leak(U[t-1]) + I[t] - R[t] threshold        threshold = theta 2^f / (s u)

where x are spikes (unit u = 1) or the pixels of the image (u = 1/256, or 1/4096 for "peak"), and f bits keep
a fraction of the membrane, so that the threshold, in whole numbers, is close to the trained one. A ReLU
layer gives::

    y = clip((I multiplier + 2^31) >> 32, 0, 255)        multiplier = s u / u' 2^32

where u' is the unit of its outputs, from the activations of clips for calibration.
"""

from __future__ import annotations

import json
import math
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch

from scnn.deploy.frontend import FrontEnd
from scnn.experiment import Experiment, load_data
from scnn.models import Network
from scnn.neurons import Neuron
from scnn.notation import Layer as Notation
from scnn.training import READOUTS, load_network

BITS = (8, 4, 2)
MAX_STEPS = 8  # a neuron's spikes are the bits of a byte
FINE = 4096  # the least threshold that is aimed at: it is then within 1/8192 of the trained one
LANES = 2**15 - 1  # what an int16 holds
TUNED = (128, 512)  # least and largest threshold that can be tried, in 1/256 of the network's own
_LARGEST = 2**31 - 1
_PERCENTILE = 99.999  # of a ReLU layer's activations: its outermost level, as in scnn.quantization.static_ptq


@dataclass(frozen=True)
class Leak:
    """What a membrane keeps: U >> shift, or where `shift` is None 2 (U factor >> 16)."""

    shift: int | None
    factor: int = 0

    @classmethod
    def of(cls, beta: float) -> Leak:
        shift = -math.log2(beta) if beta > 0 else math.inf
        if shift == int(min(shift, 99)) and shift <= 15:
            return cls(int(shift))
        return cls(None, min(round(beta * 2**15), LANES))

    def of_membrane(self, membrane: np.ndarray) -> np.ndarray:
        return (membrane * self.factor >> 16) * 2 if self.shift is None else membrane >> self.shift


@dataclass(frozen=True)
class Layer:
    """A layer in integers; the first axis of its arrays is that of the outputs.

    The letters f, s and u are those of the module's equations.

    Attributes:
        notation: the layer in the paper's notation.
        bits: of a weight in memory.
        before: (channels, height, width) of what comes in.
        shape: (channels, height, width) of what goes out, after the pooling.
        weights: int8 [outputs, channels, kernel, kernel], or [outputs, inputs] in the order of PyTorch's
            flattening.
        bias: int64 [outputs].
        scale: float64 [outputs], s u 2^-f, back to the trained values.
        fraction: bits of the membrane behind the point, f.
        threshold: int64 [outputs], of a spiking layer.
        leak: of a spiking layer.
        reset: of a spiking layer.
        multiplier: int64 [outputs], of a hidden ReLU layer. A last layer has one where its outputs have
            scales of their own: a score of membranes or logits is then (score multiplier + 2^30) >> 31.
    """

    notation: Notation
    bits: int
    before: tuple[int, int, int]
    shape: tuple[int, int, int]
    weights: np.ndarray
    bias: np.ndarray
    scale: np.ndarray
    fraction: int = 0
    threshold: np.ndarray = None  # type: ignore[assignment]  # of a ReLU layer, which has none
    leak: Leak = Leak(0)
    reset: str = "subtract"
    multiplier: np.ndarray | None = None

    @property
    def name(self) -> str:
        return self.notation.name

    @property
    def magnitude(self) -> np.ndarray:
        """Sum of the magnitudes of each output's weights."""
        return np.abs(self.weights.astype(np.int64)).reshape(len(self.weights), -1).sum(axis=1)


@dataclass(frozen=True)
class Program:
    """All that decides the answer to a recording.

    Attributes:
        front_end: from samples to the image.
        layers: in order.
        steps: time steps.
        spiking: False for a ReLU network.
        readout: "spikes" or "membrane", see `scnn.training.scores`; a ReLU network has its logits.
        classes: names of the outputs.
        architecture: in the paper's notation.
        refuse: the confidence, 0..1, below which an answer in a stream is "not sure".
    """

    front_end: FrontEnd
    layers: tuple[Layer, ...]
    steps: int
    spiking: bool
    readout: str
    classes: tuple[str, ...]
    architecture: str
    refuse: float = 0.0

    def proof(self) -> pd.DataFrame:
        """Largest magnitudes that any image can cause, a row a layer.

        `sum` is of weights. All are below 2^31, or there would be no program. `bits` says how wide weights
        are stored, and `lanes` whether the sums of a layer of spikes fit 16 bits with each weight on top of
        the bits of a byte.
        """
        rows = []
        for index, layer in enumerate(self.layers):
            largest = _largest_input(index, self.front_end, self.spiking)
            sums, current, membrane = _bounds(layer, largest, self.steps)
            lanes = sums << 8 - layer.bits <= LANES
            rows.append((layer.name, layer.bits, layer.fraction, sums, current, membrane, lanes))
        names = ["layer", "bits", "fraction", "sum", "current", "membrane", "lanes"]
        return pd.DataFrame(rows, columns=names).set_index("layer")


def convert(
    network: Network,
    front_end: FrontEnd,
    *,
    bits: int | None = None,
    per_channel: bool = True,
    readout: str = "spikes",
    classes: tuple[str, ...] | None = None,
    calibration: torch.Tensor | None = None,
) -> Program:
    """The `Program` of a trained network.

    Args:
        bits: of the weights, one of `BITS`; by default those of the network's training, and 8 for full
            precision.
        per_channel: a scale for each output of a layer, but one for the last layer, whose outputs compare so;
            a network trained with rounded weights keeps its own way.
        readout: "spikes" or "membrane", see `scnn.training.scores`; a ReLU network has its logits.
        classes: names of the outputs; by default their numbers.
        calibration: images `[N, C, H, W]` that a ReLU network's activations are scaled by.

    Raises:
        ValueError: something has no integer form: quantised membranes, more than `MAX_STEPS` steps, a layer
            whose sums could leave 32 bits; the message names it.
    """
    recipe = network.recipe
    if recipe.membrane_bits and network.spiking:
        raise ValueError(
            f"membrane_bits={recipe.membrane_bits}: levels of the membrane have no integer form here; "
            "train with precision 'fp32' or 'int8-weights'"
        )
    if network.spiking and network.num_steps > MAX_STEPS:
        raise ValueError(f"num_steps={network.num_steps}: must be at most {MAX_STEPS}, a bit each")
    if readout not in READOUTS:
        raise ValueError(f"readout must be one of {', '.join(READOUTS)}, not {readout!r}")
    if not network.spiking and calibration is None:
        raise ValueError("calibration: a ReLU network needs images, which its activations are scaled by")
    f = front_end.features
    if network.input_shape != (1, f.height, f.width):
        raise ValueError(
            f"the network takes images {network.input_shape}, the features give {(1, f.height, f.width)}"
        )
    if recipe.weight_bits:
        if bits not in (None, recipe.weight_bits):
            raise ValueError(
                f"bits={bits}: the network was trained with weights of {recipe.weight_bits} bits"
            )
        bits, channels = recipe.weight_bits, [recipe.per_channel] * len(network.layers)
    elif bits is None:
        bits = 8
    elif bits not in BITS:
        raise ValueError(f"bits must be one of {', '.join(map(str, BITS))}, not {bits!r}")
    if not recipe.weight_bits:
        channels = [per_channel] * (len(network.layers) - 1) + [False]
    units = [1.0 / front_end.unit]
    if network.spiking:
        units += [1.0] * (len(network.layers) - 1)
    elif calibration is not None:
        units += _activation_units(network, calibration)
    layers, before = [], network.input_shape
    for index, (layer, module) in enumerate(zip(network.layers, network.weights, strict=True)):
        last = index == len(network.layers) - 1
        largest = _largest_input(index, front_end, network.spiking)
        weights, scale = rounded(module.weight.detach().numpy(), bits, channels[index])
        scale = scale * units[index]
        size = layer.pooled(layer.convolved(before[1:])) if layer.kernel else (1, 1)
        made = Layer(
            layer,
            min(b for b in BITS if b >= bits),
            before,
            (layer.units, *size),
            weights,
            np.zeros(0),
            scale,
        )
        bias = np.zeros(layer.units) if module.bias is None else module.bias.detach().double().numpy()
        if network.spiking:
            made = _spiking(made, bias, _neuron(network, index), largest, network.num_steps)
        else:
            made = replace(made, bias=np.rint(bias / scale).astype(np.int64))
            if not last:
                multiplier = np.rint(scale / units[index + 1] * 2**32).astype(np.int64)
                if multiplier.max() > _LARGEST:
                    raise ValueError(
                        f"{layer.name}: its outputs' unit is too fine for its weights of {bits} bits"
                    )
                made = replace(made, multiplier=multiplier)
        if last and channels[index] and not (network.spiking and readout == "spikes"):
            made = replace(made, multiplier=np.rint(scale / scale.max() * _LARGEST).astype(np.int64))
        _, *bounds = _bounds(made, largest, network.num_steps)
        if max(bounds) > _LARGEST:
            raise ValueError(f"{layer.name}: its sums could reach {max(bounds):.3g}, beyond 32 bits")
        layers.append(made)
        before = made.shape
    classes = classes or tuple(str(i) for i in range(layers[-1].shape[0]))
    steps = network.num_steps if network.spiking else 1
    return Program(
        front_end, tuple(layers), steps, network.spiking, readout, tuple(classes), network.architecture
    )


def tuned(program: Program, steps: int, threshold: int = 256) -> Program:
    """A spiking `program` with other time steps and thresholds.

    Args:
        steps: how many.
        threshold: in 1/256 of the program's own.

    Raises:
        ValueError: the network is a ReLU one, there are more than `MAX_STEPS` steps, the threshold is outside
            `TUNED`, or a sum could leave 32 bits.
    """
    if not program.spiking:
        raise ValueError("a ReLU network has neither time steps nor thresholds to tune")
    if not 1 <= steps <= MAX_STEPS or not TUNED[0] <= threshold <= TUNED[1]:
        raise ValueError(
            f"steps={steps}, threshold={threshold}: must be in 1..{MAX_STEPS} and {TUNED[0]}..{TUNED[1]}"
        )
    layers = tuple(
        replace(layer, threshold=layer.threshold * threshold + 128 >> 8) for layer in program.layers
    )
    for index, layer in enumerate(layers):
        most = max(_bounds(layer, _largest_input(index, program.front_end, True), steps))
        if most > _LARGEST:
            raise ValueError(
                f"{layer.name}: with steps={steps} its sums could reach {most:.3g}, beyond 32 bits"
            )
    return replace(program, layers=layers, steps=steps)


def most_steps(program: Program) -> int:
    """Time steps up to which `tuned` takes every threshold; 1 for a ReLU network."""
    steps = program.steps
    with suppress(ValueError):
        while program.spiking:
            tuned(program, steps + 1, TUNED[1])
            steps += 1
    return steps


def load_program(path: Path | str, **options: Any) -> Program:
    """The `Program` of a network file written by `scnn train --save`; options as in `convert`.

    Its answer is read as the network was trained to be, where no `readout` is given. A ReLU network is
    calibrated on the training clips of the corpus that it was trained on.

    Raises:
        FileNotFoundError: as `load_network`.
        ValueError: as `load_network` and `convert`, and where the file does not say how its images were made.
    """
    network, about = load_network(path)
    try:
        experiment = Experiment.from_json(json.dumps(about["experiment"]))
        front_end = FrontEnd(experiment.features, about["sample_rate"], _pair(about["normalization"]))
        classes = tuple(about["classes"])
    except (KeyError, TypeError) as error:
        raise ValueError(f"{path}: it does not say how its images were made ({error} is missing)") from error
    options["readout"] = options.get("readout") or experiment.readout
    if not network.spiking and options.get("calibration") is None:
        data = load_data(experiment)
        options["calibration"] = data.part(data.split.train)[0]
    program = convert(network, front_end, classes=classes, **options)
    return replace(program, refuse=experiment.refuse)


def rounded(weight: np.ndarray, bits: int, per_channel: bool) -> tuple[np.ndarray, np.ndarray]:
    """Weights [outputs, ...] as int8 and their scales [outputs], as `scnn.quantization` rounds them."""
    flat = weight.reshape(len(weight) if per_channel else 1, -1)
    top = np.float32(2 ** (bits - 1) - 1)
    scale = np.maximum(np.abs(flat).max(axis=1, keepdims=True), np.float32(1e-10)) / top
    whole = np.rint(flat / scale).astype(np.int8).reshape(weight.shape)
    return whole, np.broadcast_to(scale[:, 0], len(weight)).astype(np.float64)


def report(program: Program, network: Network, images: torch.Tensor, pcm: list[np.ndarray], labels) -> dict:
    """What conversion cost on some clips.

    Args:
        images: as the network takes them.
        pcm: the same clips' samples, int16 [n] each.
        labels: their classes.

    Returns:
        `float` and `integer`, accuracies in 0..1 by the program's read-out; `cost`, their difference in
        points; `same`, the share of equal answers; and `image_error`, the largest difference of a pixel.
    """
    from scnn.deploy import reference
    from scnn.training import predict

    labels = np.asarray(labels)
    taken = program.front_end.images(pcm)
    before = predict(network, images, program.readout).numpy()
    after = reference.run(program, taken).answers
    right = (before == labels).mean(), (after == labels).mean()
    return {
        "clips": len(labels),
        "float": float(right[0]),
        "integer": float(right[1]),
        "cost": float(100 * (right[0] - right[1])),
        "same": float((before == after).mean()),
        "image_error": float(np.abs(taken / program.front_end.unit - images[:, 0].numpy()).max()),
    }


def _neuron(network: Network, index: int) -> Neuron:
    return network.output_neuron if index == len(network.layers) - 1 else network.neuron


def _spiking(layer: Layer, bias: np.ndarray, neuron: Neuron, largest: int, steps: int) -> Layer:
    """The layer with its neurons, and as many bits of fraction as the threshold needs and 32 bits bear."""
    threshold = neuron.threshold / layer.scale
    fraction = 0
    while True:
        unit = 2.0**fraction
        made = replace(
            layer,
            fraction=fraction,
            scale=layer.scale / unit,
            bias=np.rint(bias / layer.scale * unit).astype(np.int64),
            threshold=np.rint(threshold * unit).astype(np.int64),
            leak=Leak.of(neuron.beta),
            reset=neuron.reset,
        )
        if not 0 < made.threshold.min() < FINE or 16 * max(_bounds(made, largest, steps)[1:]) > _LARGEST:
            return made
        fraction += 1


def _largest_input(index: int, front_end: FrontEnd, spiking: bool) -> int:
    return front_end.largest if index == 0 else 1 if spiking else 255


def _bounds(layer: Layer, largest: int, steps: int) -> tuple[int, int, int]:
    """Largest sum of weights, current and membrane (or sum of them, for the read-out) of a layer."""
    current = layer.magnitude * largest * 2**layer.fraction + np.abs(layer.bias)
    membrane = current
    if layer.threshold is not None:
        kept = layer.leak.factor / 2**15 if layer.leak.shift is None else 2.0**-layer.leak.shift
        for _ in range(steps - 1):
            membrane = np.ceil(kept * membrane).astype(np.int64) + 1 + current + layer.threshold
        membrane = membrane * steps if layer.shape[1:] == (1, 1) else membrane  # the read-out adds them up
    return int(layer.magnitude.max()), int(current.max()), int(membrane.max())


def _activation_units(network: Network, images: torch.Tensor) -> list[float]:
    """The unit of every hidden layer's activations, in 0..255."""
    traces = [network.trace(part) for part in images.split(20)]
    units = []
    for index in range(len(network.layers) - 1):
        values = np.concatenate([trace[index].spikes.flatten().numpy() for trace in traces])
        units.append(max(float(np.percentile(values, _PERCENTILE)), 1e-6) / 255)
    return units


def _pair(constants) -> tuple[float, float] | None:
    return None if constants is None else tuple(constants)
