"""Spiking neurons over a whole sequence: the networks' leaky units, and a neuron in millivolts."""

import math
from dataclasses import dataclass
from typing import NamedTuple

import torch
from snntorch import surrogate

from scnn.checks import number

RESETS = ("subtract", "zero", "none")
CLIP_GRADIENTS = ("masked", "straight")
_LARGEST = 1e30  # far enough below float32's maximum that no membrane potential overflows
BIOPHYSICAL_RESETS = ("subtract", "zero", "rest")


class Output(NamedTuple):
    """The output layer's activity over time. A ReLU network has one time step.

    Attributes:
        spikes: `[T, N, classes]`; None for a ReLU network.
        membrane: `[T, N, classes]`; the logits of a ReLU network.
    """

    spikes: torch.Tensor | None
    membrane: torch.Tensor


@dataclass(frozen=True)
class Neuron:
    """Parameters shared by all leaky units of a network; the defaults are the paper's.

    Attributes:
        beta: leak, the share of the membrane potential kept from one time step to the next.
        threshold: membrane potential above which the unit spikes.
        reset: how a spike resets the membrane, one of `RESETS`.
        slope: steepness of the fast-sigmoid surrogate gradient.
        membrane_bits: quantise the membrane potential to 2^bits levels; 0 for full precision.
        clip_gradient: gradient of a quantised membrane beyond its outermost levels, one of `CLIP_GRADIENTS`.

    Raises:
        ValueError: a parameter is out of range; the message names it and what is valid.
    """

    beta: float = 0.5
    threshold: float = 1.0
    reset: str = "subtract"
    slope: float = 25.0
    membrane_bits: int = 0
    clip_gradient: str = "masked"

    def __post_init__(self):
        for name in ("beta", "threshold", "slope"):
            number(name, getattr(self, name))
        if not 0.0 <= self.beta <= 1.0:
            raise ValueError(f"beta must lie in 0..1, not {self.beta}")
        if not 0.0 <= self.threshold <= _LARGEST:
            raise ValueError(f"threshold must be a number from 0 to {_LARGEST:g}, not {self.threshold}")
        if self.reset not in RESETS:
            raise ValueError(f"reset must be one of {', '.join(RESETS)}, not {self.reset!r}")
        if not 0.0 < self.slope <= _LARGEST:
            raise ValueError(f"slope must be a number above 0, up to {_LARGEST:g}, not {self.slope}")
        bits = self.membrane_bits
        if isinstance(bits, bool) or not isinstance(bits, int) or bits not in range(17):
            raise ValueError(f"membrane_bits must be a whole number in 0..16, not {bits!r}")
        if self.membrane_bits and self.threshold == 0:
            raise ValueError("threshold must be above 0 if membrane_bits is set, as it scales the levels")
        if self.clip_gradient not in CLIP_GRADIENTS:
            raise ValueError(
                f"clip_gradient must be one of {', '.join(CLIP_GRADIENTS)}, not {self.clip_gradient!r}"
            )

    def levels(self) -> torch.Tensor:
        """The levels of a quantised membrane potential: `2^membrane_bits` evenly spaced values, float32.

        They range from -threshold to 1.2 threshold, like the defaults of snnTorch's `state_quant`.
        """
        return torch.linspace(-self.threshold, self.threshold + 0.2 * self.threshold, 2**self.membrane_bits)


def check_current(current: torch.Tensor, num_steps: int | None) -> int:
    """Number of time steps of a `current` `[T, ...]`, or of a constant one `[1, ...]` for `num_steps`."""
    steps = current.shape[0] if num_steps is None else num_steps
    if steps < 1 or current.shape[0] not in (1, steps):
        raise ValueError(
            f"num_steps is {num_steps}, but the current has {current.shape[0]} time steps; it must have 1 or "
            "num_steps"
        )
    return steps


