"""The reference implementation of a `Program` in numpy; every target has to give the same bits.

The activity of a neuron is one byte. In a spiking layer, bit t is the spike at time step t; in a ReLU layer,
the byte is a value in 0..255. Maps are [N, height, width, channels], as in the C.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from scnn.deploy.quantize import Layer, Program

_CLIPS_AT_ONCE = 25  # limits memory


@dataclass(frozen=True)
class Result:
    """The answers to N clips, and the values behind them.

    Attributes:
        scores: [N, classes], spike counts, summed membranes or, in a ReLU network, logits.
        answers: [N], the class of the highest score; the first one if several are equal.
        hidden: the activity of each hidden layer, uint8 [N, h, w, c].
        membranes: of the outputs, int64 [N, T, classes]; for a ReLU network, its sums with T = 1.
    """

    scores: np.ndarray
    answers: np.ndarray
    hidden: list[np.ndarray]
    membranes: np.ndarray


def recognise(program: Program, clips: Sequence[np.ndarray]) -> Result:
    """Answer recordings, int16 [n] each.

    Raises:
        ValueError: as `FrontEnd.image`.
    """
    return run(program, program.front_end.images(clips))


def run(program: Program, images: np.ndarray) -> Result:
    """Answer images from `FrontEnd`, int16 [N, height, width]."""
    parts = [_run(program, images[i : i + _CLIPS_AT_ONCE]) for i in range(0, len(images), _CLIPS_AT_ONCE)]
    scores = np.concatenate([part[0] for part in parts])
    hidden = [np.concatenate(layer) for layer in zip(*(part[1] for part in parts), strict=True)]
    membranes = np.concatenate([part[2] for part in parts])
    return Result(scores, scores.argmax(axis=1), hidden, membranes)


def _run(program: Program, images: np.ndarray) -> tuple[np.ndarray, list[np.ndarray], np.ndarray]:
    activity, hidden = images[..., None].astype(np.float64), []
    for index, layer in enumerate(program.layers):
        last = index == len(program.layers) - 1
        if program.spiking:
            steps = (
                [activity] if index == 0 else [activity.astype(int) >> t & 1 for t in range(program.steps)]
            )
            currents = np.stack([current(layer, step) for step in steps])
            spikes, membranes = fire(layer, currents, program.steps)
            if last:
                scores = (membranes if program.readout == "membrane" else spikes).sum(axis=0)
            activity = np.sum([spikes[t] << t for t in range(program.steps)], axis=0)
        else:
            scores = current(layer, activity) + layer.bias
            membranes = scores[None]
            if not last:
                activity = np.clip((scores * layer.multiplier + 2**31) >> 32, 0, 255)
        if last and layer.multiplier is not None:
            scores = scores * layer.multiplier + 2**30 >> 31
        if not last:
            hidden.append(activity.astype(np.uint8))
    membranes = membranes.reshape(len(membranes), len(images), -1).swapaxes(0, 1)
    return scores.reshape(len(images), -1), hidden, membranes


def current(layer: Layer, values: np.ndarray) -> np.ndarray:
    """Weighted sums of a layer's inputs, after pooling.

    They are computed in float64, which is exact because all are integers below 2^53.

    Args:
        values: inputs [N, h, w, c].

    Returns:
        int64 [N, h', w', outputs].
    """
    maps, notation = values.astype(np.float64), layer.notation
    if not notation.kernel:
        flat = maps.transpose(0, 3, 1, 2).reshape(len(maps), 1, 1, -1)
        return (flat @ layer.weights.T.astype(np.float64)).astype(np.int64)
    pad = notation.padding
    padded = np.pad(maps, [(0, 0), (pad, pad), (pad, pad), (0, 0)])
    seen = _windows(padded, notation.kernel, notation.stride).reshape(-1, layer.weights[0].size)
    products = seen @ layer.weights.reshape(len(layer.weights), -1).T.astype(np.float64)
    sums = products.reshape(len(values), *notation.convolved(layer.before[1:]), len(layer.weights))
    if notation.pool:
        sums = _windows(sums, notation.pool, notation.pool_stride).max(axis=(-2, -1))
    return sums.astype(np.int64)


def _windows(values: np.ndarray, size: int, stride: int) -> np.ndarray:
    """Every window of maps [N, h, w, c], as [N, h', w', c, size, size]."""
    return np.lib.stride_tricks.sliding_window_view(values, (size, size), (1, 2))[:, ::stride, ::stride]


def fire(layer: Layer, currents: np.ndarray, steps: int) -> tuple[np.ndarray, np.ndarray]:
    """Spikes (0 or 1) and membranes, int64 [T, ...], for sums [T, ...], or [1, ...] if they are constant."""
    membrane = np.zeros(currents.shape[1:], dtype=np.int64)
    fired = np.zeros_like(membrane)
    spikes, membranes = [], []
    for now in np.broadcast_to(currents, (steps, *currents.shape[1:])):
        if layer.reset == "zero":
            membrane = membrane * (1 - fired)
        membrane = layer.leak.of_membrane(membrane) + (now << layer.fraction) + layer.bias
        if layer.reset == "subtract":
            membrane = membrane - fired * layer.threshold
        fired = (membrane > layer.threshold).astype(np.int64)
        spikes.append(fired)
        membranes.append(membrane)
    return np.stack(spikes), np.stack(membranes)
