"""The figures of page 04: rounded membranes, their gradients, and their effect on accuracy."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.ticker import NullFormatter

from scnn.plots.common import MODEL_COLORS, model_name, stretch_accuracy


def clipped_gradients(membrane: np.ndarray, curves: pd.DataFrame, levels: tuple[float, float]) -> Figure:
    """Draw the effect of rounding on a membrane potential, on its gradient, and on the gradient of a spike.

    Args:
        membrane: potentials before rounding.
        curves: a row for each method, indexed by label; the columns `rounded`, `gradient` (of the rounding)
            and `spike` (gradient of the spike) hold arrays as long as `membrane`.
        levels: the lowest and highest level.
    """
    figure, row = plt.subplots(1, 3, figsize=(8, 3.1))
    styles = zip(("-", "-", "--"), ("0.6", "C1", "C0"), (4, 2.2, 1.6), strict=True)
    for (label, curve), (line, color, width) in zip(curves.iterrows(), styles, strict=True):
        for axes, name in zip(row, ("rounded", "gradient", "spike"), strict=True):
            axes.plot(membrane, curve[name], line, color=color, linewidth=width, label=label)
    for axes, title in zip(
        row, ("after rounding", "gradient of the rounding", "gradient of a spike"), strict=True
    ):
        axes.axvspan(*levels, color="0.93", zorder=0)
        axes.set(title=title, xlabel="membrane potential")
    row[1].set_yticks([0, 1])
    row[2].set_yscale("log")
    handles, labels = row[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=3)
    return figure


def accuracy_rows(ours: pd.DataFrame, paper: Mapping[tuple[str, str], float]) -> Figure:
    """Draw the accuracy of every training, one panel per model and one row per training method.

    Args:
        ours: a row for each training, with `model`, `arm` (the label of its row) and `accuracy` in %.
        paper: the paper's accuracy in %, by model and arm.
    """
    models, arms = ours["model"].unique(), list(ours["arm"].unique())
    size = (8, 0.3 * len(arms) + 1.4)
    figure, row = plt.subplots(1, len(models), figsize=size, sharey=True, squeeze=False)
    for axes, model in zip(row[0], models, strict=True):
        for place, arm in enumerate(arms):
            values = ours.loc[(ours["model"] == model) & (ours["arm"] == arm), "accuracy"]
            axes.plot(values, [place] * len(values), "o", color=MODEL_COLORS[model], alpha=0.45, mew=0)
            axes.plot([values.mean()], [place], "|", color="black", markersize=13, mew=2)
            if (model, arm) in paper:
                axes.plot(paper[model, arm], place, "D", mfc="none", mec="black", markersize=7)
        stretch_accuracy(axes, "x")
        axes.grid(axis="x")
        axes.set(title=model_name(model), xlabel="accuracy (%)")
    row[0, 0].set_yticks(range(len(arms)), arms)
    row[0, 0].invert_yaxis()
    axes.plot([], [], "o", color="0.5", alpha=0.6, mew=0, label="a seed")
    axes.plot([], [], "|", color="black", markersize=11, mew=2, label="mean")
    axes.plot([], [], "D", mfc="none", mec="black", markersize=7, label="paper")
    figure.legend(*axes.get_legend_handles_labels(), loc="outside lower center", ncols=3)
    return figure


def recipe_histories(histories: Mapping[str, Mapping[str, Sequence[pd.DataFrame]]], floor: float) -> Figure:
    """Draw loss and accuracy over the epochs, one column per model: means over the seeds, with their range.

    Args:
        histories: by model and training method, the `history` of the records, with the loss per time step.
        floor: the lowest loss per time step that rounded membranes allow.
    """
    figure, rows = plt.subplots(2, len(histories), figsize=(8, 4.6), sharex=True, sharey="row", squeeze=False)
    for column, (model, ways) in zip(rows.T, histories.items(), strict=True):
        for axes, name, scale in zip(column, ("loss", "held_out_accuracy"), (1, 100), strict=True):
            for number, (way, runs) in enumerate(ways.items()):
                epochs, values = runs[0]["epoch"], scale * np.stack([run[name] for run in runs])
                axes.plot(epochs, values.mean(axis=0), color=f"C{number}", label=way)
                low, high = values.min(axis=0), values.max(axis=0)
                axes.fill_between(epochs, low, high, color=f"C{number}", alpha=0.2, linewidth=0)
            axes.grid(axis="y")
        column[0].axhline(floor, color="0.4", linestyle=":", label="least loss of rounded membranes")
        column[0].set_title(model_name(model))
        column[1].set_xlabel("epoch")
        column[1].xaxis.get_major_locator().set_params(integer=True)
    rows[0, 0].set_ylabel("training loss\nper time step")
    rows[1, 0].set_ylabel("test accuracy (%)")
    figure.legend(*rows[0, 0].get_legend_handles_labels(), loc="outside lower center", ncols=3)
    return figure


def membrane_ranges(values: Mapping[str, Mapping[str, np.ndarray]], levels: tuple[float, float]) -> Figure:
    """Draw the distribution of membrane potentials before rounding, by network (rows) and layer (columns).

    Args:
        values: the potentials, by network and layer.
        levels: the lowest and highest level. Potentials beyond them are clipped; they are drawn in colour,
            with their share in the title.
    """
    names = list(next(iter(values.values())))
    size = (8, 1.5 * len(values) + 0.7)
    figure, rows = plt.subplots(
        len(values), len(names), figsize=size, sharex=True, sharey=True, squeeze=False
    )
    limit = max(np.abs(each).max() for layers in values.values() for each in layers.values())
    tail = np.geomspace(1.0, max(limit / levels[1], 10.0), 24)
    inner = np.linspace(*levels, 12)
    edges = np.concatenate([levels[0] * tail[:0:-1], inner, levels[1] * tail[1:]])
    middles = (edges[1:] + edges[:-1]) / 2
    colors = np.where((middles < levels[0]) | (middles > levels[1]), "C1", "0.5")
    for (network, layers), row in zip(values.items(), rows, strict=True):
        for axes, (name, potentials) in zip(row, layers.items(), strict=True):
            shares = 100 * np.histogram(potentials, edges)[0] / potentials.size
            axes.bar(edges[:-1], shares, np.diff(edges), align="edge", color=colors)
            axes.axvspan(*levels, color="0.93", zorder=0)
            clipped = 100 * np.mean((potentials < levels[0]) | (potentials > levels[1]))
            axes.set_title(f"{name}: {clipped:.0f} %", size=9)
            axes.set_xscale("symlog", linthresh=2)
            axes.set_xticks([-100, 0, 100], ["−100", "0", "100"])
        row[0].set_ylabel(f"{network}\nshare (%)", size=9)
    figure.supxlabel("membrane potential before rounding", size=10)
    return figure


def gradient_checks(tables: Mapping[str, pd.DataFrame]) -> Figure:
    """Compare the straight-through gradient with the masked one, one row per model.

    Args:
        tables: `scnn.analysis.clip_gradients` of each model, with standard deviations over seeds as NAME_sd.
    """
    figure, rows = plt.subplots(
        len(tables), 3, figsize=(8, 1.75 * len(tables) + 1), sharex="col", squeeze=False
    )
    for row, (model, table) in zip(rows, tables.items(), strict=True):
        places = np.arange(len(table))
        for axes, column in zip(row, ("ratio", "cosine"), strict=False):
            spread = table[f"{column}_sd"]
            axes.barh(places, table[column], xerr=spread, color="C1", error_kw={"elinewidth": 1})
        for shift, column, color in ((-0.2, "masked", "C0"), (0.2, "straight", "C1")):
            style = {"color": color, "label": column, "error_kw": {"elinewidth": 1}}
            row[2].barh(places + shift, table[column], 0.4, xerr=table[f"{column}_sd"], **style)
        row[2].axvline(0, color="black", linewidth=0.8)
        row[0].set(xscale="log", title=model_name(model), xlim=(1, None))
        row[0].xaxis.set_minor_formatter(NullFormatter())
        row[0].set_yticks(places, table.index)
        for axes in row:
            axes.invert_yaxis()
            axes.tick_params(axis="y", length=0)
        for axes in row[1:]:
            axes.set_yticks([])
    names = "length, straight / masked", "cosine between the two", "change of the loss by a step"
    for axes, name in zip(rows[-1], names, strict=True):
        axes.set_xlabel(name)
    figure.legend(*rows[0, 2].get_legend_handles_labels(), loc="outside lower right", ncols=2)
    return figure


def footprints(table: pd.DataFrame) -> Figure:
    """Draw accuracy against the size of packed networks, with a colour for each model and labelled points.

    Args:
        table: a row for each point, with `model`, `label`, `bytes`, `accuracy` in % and `accuracy_sd`.
    """
    figure, axes = plt.subplots(figsize=(8, 4.6))
    kib = table["bytes"].astype(float) / 1024
    stretch_accuracy(axes)
    axes.set(xscale="log", xlabel="packed weights, scales and biases (KiB)", ylabel="accuracy (%)")
    axes.set_xlim(0.4 * kib.min(), 2 * kib.max())
    figure.draw_without_rendering()  # fixes the layout of the axes, which the labels depend on
    names: list[tuple[int, float, float]] = []  # of the labels: side of the point, x and y in points
    for place, row in sorted(zip(kib, table.itertuples(), strict=True), key=lambda one: -one[1].accuracy):
        color = MODEL_COLORS[row.model]
        axes.errorbar(place, row.accuracy, row.accuracy_sd, fmt="o", color=color, capsize=2, elinewidth=1)
        x, y = axes.transData.transform((place, row.accuracy)) * 72 / figure.dpi
        level = y + 3
        side = -1 if row.model == "CNN" else 1  # label the CNNs, the smallest, on their left
        while any(side == other and abs(x - near) < 75 and abs(level - at) < 9 for other, near, at in names):
            level -= 1  # below the labels already placed
        names.append((side, x, level))
        offset: dict[str, Any] = {"xytext": (6 * side, level - y), "textcoords": "offset points"}
        align: dict[str, Any] = {"size": 8, "color": color, "ha": "right" if side < 0 else "left"}
        axes.annotate(row.label, (place, row.accuracy), **offset, **align)
    axes.grid(axis="y")
    for model in table["model"].unique():
        axes.plot([], [], "o", color=MODEL_COLORS[model], label=model_name(model))
    figure.legend(*axes.get_legend_handles_labels(), loc="outside lower center", ncols=3)
    return figure
