"""The figures of page 02: neurons over time."""

from __future__ import annotations

import numpy as np
from matplotlib.axes import Axes
from numpy.typing import ArrayLike


def membrane_trace(
    axes: Axes,
    membrane: ArrayLike,
    spikes: ArrayLike,
    threshold: float,
    times: ArrayLike | None = None,
    color: str = "C0",
) -> None:
    """Draw one neuron: its membrane potential, the dashed threshold, and a tick on top for each spike.

    Args:
        axes: where to draw; its y limits are set to fit the data and the ticks.
        membrane: `[T]`, membrane potentials.
        spikes: `[T]`, 0 or 1.
        threshold: in the unit of `membrane`.
        times: `[T]`, x positions of the time steps; 0, 1, 2, ... by default.
        color: of the membrane potential.
    """
    membrane, spikes = np.asarray(membrane), np.asarray(spikes)
    times = np.arange(len(membrane)) if times is None else np.asarray(times)
    axes.axhline(threshold, color="0.45", linestyle="--", linewidth=1)
    axes.plot(times, membrane, color=color, marker="." if len(times) <= 40 else None)
    low, high = min(membrane.min(), threshold), max(membrane.max(), threshold)
    height = max(high - low, 1e-9)
    axes.set_ylim(low - 0.08 * height, high + 0.3 * height)
    axes.vlines(times[spikes > 0], high + 0.14 * height, high + 0.26 * height, color="C1", linewidth=1.4)


def raster(axes: Axes, spikes: ArrayLike, times: ArrayLike | None = None, color: str = "C1") -> None:
    """Draw the spikes of many neurons as ticks, one row per neuron, with the first at the bottom.

    Args:
        axes: where to draw.
        spikes: `[T, N]`, 0 or 1.
        times: `[T]`, x positions of the time steps; 0, 1, 2, ... by default.
        color: of the ticks.
    """
    spikes = np.asarray(spikes)
    times = np.arange(len(spikes)) if times is None else np.asarray(times)
    axes.eventplot([times[train > 0] for train in spikes.T], colors=color, linelengths=0.8, linewidths=1.1)
    axes.set_ylim(-0.6, spikes.shape[1] - 0.4)