class _Quantize(torch.autograd.Function):
    """Round to the nearest of `levels` (on a tie, the lower one), with a straight-through gradient.

    If `masked`, the gradient is 0 for values beyond the levels, as small changes do not alter their result.
    """

    @staticmethod
    def forward(ctx, values, levels, masked):
        ctx.inside = (values >= levels[0]) & (values <= levels[-1]) if masked else None
        above = torch.searchsorted(levels, values).clamp(1, len(levels) - 1)
        lower, upper = levels[above - 1], levels[above]
        return torch.where(upper - values < values - lower, upper, lower)

    @staticmethod
    def backward(ctx, grad):
        return (grad if ctx.inside is None else grad * ctx.inside), None, None


def leaky(
    current: torch.Tensor, neuron: Neuron = Neuron(), num_steps: int | None = None
) -> tuple[torch.Tensor, torch.Tensor]:
    """Leaky integrate-and-fire units over a whole sequence, in plain PyTorch::

        U[t] = beta U[t-1] + I[t] - R[t] threshold      reset "subtract"
        U[t] = beta (1 - R[t]) U[t-1] + I[t]            reset "zero"
        U[t] = beta U[t-1] + I[t]                       reset "none"
        S[t] = 1 if U[t] > threshold else 0

    where I is the input current, U the membrane potential (U[-1] = 0), S the spikes and R[t] = S[t-1] the
    reset, delayed by one step and without gradient. The surrogate gradient of a spike is that of the fast
    sigmoid::

        dS/dU = 1 / (slope |U - threshold| + 1)^2

    With `membrane_bits`, U[t] is rounded to the nearest of `Neuron.levels` before it is compared with the
    threshold and stored. The gradient passes through the rounding unchanged. Where U[t] lies beyond the
    levels and is clipped, the gradient is 0 for `clip_gradient` "masked", and unchanged for "straight", as in
    snnTorch's `state_quant`.

    Follows `snntorch.Leaky` 1.0.0 operation for operation, with bit-identical results. `scnn.kernels.leaky`
    computes the same faster.

    Args:
        current: `[T, N, ...]`, or `[1, N, ...]` for a current that is constant over `num_steps`.
        neuron: parameters of the units.
        num_steps: T, for a constant current.

    Returns:
        Spikes (0 or 1) and membrane potentials, both `[T, N, ...]`.

    >>> spikes, membrane = leaky(torch.tensor([[0.75]]), num_steps=4)
    >>> membrane.flatten(), spikes.flatten()
    (tensor([0.7500, 1.1250, 0.3125, 0.9062]), tensor([0., 1., 0., 0.]))
    """
    steps = check_current(current, num_steps)
    fire = surrogate.fast_sigmoid(slope=neuron.slope)
    levels = neuron.levels().to(current) if neuron.membrane_bits else None
    membrane = torch.zeros_like(current[0])
    spikes, membranes = [], []
    for now in current.expand(steps, *current.shape[1:]).unbind():
        reset = (membrane > neuron.threshold).to(current.dtype)
        if neuron.reset == "zero":
            membrane = (1 - reset) * membrane
        membrane = neuron.beta * membrane + now
        if neuron.reset == "subtract":
            membrane = membrane - reset * neuron.threshold
        if levels is not None:
            membrane = _Quantize.apply(membrane, levels, neuron.clip_gradient == "masked")
        spikes.append(fire(membrane - neuron.threshold).to(current.dtype))  # snnTorch returns float32
        membranes.append(membrane)
    return torch.stack(spikes), torch.stack(membranes)


@dataclass(frozen=True)
class Biophysical:
    """Parameters of a leaky integrate-and-fire neuron in millivolts; the defaults are the paper's.

    Attributes:
        rest: resting potential, in mV.
        threshold: potential in mV, above `rest`, beyond which the neuron spikes.
        tau: membrane time constant, in time steps.
        refractory: time steps after a spike in which the neuron neither integrates nor spikes.
        reset: how a spike resets the membrane, one of `BIOPHYSICAL_RESETS`.

    Raises:
        ValueError: a parameter is out of range; the message names it and what is valid.
    """

    rest: float = -75.0
    threshold: float = -55.0
    tau: float = 10.0
    refractory: int = 2
    reset: str = "rest"

    def __post_init__(self):
        if not math.isfinite(self.rest):
            raise ValueError(f"rest must be a finite number of mV, not {self.rest}")
        if not self.rest < self.threshold < math.inf:
            raise ValueError(
                f"threshold must be finite and above rest ({self.rest} mV), not {self.threshold}"
            )
        if not 0.0 < self.tau < math.inf:
            raise ValueError(f"tau must be a positive number of time steps, not {self.tau}")
        if isinstance(self.refractory, bool) or not isinstance(self.refractory, int) or self.refractory < 0:
            raise ValueError(
                f"refractory must be a whole number of time steps, at least 0, not {self.refractory!r}"
            )
        if self.reset not in BIOPHYSICAL_RESETS:
            raise ValueError(f"reset must be one of {', '.join(BIOPHYSICAL_RESETS)}, not {self.reset!r}")


