"""The fused kernel: a leaky layer computed in one pass over all time steps.

`leaky` gives bit-identical spikes and membranes to `scnn.neurons.leaky`. Three things make it fast: a
neuron's whole sequence is computed while it is in the cache; a constant current is never repeated over the
time steps; and the backward pass recomputes the membranes (three operations per step) instead of reading
stored ones. numba compiles it for the CPU.
"""

from typing import Any

import numpy as np
import torch

from scnn import neurons
from scnn._jit import njit
from scnn.neurons import Neuron, check_current

BLOCK = 512  # neurons computed together: their membranes over 100 steps still fit the L2 cache


@njit(nogil=True, inline="always")
def _step(
    previous: np.float32, current: np.float32, beta: np.float32, threshold: np.float32, reset: int
) -> np.float32:
    """The membrane potential of one unit after one time step; `reset` is an index of `neurons.RESETS`."""
    spiked = np.float32(previous > threshold)
    if reset == 0:
        return (beta * previous + current) - spiked * threshold
    if reset == 1:
        return beta * ((np.float32(1) - spiked) * previous) + current
    return beta * previous + current


@njit(nogil=True, inline="always")
def _nearest(value: np.float32, levels: np.ndarray, per_unit: np.float32) -> np.float32:
    """The nearest of the evenly spaced `levels` (`per_unit` per unit); on a tie, the lower one."""
    at = int(min(max((value - levels[0]) * per_unit, np.float32(0)), np.float32(levels.size - 1)))
    at = min(max(at, 0), levels.size - 2)  # clamp again as integers: NaN may convert to any integer
    lower, upper = levels[at], levels[at + 1]
    return upper if upper - value < value - lower else lower


@njit(nogil=True, inline="always")
def _per_unit(levels: np.ndarray) -> np.float32:
    """Number of evenly spaced `levels` per unit; 0 if there are none."""
    return np.float32((levels.size - 1) / (levels[-1] - levels[0])) if levels.size else np.float32(0)


@njit(nogil=True, error_model="numpy")
def _forward(
    current: np.ndarray,
    beta: np.float32,
    threshold: np.float32,
    reset: int,
    levels: np.ndarray,
    spikes: np.ndarray,
    membrane: np.ndarray,
) -> None:
    """Compute `spikes` `[T, N]` and, unless it is empty, `membrane` `[T, N]` from `current` `[T or 1, N]`.

    The membrane is quantised to `levels`, unless they are empty.
    """
    steps, size = spikes.shape
    constant, keep = current.shape[0] == 1, membrane.shape[0] > 0
    scratch = np.empty(BLOCK, np.float32)
    per_unit = _per_unit(levels)
    for low in range(0, size, BLOCK):
        high = min(low + BLOCK, size)
        potential = scratch[: high - low]
        potential[:] = 0
        for step in range(steps):
            now = current[0 if constant else step, low:high]
            fired = spikes[step, low:high]
            for i in range(now.size):
                potential[i] = _step(potential[i], now[i], beta, threshold, reset)
                fired[i] = np.float32(potential[i] > threshold)
            if levels.size:
                for i in range(now.size):
                    potential[i] = _nearest(potential[i], levels, per_unit)
                    fired[i] = np.float32(potential[i] > threshold)
            if keep:
                membrane[step, low:high] = potential


@njit(nogil=True, error_model="numpy")
def _backward(
    current: np.ndarray,
    beta: np.float32,
    threshold: np.float32,
    reset: int,
    levels: np.ndarray,
    slope: np.float32,
    masked: bool,
    grad_spikes: np.ndarray,
    grad_membrane: np.ndarray,
    grad_current: np.ndarray,
) -> None:
    """Compute `grad_current`, shaped like `current`, from the gradients `[T, N]` of spikes and membranes.

    `grad_membrane` may be empty. With `masked`, the gradient is 0 where a membrane was clipped to `levels`.
    """
    steps, size = grad_spikes.shape
    constant, with_membrane = current.shape[0] == 1, grad_membrane.shape[0] > 0
    potentials = np.empty((steps + 1, BLOCK), np.float32)  # row 0: at rest
    scratch = np.empty(BLOCK, np.float32)
    inside = np.ones((steps if levels.size else 0, BLOCK), np.float32)
    per_unit = _per_unit(levels)
    one, nothing = np.float32(1), np.float32(0)
    for low in range(0, size, BLOCK):
        high = min(low + BLOCK, size)
        potentials[0] = 0
        for step in range(steps):
            now = current[0 if constant else step, low:high]
            before, after = potentials[step], potentials[step + 1]
            for i in range(now.size):
                after[i] = _step(before[i], now[i], beta, threshold, reset)
            if levels.size:
                for i in range(now.size):
                    if masked:
                        inside[step, i] = np.float32(levels[0] <= after[i] <= levels[-1])
                    after[i] = _nearest(after[i], levels, per_unit)
        grad = scratch[: high - low]
        grad[:] = 0
        if constant:
            grad_current[0, low:high] = 0
        for step in range(steps - 1, -1, -1):
            potential, fired = potentials[step + 1], grad_spikes[step, low:high]
            for i in range(grad.size):
                distance = potential[i] - threshold
                kept = beta if reset != 1 else (nothing if distance > nothing else beta)
                flat = slope * abs(distance) + one
                grad[i] = kept * grad[i] + fired[i] / (flat * flat)
            if with_membrane:
                grad += grad_membrane[step, low:high]
            if levels.size:
                grad *= inside[step, : grad.size]
            if constant:
                grad_current[0, low:high] += grad
            else:
                grad_current[step, low:high] = grad


