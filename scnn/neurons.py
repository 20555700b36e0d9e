"""Spiking neurons: the leaky integrate-and-fire unit of the networks, over a whole sequence at once."""

from dataclasses import dataclass

import torch
from snntorch import surrogate

RESETS = ("subtract", "zero", "none")


@dataclass(frozen=True)
class Neuron:
    """The parameters that all leaky units of a network share; the defaults are the paper's.

    Raises `ValueError` naming the parameter and what is valid.
    """

    beta: float = 0.5  # leak: the share of the membrane potential kept from one time step to the next
    threshold: float = 1.0  # membrane potential above which the unit spikes
    reset: str = "subtract"  # what a spike does to the membrane: one of RESETS
    slope: float = 25.0  # steepness of the fast-sigmoid surrogate gradient

    def __post_init__(self):
        if not 0.0 <= self.beta <= 1.0:
            raise ValueError(f"beta must lie in 0..1, not {self.beta}")
        if not self.threshold >= 0.0 or self.threshold == float("inf"):
            raise ValueError(f"threshold must be a finite number of at least 0, not {self.threshold}")
        if self.reset not in RESETS:
            raise ValueError(f"reset must be one of {', '.join(RESETS)}, not {self.reset!r}")
        if not self.slope > 0.0:
            raise ValueError(f"slope must be positive, not {self.slope}")


def check_current(current: torch.Tensor, num_steps: int | None) -> int:
    """Time steps of a `current` `[T, ...]`, or of a constant one `[1, ...]` given for `num_steps`."""
    steps = current.shape[0] if num_steps is None else num_steps
    if steps < 1 or current.shape[0] not in (1, steps):
        raise ValueError(
            f"num_steps is {num_steps}, but the current has {current.shape[0]} time steps, not 1 or it"
        )
    return steps


def leaky(
    current: torch.Tensor, neuron: Neuron = Neuron(), num_steps: int | None = None
) -> tuple[torch.Tensor, torch.Tensor]:
    """Leaky integrate-and-fire units over a whole sequence, in plain PyTorch: the definition.

        U[t] = beta U[t-1] + I[t] - R[t] threshold      reset "subtract"
        U[t] = beta (1 - R[t]) U[t-1] + I[t]            reset "zero"
        U[t] = beta U[t-1] + I[t]                       reset "none"
        S[t] = 1 if U[t] > threshold else 0

    where I is the input current, U the membrane potential (U[-1] = 0), S the spikes and R[t] = S[t-1] the
    reset, delayed by one step and without gradient. The gradient of a spike is the fast sigmoid's, dS/dU =
    1 / (slope |U - threshold| + 1)^2.

    `current` is `[T, N, ...]`, or `[1, N, ...]` for a current that stays constant over `num_steps`. Returns
    spikes and membrane potentials, both `[T, N, ...]`. Follows `snntorch.Leaky` 1.0.0 operation for
    operation, so that both are equal to the bit. `scnn.kernels.leaky` computes the same faster.
    """
    steps = check_current(current, num_steps)
    fire = surrogate.fast_sigmoid(slope=neuron.slope)
    membrane = torch.zeros_like(current[0])
    spikes, membranes = [], []
    for step in range(steps):
        now = current[step if current.shape[0] > 1 else 0]
        reset = (membrane > neuron.threshold).to(current.dtype)
        if neuron.reset == "zero":
            membrane = (1 - reset) * membrane
        membrane = neuron.beta * membrane + now
        if neuron.reset == "subtract":
            membrane = membrane - reset * neuron.threshold
        spikes.append(fire(membrane - neuron.threshold))
        membranes.append(membrane)
    return torch.stack(spikes), torch.stack(membranes)
