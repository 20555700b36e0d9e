"""The figures of page 05: what each layer does with a recording, and where its zeros come from."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from scnn.plots.common import signed

ZERO_ORIGINS = {  # columns of scnn.analysis.zero_origins: (colour, label in legends)
    "padding": ("0.9", "zero: sees only padding"),
    "silent": ("0.65", "zero: sees data, never spikes"),
    "sparse": ("C5", "zero: spikes at other steps"),
    "spikes": ("C1", "spike: sees data"),
    "spikes_padding": ("C6", "spike: sees only padding"),
}


def channel_steps(
    filters: np.ndarray, current: np.ndarray, membrane: np.ndarray, spikes: np.ndarray, steps: Sequence[int]
) -> Figure:
    """Draw a layer's channels, one per row: filter, current, last membrane potential, and spikes.

    Args:
        filters: `[C, k, k]`.
        current: `[C, h, w]`, constant over time.
        membrane: `[T, C, h, w]`.
        spikes: `[T, C, h, w]`, 0 or 1.
        steps: time steps whose spikes are drawn, counted from 1.
    """
    figure, rows = plt.subplots(len(filters), 3 + len(steps), figsize=(8, 1.12 * len(filters)), squeeze=False)
    tops = ["filter", "current", f"membrane\n$t={len(spikes)}$", *(f"spikes\n$t={step}$" for step in steps)]
    scales = signed(filters), signed(current, linear=10), signed(membrane[-1], linear=10)
    for number, row in enumerate(rows):
        signs = filters[number], current[number], membrane[-1, number]
        for axes, values, colors in zip(row, signs, scales, strict=False):
            axes.imshow(values, cmap="RdBu_r", norm=colors, origin="lower")
        for axes, step in zip(row[3:], steps, strict=True):
            axes.imshow(spikes[step - 1, number], cmap="cividis", vmin=0, vmax=1, origin="lower")
        row[0].set_ylabel(f"channel {number + 1}", size=8.5)
    for axes in rows.flat:
        axes.set(xticks=[], yticks=[])
        axes.spines[:].set_visible(True)
        axes.spines[:].set_color("0.7")
    for axes, top in zip(rows[0], tops, strict=True):
        axes.set_title(top, size=8.5, weight="normal", loc="center")
    return figure


def layer_steps(
    currents: Mapping[str, pd.DataFrame],
    membranes: Mapping[str, pd.DataFrame],
    spikes: Mapping[str, np.ndarray],
    threshold: float,
) -> Figure:
    """Draw layers over time, one per column: current and membrane of all neurons, spikes of some.

    Args:
        currents: `scnn.analysis.spread` of each layer; drawn as median, middle half and range.
        membranes: the same for the membrane potentials.
        spikes: `[T, neurons]` of each layer, 0 or 1.
        threshold: of the membrane potential.
    """
    figure, rows = plt.subplots(3, len(spikes), figsize=(8, 5.6), sharex=True, squeeze=False)
    for (name, fired), column in zip(spikes.items(), rows.T, strict=True):
        for axes, table in zip(column, (currents[name], membranes[name]), strict=False):
            for color, low, high in (("0.85", 0.0, 1.0), ("0.65", 0.25, 0.75)):
                axes.fill_between(table.index, table[low], table[high], color=color, linewidth=0)
            axes.plot(table.index, table[0.5], color="black", marker=".")
            axes.axhline(threshold, color="C1", linestyle="--", linewidth=1)
            axes.set_yscale("symlog", linthresh=1)
        place = (0.5, len(fired) + 0.5, -0.5, fired.shape[1] - 0.5)
        column[2].imshow(fired.T, vmin=0, vmax=1, extent=place, origin="lower", aspect="auto")
        column[0].set_title(name)
        column[2].set_xlabel("step")
        column[2].set_yticks([])
        column[2].xaxis.set_major_locator(MaxNLocator(4, integer=True))
    for axes, label in zip(rows[:, 0], ("current", "membrane", "spikes"), strict=True):
        axes.set_ylabel(label)
    return figure


def zero_origins(tables: Mapping[str, pd.DataFrame]) -> Figure:
    """Draw where the zeros of each layer come from, one panel per network.

    Args:
        tables: `scnn.analysis.zero_origins` of each network, by panel title.
    """
    figure, row = plt.subplots(1, len(tables), figsize=(8, 3.2), squeeze=False)
    for axes, (title, table) in zip(row[0], tables.items(), strict=True):
        left = np.zeros(len(table))
        for column, (color, label) in ZERO_ORIGINS.items():
            shares = 100 * table[column].to_numpy()
            axes.barh(range(len(table)), shares, left=left, color=color, label=label)
            left += shares
        axes.set_yticks(range(len(table)), table.index)
        axes.invert_yaxis()
        axes.set(title=title, xlabel="neuron-steps (%)", xlim=(0, 100))
        axes.tick_params(axis="y", length=0)
    handles, labels = row[0, 0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=3)
    return figure