def _constants(neuron: Neuron) -> tuple[np.float32, np.float32, int, np.ndarray]:
    """The arguments of the compiled functions from `neuron`: leak, threshold, reset and levels (or none)."""
    levels = neuron.levels().numpy() if neuron.membrane_bits else np.empty(0, np.float32)
    return np.float32(neuron.beta), np.float32(neuron.threshold), neurons.RESETS.index(neuron.reset), levels


def _fire(
    current: torch.Tensor, neuron: Neuron, steps: int, with_membrane: bool
) -> tuple[torch.Tensor, torch.Tensor | None]:
    """Spikes and membranes (or None), `[T, ...]`, for a float32 `current` `[T or 1, ...]` on the CPU."""
    spikes = torch.empty(steps, *current.shape[1:])
    membrane = torch.empty_like(spikes) if with_membrane else None
    flat = current.detach().numpy().reshape(len(current), -1)
    kept = flat[:0] if membrane is None else membrane.numpy().reshape(steps, -1)
    _forward(flat, *_constants(neuron), spikes.numpy().reshape(steps, -1), kept)
    return spikes, membrane


class _Leaky(torch.autograd.Function):
    """`leaky` with gradients, for a float32 current on the CPU."""

    @staticmethod
    def forward(
        ctx: Any, current: torch.Tensor, neuron: Neuron, steps: int, with_membrane: bool
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        current = current.contiguous()
        ctx.save_for_backward(current)
        ctx.neuron = neuron
        ctx.set_materialize_grads(False)
        return _fire(current, neuron, steps, with_membrane)

    @staticmethod
    def backward(
        ctx: Any, grad_spikes: torch.Tensor | None, grad_membrane: torch.Tensor | None
    ) -> tuple[torch.Tensor | None, None, None, None]:
        """The current's gradient from those of spikes and membranes, `[T, N, ...]`; either may be None."""
        (current,) = ctx.saved_tensors
        if grad_spikes is None:
            if grad_membrane is None:
                return None, None, None, None
            grad_spikes = torch.zeros_like(grad_membrane)
        steps = len(grad_spikes)
        flat = current.numpy().reshape(len(current), -1)
        flat_spikes = grad_spikes.contiguous().numpy().reshape(steps, -1)
        flat_membrane = (
            flat[:0] if grad_membrane is None else grad_membrane.contiguous().numpy().reshape(steps, -1)
        )
        grad = torch.empty_like(current)
        surrogate = np.float32(ctx.neuron.slope), ctx.neuron.clip_gradient == "masked"
        flat_grad = grad.numpy().reshape(flat.shape)
        _backward(flat, *_constants(ctx.neuron), *surrogate, flat_spikes, flat_membrane, flat_grad)
        return grad, None, None, None


def leaky(
    current: torch.Tensor, neuron: Neuron = Neuron(), num_steps: int | None = None, membrane: bool = True
) -> tuple[torch.Tensor, torch.Tensor | None]:
    """`scnn.neurons.leaky`, fused.

    Currents on a GPU or of a type other than float32 are computed by the plain PyTorch loop.

    Args:
        current: `[T, N, ...]`, or `[1, N, ...]` with `num_steps` for a constant current.
        neuron: leak, threshold, reset, surrogate gradient and quantisation.
        num_steps: T, for a constant current.
        membrane: False returns None instead of the membranes.

    Returns:
        Spikes and membranes, `[T, N, ...]`, of the current's dtype.

    >>> current = torch.full((1, 2), 0.75)
    >>> fused, plain = leaky(current, num_steps=4), neurons.leaky(current, num_steps=4)
    >>> torch.equal(fused[0], plain[0]) and torch.equal(fused[1], plain[1])
    True
    """
    steps = check_current(current, num_steps)
    if current.device.type != "cpu" or current.dtype != torch.float32:
        spikes, potentials = neurons.leaky(current, neuron, steps)
        return spikes, potentials if membrane else None
    if current.requires_grad and torch.is_grad_enabled():
        return _Leaky.apply(current, neuron, steps, membrane)
    return _fire(current, neuron, steps, membrane)
