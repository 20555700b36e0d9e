"""The figures of page 12: a network on a microcontroller."""

from __future__ import annotations

from collections.abc import Mapping

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure


def word_on_device(image: np.ndarray, layers: Mapping[str, np.ndarray]) -> Figure:
    """Draw one recording on a device: its image, and the activity of each layer.

    Args:
        image: pixels, [height, width], low bands first.
        layers: spike counts of each neuron over all time steps, [height, width, channels], by name of the
            layer; a dense layer has height and width 1.
    """
    maps = {"image": image} | {
        name: spikes.mean(axis=2) if spikes.shape[0] > 1 else spikes[0] for name, spikes in layers.items()
    }
    figure, row = plt.subplots(1, len(maps), figsize=(8, 2.2))
    for axes, (name, values) in zip(row, maps.items(), strict=True):
        axes.imshow(values, origin="lower", aspect="auto", vmin=0)
        axes.set(title=name, xticks=[], yticks=[])
        axes.spines[:].set_visible(False)
    row[0].set(xlabel="time", ylabel="mel band")
    return figure


def break_even(axes: Axes, points: pd.DataFrame, lines: pd.DataFrame, dense: Mapping[str, float]) -> None:
    """Draw the instructions of spiking layers against the share of their inputs that are active.

    Args:
        axes: where to draw.
        points: from `scnn.deploy.cost.by_activity`.
        lines: from `scnn.deploy.cost.break_even`, for these points.
        dense: instructions of the same layers in a ReLU network, by name.
    """
    for number, (name, group) in enumerate(points.groupby("layer", sort=False)):
        axes.plot(
            100 * group["active"], group["instructions"] / dense[name], ".", color=f"C{number}", label=name
        )
        line = lines.loc[name]
        ends = np.array([0, min(line["active"], 1) if line["active"] > 0 else group["active"].max()])
        axes.plot(100 * ends, line["base"] + line["slope"] * ends, color=f"C{number}", linewidth=1)
    axes.axhline(1, color="0.35", linestyle="--", linewidth=1)
    axes.annotate("the same layer of ReLU", (100, 1), (0, 4), textcoords="offset points", ha="right")
    axes.set(xlabel="inputs that spike at least once (%)", ylabel="instructions / ReLU layer's")
    axes.set(xlim=(0, 100), ylim=(0, None))
    axes.legend(loc="lower right")


def shrinking_gain(axes: Axes, times: pd.DataFrame) -> None:
    """Draw the energy of other networks relative to a spiking one, for different ways of counting.

    Args:
        axes: where to draw.
        times: the ratios; a row for each way of counting, from the least to the most inclusive, and a column
            for each other network.
    """
    width = 0.8 / len(times.columns)
    for number, (name, values) in enumerate(times.items()):
        at = np.arange(len(values)) + (number - (len(times.columns) - 1) / 2) * width
        bars = axes.bar(at, values, 0.9 * width, color=f"C{number}", label=name)
        axes.bar_label(bars, [f"{value:.1f}×" for value in values], padding=2)
    axes.axhline(1, color="0.35", linestyle="--", linewidth=1)
    axes.set_xticks(range(len(times)), times.index)
    axes.set(ylabel="energy / spiking network's", ylim=(0, 1.12 * times.to_numpy().max()))
    axes.legend()
