"""The figures of page 11: accuracy against the cost of a word, for spiking and ReLU networks."""

from __future__ import annotations

from collections.abc import Mapping

import matplotlib.pyplot as plt
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator

from scnn import metrics

_COLORS = {"spiking": "C1", "ReLU": "C0"}
_MARKERS = {"spiking": "o", "ReLU": "s"}


def _thousands(axes: Axes) -> None:
    """Make the x axis logarithmic, with round numbers of instructions."""
    axes.set_xscale("log")
    axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.0f}"))
    axes.xaxis.set_minor_formatter("")


def trials(found: Mapping[str, pd.DataFrame], fronts: Mapping[str, pd.DataFrame]) -> Figure:
    """Draw all trials of the searches, and highlight the Pareto front of each.

    Args:
        found: the table of each search, by kind of network ("spiking" or "ReLU"), with `accuracy` (0..1),
            `instructions` and `packed_bytes` of each trial.
        fronts: the rows on the front of each search, by kind.
    """
    figure, axes = plt.subplots(figsize=(7, 3.6))
    for kind, table in found.items():
        for rows, filled in ((table.drop(fronts[kind].index), False), (fronts[kind], True)):
            axes.scatter(
                rows["instructions"] / 1e3,
                100 * rows["accuracy"],
                12 + rows["packed_bytes"] / 250,
                marker=_MARKERS[kind],
                facecolor=_COLORS[kind] if filled else "none",
                edgecolor=_COLORS[kind],
                alpha=1 if filled else 0.6,
                label=f"{kind}, on its front" if filled else f"{kind}, beaten",
            )
    _thousands(axes)
    axes.set(xlabel="instructions of a word, estimated (thousands)", ylabel="accuracy (%)")
    axes.grid(axis="y")
    figure.legend(loc="outside lower center", ncols=2)
    return figure


def fronts(points: pd.DataFrame) -> Figure:
    """Draw networks with the spread of their accuracy, and the Pareto front over all of them.

    Args:
        points: a row for each network, indexed by kind ("spiking" or "ReLU") and number: `accuracy` and
            `accuracy_sd` in %, and thousands of instructions of the `network` and of the whole `word`.
    """
    names = {"network": "network alone", "word": "whole word, front end included"}
    figure, row = plt.subplots(1, 2, figsize=(8, 3.6), sharey=True)
    for axes, (column, title) in zip(row, names.items(), strict=True):
        for kind, group in points.groupby(level=0, sort=False):
            axes.errorbar(
                group[column],
                group["accuracy"],
                group["accuracy_sd"].fillna(0),
                fmt=_MARKERS[kind],
                color=_COLORS[kind],
                capsize=2,
                label=kind,
            )
        front = points[metrics.pareto(points, ["accuracy"], [column])].sort_values(column)
        axes.plot(front[column], front["accuracy"], color="0.35", linewidth=1, zorder=0)
        _thousands(axes)
        axes.set(title=title, xlabel="instructions (thousands)")
        axes.grid(axis="y")
    row[0].set_ylabel("accuracy on strangers (%)")
    figure.legend(*row[0].get_legend_handles_labels(), loc="outside lower center", ncols=2)
    return figure
