"""The figures of page 01: recordings, and how they become images."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator
from numpy.typing import ArrayLike

from scnn.data import Corpus
from scnn.plots.common import feature_image, player, signed

if TYPE_CHECKING:
    from IPython.display import HTML


def players(corpus: Corpus, rows: Sequence[Sequence[int]]) -> HTML:
    """A table of audio players, a row for each word and a column for each speaker, at the recorded volume.

    Args:
        corpus: the recordings.
        rows: indices of clips, one row for each word, with the speakers in the same order.
    """
    from IPython.display import HTML  # only notebooks get here, and they have IPython

    heads = (f"<th>{escape(corpus.speakers[clip])}</th>" for clip in rows[0])
    table = f"<tr><th></th>{''.join(heads)}</tr>"
    for row in rows:
        word = escape(corpus.classes[corpus.labels[row[0]]])
        sounds = (player(corpus.waveforms[clip], corpus.sample_rate, corpus.names[clip]) for clip in row)
        table += f"<tr><th>{word}</th>{''.join(sounds)}</tr>"
    return HTML(f"<table>{table}</table>")


def trimmed(axes: Axes, waveform: np.ndarray, sample_rate: int, bounds: Sequence[int]) -> None:
    """Draw a waveform over time in s, with the trimmed ends in grey.

    Args:
        axes: where to draw.
        waveform: `[samples]`.
        sample_rate: Hz.
        bounds: index of the first sample to keep, and of the first after the kept part.
    """
    times, (start, end) = np.arange(len(waveform)) / sample_rate, bounds
    axes.plot(times, waveform, color="0.6", linewidth=0.5)
    axes.plot(times[start:end], waveform[start:end], color="C0", linewidth=0.6)
    axes.axvspan(start / sample_rate, end / sample_rate, color="C0", alpha=0.12, linewidth=0)


def image_steps(
    axes: Sequence[Axes],
    waveform: np.ndarray,
    sample_rate: int,
    levels: np.ndarray,
    coefficients: np.ndarray,
    image: ArrayLike,
    window: ArrayLike,
) -> None:
    """Draw the steps from a clip to its image: waveform, mel spectrogram, MFCC, padded image.

    Args:
        axes: four of them, one for each step.
        waveform: `[samples]`, trimmed.
        sample_rate: Hz.
        levels: `[mel bands, frames]`, dB.
        coefficients: `[coefficients, frames]`.
        image: `[height, width]`, with `coefficients` in its centre.
        window: bool `[height, width]`, True where they are.
    """
    colors = signed(coefficients, linear=10)
    axes[0].plot(np.arange(len(waveform)) / sample_rate, waveform, color="C0", linewidth=0.6)
    axes[0].set(title=f"1. {len(waveform):,} samples", xlabel="time (s)", yticks=[])
    axes[1].imshow(levels, origin="lower", aspect="auto")
    axes[1].set(title="2. {} mel × {}".format(*levels.shape), xlabel="frame", ylabel="mel band (level in dB)")
    axes[2].imshow(coefficients, origin="lower", aspect="auto", cmap="RdBu_r", norm=colors)
    axes[2].set(title="3. {} MFCC × {}".format(*coefficients.shape), xlabel="frame", ylabel="coefficient")
    for one in axes[1:3]:
        one.xaxis.set_major_locator(MaxNLocator(4, integer=True))
    axes[2].yaxis.set_major_locator(MaxNLocator(4, integer=True))
    drawn = feature_image(axes[3], image, window, colors)
    axes[3].set_title("4. {} × {} image".format(*np.shape(image)))
    axes[3].figure.colorbar(drawn, ax=axes[3], ticks=[-100, -10, 0, 10, 100], shrink=0.75)


def read_outs(axes: Axes, table: pd.DataFrame, x: str, lines: str) -> None:
    """Draw accuracies with error bars: filled for mixed speakers, hollow for an unseen speaker.

    Args:
        axes: where to draw.
        table: a row for each setting; columns `mixed`, `mixed_std`, `unseen` and `unseen_std` in %.
        x: the column on the x axis; its values are evenly spaced.
        lines: the column with a line for each value.
    """
    ticks = sorted(set(table[x]))
    for number, (value, rows) in enumerate(table.groupby(lines)):
        places = [ticks.index(one) + 0.12 * (number - 1) for one in rows[x]]
        look: dict[str, Any] = {
            "color": f"C{number}",
            "marker": "os^Dv"[number % 5],
            "capsize": 2,
            "elinewidth": 1,
        }
        axes.errorbar(places, rows["mixed"], rows["mixed_std"], label=f"{lines} {value}", **look)
        axes.errorbar(places, rows["unseen"], rows["unseen_std"], ls=":", mfc="white", **look)
    axes.set(xticks=range(len(ticks)), xlabel=x, ylim=(0, 103))
    axes.set_xticklabels(ticks)
    axes.grid(axis="y")
