"""The figures of pages 13 and 14: new voices and new words."""

from __future__ import annotations

from collections.abc import Mapping

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.figure import Figure


def new_voices(found: pd.DataFrame) -> Figure:
    """Draw accuracy against the number of examples per word, for strangers (left) and known voices (right).

    Lines are means over the draws, with standard deviations; the thick line is the mean over the strangers.

    Args:
        found: a row for each stranger, number of examples and draw, with columns `speaker`, `examples`, and
            `stranger` and `known` in %.
    """
    figure, panels = plt.subplots(1, 2, sharey=True)
    counts = sorted(set(found["examples"]))
    titles = {"stranger": "The new voice", "known": "The voices it was trained on"}
    for axes, (measure, title) in zip(panels, titles.items(), strict=True):
        for number, (speaker, rows) in enumerate(found.groupby("speaker", sort=False)):
            by_count = rows.groupby("examples")[measure]
            places = np.arange(len(counts)) + 0.04 * number
            style = {
                "color": f"C{number % 6}",
                "linewidth": 1,
                "markersize": 4,
                "capsize": 2,
                "elinewidth": 1,
            }
            axes.errorbar(places, by_count.mean(), by_count.std().fillna(0), fmt="o-", label=speaker, **style)
        mean = found.groupby(["examples", "speaker"])[measure].mean().groupby("examples").mean()
        axes.plot(range(len(counts)), mean, color="black", linewidth=3, label="mean", zorder=3)
        axes.set(title=title, xlabel="examples of each word", xticks=range(len(counts)))
        axes.set_xticklabels(counts)
        axes.grid(axis="y")
    panels[0].set_ylabel("accuracy (%)")
    handles, labels = panels[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=min(len(labels), 7))
    return figure


def answer_shares(table: pd.DataFrame) -> Figure:
    """Draw a bar for each row of `scnn.keywords.Learnt.words`: the shares right, refused and wrong."""
    figure, axes = plt.subplots(figsize=(6.5, 0.9 + 0.38 * len(table)))
    left, places = np.zeros(len(table)), np.arange(len(table))
    for name, color in (("right", "C2"), ("not sure", "0.8"), ("wrong", "C1")):
        share = 100 * table[name].to_numpy()
        axes.barh(places, share, left=left, color=color, label=name, height=0.7)
        left = left + share
    axes.set(yticks=places, yticklabels=table.index, xlim=(0, 100), xlabel="of the recordings (%)")
    axes.invert_yaxis()
    axes.grid(False, axis="y")
    figure.legend(*axes.get_legend_handles_labels(), loc="outside upper center", ncols=3)
    return figure


def confidences(groups: Mapping[str, np.ndarray], refuse: float) -> Figure:
    """Draw how confident a network was, as a row of dots for each group, and the threshold for "not sure".

    Args:
        groups: confidences in 0..1, by group name.
        refuse: the confidence below which the answer is "not sure".
    """
    figure, axes = plt.subplots(figsize=(6.5, 0.9 + 0.38 * len(groups)))
    generator = np.random.default_rng(0)  # jitter, so that dots do not overlap
    for place, values in enumerate(groups.values()):
        height = place + generator.uniform(-0.28, 0.28, len(values))
        axes.plot(values, height, "o", ms=3, alpha=0.5, mew=0, color="C2" if place == 0 else "C1")
    axes.axvline(refuse, color="0.3", linestyle="--", linewidth=1)
    axes.annotate(
        "not sure", (refuse, -0.5), (-4, 4), textcoords="offset points", ha="right", fontsize="small"
    )
    axes.set(yticks=range(len(groups)), yticklabels=groups, xlim=(0, 1.01), xlabel="confidence")
    axes.set_ylim(len(groups) - 0.4, -0.8)
    axes.grid(False, axis="y")
    return figure
