"""The figures of page 03: the networks, their training, and their cost."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.ticker import MaxNLocator

from scnn.plots.common import MODEL_COLORS, model_name, signed


def architectures(costs: Mapping[str, pd.DataFrame], image: np.ndarray, classes: Sequence[str]) -> Figure:
    """Draw the layers of several networks, one network per row, with shapes and numbers of parameters.

    Args:
        costs: `scnn.metrics.layer_costs` of each model.
        image: `[H, W]`, an example input.
        classes: the names of the outputs.
    """
    figure, rows = plt.subplots(len(costs), 1, figsize=(8, 2 * len(costs)), squeeze=False)
    for axes, (model, table) in zip(rows[:, 0], costs.items(), strict=True):
        colors = signed(image, linear=10)
        axes.imshow(image, "RdBu_r", colors, extent=(0, 1, -0.5, 0.5), origin="lower", aspect="auto")
        axes.add_patch(Rectangle((0, -0.5), 1, 1, facecolor="none", edgecolor="0.6", linewidth=0.8))
        _below(axes, 0.5, f"input\n{' × '.join(map(str, image.shape))}")
        x = 1.0
        for layer, row in table.iterrows():
            mapped = len(row["shape"]) == 3
            axes.annotate("", (x + 0.85, 0), (x + 0.1, 0), arrowprops={"arrowstyle": "->", "color": "0.4"})
            axes.text(x + 0.47, 0.06, "convolve" if mapped else "connect all", ha="center", size=7.5)
            axes.text(x + 0.47, -0.08, f"{row['parameters']:,}", ha="center", va="top", size=7.5, color="0.4")
            draw = _draw_maps if mapped else _draw_units
            end = draw(axes, x + 0.95, row["shape"], image.shape[0], MODEL_COLORS[model])
            shape = " × ".join(map(str, row["shape"]))
            _below(axes, (x + 0.95 + end) / 2, f"{layer}\n{shape}" if mapped else f"{layer}\n{shape} neurons")
            x = end
        for number, label in enumerate(classes):
            axes.text(x + 0.06, 0.5 - (number + 0.5) / len(classes), label, va="center", size=6.5)
        axes.set(title=model_name(model), xlim=(-0.1, 8.2), ylim=(-0.95, 0.6))
        axes.axis("off")
    return figure


def _below(axes: Axes, x: float, text: str) -> None:
    axes.text(x, -0.62, text, ha="center", va="top", size=8)


def _draw_maps(axes: Axes, x: float, shape: tuple[int, ...], side: int, color: str) -> float:
    """Draw a stack of feature maps `[C, H, W]` for an input of `side` pixels; returns its right end."""
    size, shift, edge = 0.75 * shape[1] / side, 0.3 / shape[0], min(0.8, 5 / shape[0])
    for number in range(shape[0]):
        corner = (x + number * shift, (0.3 - size) / 2 - number * shift)
        axes.add_patch(Rectangle(corner, size, size, facecolor=color, edgecolor="white", linewidth=edge))
    return x + size + 0.3


def _draw_units(axes: Axes, x: float, shape: tuple[int, ...], side: int, color: str) -> float:
    """Draw a column of units, individually if there are few; returns its right end."""
    height = 1.0 if shape[0] <= 20 else min(1.0, 0.35 + 0.65 * shape[0] / 128)
    axes.add_patch(Rectangle((x, -height / 2), 0.12, height, facecolor=color))
    if shape[0] <= 20:
        axes.hlines(np.linspace(-0.5, 0.5, shape[0] + 1), x, x + 0.12, color="white", linewidth=1.2)
    return x + 0.12


def training_curves(histories: Mapping[str, Sequence[pd.DataFrame]], paper: Mapping[str, float]) -> Figure:
    """Draw accuracy and loss over the epochs: the mean over the seeds, and their range as a band.

    Args:
        histories: the `history` of the records of each model.
        paper: the paper's accuracy of each model in %.
    """
    figure, rows = plt.subplots(2, len(histories), figsize=(8, 4.4), sharex=True, sharey="row", squeeze=False)
    for column, (model, runs) in enumerate(histories.items()):
        for axes, quantity, scale in zip(rows[:, column], ("accuracy", "loss"), (100, 1), strict=True):
            for name, label, line in ((quantity, "training", "--"), (f"held_out_{quantity}", "test", "-")):
                color = "0.5" if label == "training" else MODEL_COLORS[model]
                epochs, values = runs[0]["epoch"], scale * np.stack([run[name] for run in runs])
                axes.plot(epochs, values.mean(axis=0), line, color=color, label=label)
                low, high = values.min(axis=0), values.max(axis=0)
                axes.fill_between(epochs, low, high, color=color, alpha=0.25, linewidth=0)
            axes.grid(axis="y")
        rows[0, column].axhline(paper[model], color="black", linestyle=":", linewidth=1.2, label="paper")
        rows[0, column].set_title(model_name(model))
        rows[1, column].set(yscale="log", xlabel="epoch")
        rows[1, column].xaxis.get_major_locator().set_params(integer=True)
    rows[0, 0].set_ylabel("accuracy (%)")
    rows[1, 0].set_ylabel("loss per time step")
    handles, labels = rows[0, 0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=3)
    return figure


def accuracy_against_cost(table: pd.DataFrame) -> Figure:
    """Draw accuracy against operations, with a disc for each model, whose area shows its parameters.

    Args:
        table: indexed by model, with `macs` (per recording), `parameters`, and in %, `mean` and `deviation`
            of our accuracy and the paper's accuracy, `paper`.
    """
    figure, axes = plt.subplots(figsize=(7, 3.8))
    for model, row in table.iterrows():
        color, area, x = MODEL_COLORS[model], 40 + row["parameters"] / 2500, row["macs"]
        axes.scatter(x * 1.15, row["paper"], area, facecolor="none", edgecolor=color, linewidth=1.4)
        axes.errorbar(x / 1.15, row["mean"], row["deviation"], color="black", capsize=4, linewidth=1)
        axes.scatter(x / 1.15, row["mean"], area, color=color)
        label = f"{model_name(model)}\n{row['parameters']:,.0f}\nparameters"
        axes.text(x, 0.03, label, ha="center", color=color, size=8.5, transform=axes.get_xaxis_transform())
    axes.scatter([], [], 60, color="0.4", label="ours, mean ± deviation")
    axes.scatter([], [], 60, facecolor="none", edgecolor="0.4", label="paper")
    figure.legend(loc="outside lower center", ncols=2)
    lowest = min(table["paper"].min(), (table["mean"] - table["deviation"].fillna(0)).min())
    axes.set(xscale="log", xlabel="multiply-accumulates of one recording", ylabel="accuracy (%)")
    axes.set(xlim=(1e5, 8e7), ylim=(lowest - 0.6 * (101 - lowest), 101))
    axes.set_yticks([tick for tick in axes.get_yticks() if lowest - 1 <= tick <= 100])
    axes.grid(axis="y")
    return figure


def confusion(counts: np.ndarray, classes: Sequence[str]) -> Figure:
    """Draw a confusion matrix `[spoken classes, answered classes]`, with the errors in colour."""
    figure, axes = plt.subplots(figsize=(5.4, 4.4))
    errors = np.where(np.eye(len(counts), dtype=bool), 0, counts)
    most = max(int(errors.max()), 1)
    shown = axes.imshow(np.ma.masked_equal(errors, 0), cmap="YlOrRd", vmin=0, vmax=most)
    for (row, column), count in np.ndenumerate(counts):
        color = "0.35" if row == column else "white" if count > 0.6 * most else "black"
        if count:
            axes.text(column, row, count, ha="center", va="center", color=color, size=8.5)
    axes.set(xlabel="answer of the network", ylabel="digit spoken")
    axes.set_xticks(range(len(classes)), classes)
    axes.set_yticks(range(len(classes)), classes)
    axes.set_xticks(np.arange(len(classes) + 1) - 0.5, minor=True)
    axes.set_yticks(np.arange(len(classes) + 1) - 0.5, minor=True)
    axes.grid(which="minor")
    axes.tick_params(which="both", length=0)
    axes.spines[:].set_visible(False)
    figure.colorbar(shown, label="recordings taken for another", ticks=MaxNLocator(4, integer=True))
    return figure


def rate_maps(rates: np.ndarray, window: np.ndarray) -> Figure:
    """Draw where the channels of a layer spike.

    Args:
        rates: `[C, H, W]`, spikes per time step.
        window: `[H, W]`, the share of recordings with data at a pixel; a contour is drawn at one half.
    """
    figure, row = plt.subplots(1, len(rates), figsize=(8, 1.8))
    for number, (axes, rate) in enumerate(zip(row, rates, strict=True), start=1):
        shown = axes.imshow(rate, vmin=0, vmax=1, origin="lower")
        axes.contour(window, [0.5], colors="white", linewidths=1)
        axes.set(title=f"channel {number}", xticks=[], yticks=[])
        axes.spines[:].set_visible(False)
    figure.colorbar(shown, ax=row, label="spikes per step", shrink=0.75)
    return figure


def activity_shares(tables: Mapping[str, pd.DataFrame]) -> Figure:
    """Draw the shares of each layer's neurons that are silent, always spiking, or in between.

    Args:
        tables: `scnn.metrics.activity` of each model, including its row "window".
    """
    shares = {
        "silent": ("0.88", "silent at every step"),
        "changing": ("C4", "in between"),
        "always": ("C0", "spiking at every step"),
    }
    figure, row = plt.subplots(1, len(tables), figsize=(8, 2.7), squeeze=False)
    for axes, (model, table) in zip(row[0], tables.items(), strict=True):
        first, *others = [layer for layer in table.index if layer != "window"]
        table = 100 * table.loc[[first, "window", *others]]
        left = np.zeros(len(table))
        for column, (color, label) in shares.items():
            axes.barh(range(len(table)), table[column], left=left, color=color, label=label)
            left += table[column].to_numpy()
        axes.set_yticks(range(len(table)), [first, f"{first}, window", *others])
        axes.invert_yaxis()
        axes.set(title=model_name(model), xlabel="neurons (%)", xlim=(0, 100))
        axes.tick_params(axis="y", length=0)
    handles, labels = row[0, 0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=3)
    return figure
