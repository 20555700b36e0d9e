"""The figures of page 09: speedups, and where the time goes."""

from __future__ import annotations

import numpy as np
import pandas as pd
from matplotlib.axes import Axes


def speedups(axes: Axes, ways: pd.DataFrame, bound: float) -> None:
    """Draw the speedup of several variants over the first one, with quartiles over the rounds.

    Args:
        axes: where to draw.
        ways: a row for each variant, by name, with columns "ratio", "ratio_low" and "ratio_high".
        bound: the ratio of the dense products alone, drawn as a line.
    """
    places = range(len(ways))
    around = [ways["ratio"] - ways["ratio_low"], ways["ratio_high"] - ways["ratio"]]
    axes.barh(places, ways["ratio"], xerr=around, color="C0", error_kw={"ecolor": "0.35", "elinewidth": 1})
    for place, (ratio, most) in enumerate(zip(ways["ratio"], ways["ratio_high"], strict=True)):
        axes.annotate(f"{ratio:.1f} ×", (most, place), (5, 0), textcoords="offset points", va="center")
    axes.axvline(bound, color="C1", linestyle="--", linewidth=1.2)
    axes.annotate(
        "dense products alone", (bound, -0.62), (4, 0), textcoords="offset points", color="C1", va="bottom"
    )
    axes.set_yticks(places, ways.index)
    axes.invert_yaxis()
    axes.set(xlabel="times as fast as the naive loop", xlim=(0, 1.15 * max(ways["ratio_high"].max(), bound)))
    axes.tick_params(axis="y", length=0)


def time_shares(axes: Axes, shares: pd.DataFrame) -> None:
    """Draw where the time of several variants goes, each as one bar of 100 %.

    Args:
        axes: where to draw.
        shares: a row for each variant, a column for each part of the time; rows add up to 1.
    """
    left = np.zeros(len(shares))
    for number, part in enumerate(shares.columns):
        width = 100 * shares[part].to_numpy()
        color = "0.82" if part == shares.columns[-1] else f"C{number}"
        axes.barh(range(len(shares)), width, left=left, color=color, label=part, edgecolor="white")
        left += width
    axes.set_yticks(range(len(shares)), shares.index)
    axes.invert_yaxis()
    axes.set(xlabel="time of a training step (%)", xlim=(0, 100))
    axes.tick_params(axis="y", length=0)
    axes.figure.legend(loc="outside lower center", ncols=3)
