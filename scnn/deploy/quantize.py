"""A trained network in integers: weights, biases, thresholds and leak, with a proof that nothing overflows.

A layer's weights become integers W times a scale s, with one scale for the tensor or one for each output.
Divided by the scale, the layer computes::

    I[t] = (sum of W x[t]) 2^f + bias        bias = b 2^f / (s u)
    U[t] = leak(U[t-1]) + I[t] - R[t] threshold        threshold = theta 2^f / (s u)

where x are spikes (unit u = 1) or the pixels of the image (u = 1/256, or 1/4096 for "peak"). The membrane has
f fractional bits, so that the integer threshold is close to the trained one. A ReLU layer computes::

    y = clip((I multiplier + 2^31) >> 32, 0, 255)        multiplier = s u / u' 2^32

where u' is the unit of its outputs, derived from the activations of calibration clips.
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
FINE = 4096  # the smallest threshold aimed for: rounding then changes it by at most 1/8192
LANES = 2**15 - 1  # largest int16
TUNED = (128, 512)  # range of thresholds to try, in 1/256 of the network's own
_LARGEST = 2**31 - 1
_PERCENTILE = 99.999  # of a ReLU layer's activations: becomes level 255, as in scnn.quantization.static_ptq


@dataclass(frozen=True)
class Leak:
    """The leak of a membrane: U >> shift, or 2 (U factor >> 16) if `shift` is None."""

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
    """A layer in integers; the first axis of its arrays is the outputs.

    The letters f, s and u are those of the module's equations.

    Attributes:
        notation: the layer in the paper's notation.
        bits: per stored weight.
        before: (channels, height, width) of the input.
        shape: (channels, height, width) of the output, after pooling.
        weights: int8 [outputs, channels, kernel, kernel], or [outputs, inputs] in the order of PyTorch's
            flattening.
        bias: int64 [outputs].
        scale: float64 [outputs], s u 2^-f, which converts integers back to the trained values.
        fraction: fractional bits of the membrane, f.
        threshold: int64 [outputs], of a spiking layer.
        leak: of a spiking layer.
        reset: of a spiking layer.
        multiplier: int64 [outputs], of a hidden ReLU layer. The last layer has one if its outputs have
            different scales: the score from membranes or logits is then (score multiplier + 2^30) >> 31.
    """

    notation: Notation
    bits: int
    before: tuple[int, int, int]
    shape: tuple[int, int, int]
    weights: np.ndarray
    bias: np.ndarray
    scale: np.ndarray
    fraction: int = 0
    threshold: np.ndarray = None  # type: ignore[assignment]  # a ReLU layer has none
    leak: Leak = Leak(0)
    reset: str = "subtract"
    multiplier: np.ndarray | None = None

    @property
    def name(self) -> str:
        return self.notation.name

    @property
    def magnitude(self) -> np.ndarray:
        """Sum of absolute weights of each output."""
        return np.abs(self.weights.astype(np.int64)).reshape(len(self.weights), -1).sum(axis=1)


@dataclass(frozen=True)
class Program:
    """An integer network with its front end: everything that determines the answer to a recording.

    Attributes:
        front_end: from samples to the image.
        layers: in order.
        steps: number of time steps.
        spiking: False for a ReLU network.
        readout: "spikes" or "membrane", see `scnn.training.scores`; a ReLU network uses its logits.
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
        """The largest magnitudes that any image can cause in each layer.

        `sum`, `current` and `membrane` are all below 2^31, or `convert` would have refused the network; `sum`
        is the largest sum of absolute weights. `bits` is the size of a stored weight. `lanes` says whether
        the sums of spikes fit 16 bits when each weight occupies the upper bits of a byte.
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
    """Convert a trained network to a `Program`.

    Args:
        bits: per weight, one of `BITS`; defaults to the bits the network was trained with, or 8.
        per_channel: whether each output of a layer has its own scale. The last layer has a single scale, so
            that its outputs can be compared. A network trained with rounded weights keeps its own scales.
        readout: "spikes" or "membrane", see `scnn.training.scores`; a ReLU network uses its logits.
        classes: names of the outputs; by default their numbers.
        calibration: images `[N, C, H, W]` that determine the scale of a ReLU network's activations.

    Raises:
        ValueError: something has no integer form: quantised membranes, more than `MAX_STEPS` steps, or a
            layer whose sums could exceed 32 bits; the message names it.
    """
    recipe = network.recipe
    if recipe.membrane_bits and network.spiking:
        raise ValueError(
            f"membrane_bits={recipe.membrane_bits}: quantised membranes have no integer form here; "
            "train with precision 'fp32' or 'int8-weights'"
        )
    if network.spiking and network.num_steps > MAX_STEPS:
        raise ValueError(f"num_steps={network.num_steps}: must be at most {MAX_STEPS}, one bit per step")
    if readout not in READOUTS:
        raise ValueError(f"readout must be one of {', '.join(READOUTS)}, not {readout!r}")
    if not network.spiking and calibration is None:
        raise ValueError("calibration: a ReLU network needs images to scale its activations")
    f = front_end.features
    if network.input_shape != (1, f.height, f.width):
        raise ValueError(
            f"the network takes images of shape {network.input_shape}, the features give "
            f"{(1, f.height, f.width)}"
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
                        f"{layer.name}: the unit of its outputs is too fine for weights of {bits} bits"
                    )
                made = replace(made, multiplier=multiplier)
        if last and channels[index] and not (network.spiking and readout == "spikes"):
            made = replace(made, multiplier=np.rint(scale / scale.max() * _LARGEST).astype(np.int64))
        _, *bounds = _bounds(made, largest, network.num_steps)
        if max(bounds) > _LARGEST:
            raise ValueError(f"{layer.name}: its sums could reach {max(bounds):.3g}, which exceeds 32 bits")
        layers.append(made)
        before = made.shape
    classes = classes or tuple(str(i) for i in range(layers[-1].shape[0]))
    steps = network.num_steps if network.spiking else 1
    return Program(
        front_end, tuple(layers), steps, network.spiking, readout, tuple(classes), network.architecture
    )


def tuned(program: Program, steps: int, threshold: int = 256) -> Program:
    """A spiking `program` with a different number of time steps and different thresholds.

    Args:
        steps: number of time steps.
        threshold: factor on all thresholds, in 1/256.

    Raises:
        ValueError: it is a ReLU network, there are more than `MAX_STEPS` steps, the threshold is outside
            `TUNED`, or a sum could exceed 32 bits.
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
                f"{layer.name}: with steps={steps} its sums could reach {most:.3g}, which exceeds 32 bits"
            )
    return replace(program, layers=layers, steps=steps)