def biophysical(
    current: torch.Tensor, neuron: Biophysical = Biophysical()
) -> tuple[torch.Tensor, torch.Tensor]:
    """A leaky integrate-and-fire neuron in millivolts, with a refractory period, over a whole sequence::

        V[t] = rest + a (V[t-1] - rest) + (1 - a) I[t]      with a = exp(-1 / tau)
        S[t] = 1 if V[t] > threshold else 0

    where I is the input current times the membrane resistance, in mV: a constant current drives the membrane
    towards rest + I, so the neuron spikes only for I > threshold - rest. V[-1] = rest. The update is exact
    for a current that is constant within each step. On a scale with rest 0 and threshold 1, this is the
    networks' leaky unit with beta = a, apart from the factor 1 - a of the current.

    V[t] is recorded before the reset. The membrane then stays at its reset potential for `refractory` steps;
    if there are none, the next step integrates from it. After a spike at V, the reset potential is, by
    `neuron.reset`:

    - "subtract": V - (threshold - rest), so that the excess over the threshold remains above rest.
    - "zero": 0 mV. On a scale with rest at 0 this equals "rest". On the default scale 0 mV lies far above the
      threshold, so after the first spike the neuron spikes as often as the refractory period allows, forever,
      with or without current.
    - "rest": rest.

    Args:
        current: mV, `[T]` or `[T, N, ...]`, floating point.
        neuron: parameters of the neuron.

    Returns:
        Spikes (0 or 1) and membrane potentials (mV), both shaped like `current`.

    Raises:
        ValueError: the current has no time steps, is not floating point, or is not finite everywhere.
    """
    if current.dim() == 0 or current.shape[0] < 1:
        raise ValueError(f"current must be [T, ...] with at least one time step, not {list(current.shape)}")
    if not current.is_floating_point():
        raise ValueError(f"current must be floating point, not {current.dtype}")
    if not current.isfinite().all():
        raise ValueError("current has values that are not finite numbers")
    kept = math.exp(-1.0 / neuron.tau)
    potential = torch.full_like(current[0], neuron.rest)
    waiting = torch.zeros_like(current[0])  # remaining time steps at the reset potential
    spikes, membrane = [], []
    for now in current:
        integrated = neuron.rest + kept * (potential - neuron.rest) + (1.0 - kept) * now
        free = waiting == 0
        potential = torch.where(free, integrated, potential)
        fired = free & (potential > neuron.threshold)
        spikes.append(fired.to(current.dtype))
        membrane.append(potential)
        waiting = torch.where(fired, float(neuron.refractory), (waiting - 1).clamp(min=0))
        potential = torch.where(fired, _reset(potential, neuron), potential)
    return torch.stack(spikes), torch.stack(membrane)


def _reset(potential: torch.Tensor, neuron: Biophysical) -> torch.Tensor:
    if neuron.reset == "subtract":
        return potential - (neuron.threshold - neuron.rest)
    return torch.full_like(potential, 0.0 if neuron.reset == "zero" else neuron.rest)


def count(spikes: torch.Tensor) -> torch.Tensor:
    """Read out `spikes` `[T, ...]` as their count, which grows with the length of the recording."""
    return spikes.sum(dim=0)


def rate(spikes: torch.Tensor) -> torch.Tensor:
    """Read out `spikes` `[T, ...]` as spikes per time step, from 0 to 1 / (1 + refractory)."""
    return spikes.mean(dim=0)
