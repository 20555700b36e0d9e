"""The figures of page 12: a network on a microcontroller."""

from __future__ import annotations

from collections.abc import Mapping

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure


def word_on_device(image: np.ndarray, layers: Mapping[str, np.ndarray]) -> Figure:
    """Draw what a device made of one recording: its image, and how active each place of each layer is.

    Args:
        image: pixels, [height, width], low bands first.
        layers: spikes of each neuron over all time steps, [height, width, channels], by the layer's name; a
            layer without a map has height and width 1.
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
    """Draw how many instructions layers of spikes take, by how many of their inputs are active.

    Args:
        axes: where to draw.
        points: `scnn.deploy.cost.by_activity`.
        lines: `scnn.deploy.cost.break_even` of it.
        dense: instructions of the same layers of a ReLU network, by name.
    """
    for number, (name, of) in enumerate(points.groupby("layer", sort=False)):
        axes.plot(100 * of["active"], of["instructions"] / dense[name], ".", color=f"C{number}", label=name)
        line = lines.loc[name]
        ends = np.array([0, min(line["active"], 1) if line["active"] > 0 else of["active"].max()])
        axes.plot(100 * ends, line["base"] + line["slope"] * ends, color=f"C{number}", linewidth=1)
    axes.axhline(1, color="0.35", linestyle="--", linewidth=1)
    axes.annotate("the same layer of ReLU", (100, 1), (0, 4), textcoords="offset points", ha="right")
    axes.set(xlabel="inputs that spike at least once (%)", ylabel="instructions / ReLU layer's")
    axes.set(xlim=(0, 100), ylim=(0, None))
    axes.legend(loc="lower right")


def shrinking_gain(axes: Axes, times: pd.DataFrame) -> None:
    """Draw how many times the energy of a spiking network others take, by how much of it is counted.

    Args:
        axes: where to draw.
        times: a row for each way of counting, from the least to all, and a column for each other network.
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