def most_steps(program: Program) -> int:
    """The largest number of time steps that `tuned` accepts at every threshold; 1 for a ReLU network."""
    steps = program.steps
    with suppress(ValueError):
        while program.spiking:
            tuned(program, steps + 1, TUNED[1])
            steps += 1
    return steps


def load_program(path: Path | str, **options: Any) -> Program:
    """The `Program` of a network file written by `scnn train --save`; options as in `convert`.

    `readout` defaults to that of the training. A ReLU network is calibrated on its own training clips.

    Raises:
        FileNotFoundError: as `load_network`.
        ValueError: as `load_network` and `convert`, or the file does not say how its images were made.
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
    """Compare a program with its network on some clips.

    Args:
        images: of the clips, as the network takes them.
        pcm: samples of the same clips, int16 [n] each.
        labels: their classes.

    Returns:
        `float` and `integer`, accuracies in 0..1 with the program's read-out; `cost`, their difference in
        percentage points; `same`, the share of equal answers; `image_error`, the largest error of a pixel.
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
    """Add the neurons to a layer, with as many fractional bits as the threshold needs and 32 bits allow."""
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
    """Bounds on a layer's sum of weights, current and membrane (summed over time for the read-out)."""
    current = layer.magnitude * largest * 2**layer.fraction + np.abs(layer.bias)
    membrane = current
    if layer.threshold is not None:
        kept = layer.leak.factor / 2**15 if layer.leak.shift is None else 2.0**-layer.leak.shift
        for _ in range(steps - 1):
            membrane = np.ceil(kept * membrane).astype(np.int64) + 1 + current + layer.threshold
        membrane = membrane * steps if layer.shape[1:] == (1, 1) else membrane  # the read-out sums over time
    return int(layer.magnitude.max()), int(current.max()), int(membrane.max())


def _activation_units(network: Network, images: torch.Tensor) -> list[float]:
    """The unit of each hidden layer's activations, which are integers in 0..255."""
    traces = [network.trace(part) for part in images.split(20)]
    units = []
    for index in range(len(network.layers) - 1):
        values = np.concatenate([trace[index].spikes.flatten().numpy() for trace in traces])
        units.append(max(float(np.percentile(values, _PERCENTILE)), 1e-6) / 255)
    return units


def _pair(constants) -> tuple[float, float] | None:
    return None if constants is None else tuple(constants)
