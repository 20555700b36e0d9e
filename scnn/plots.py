"""The figures of the book, where drawing one takes more than a few lines. Nothing is computed here."""

from __future__ import annotations

import io
import itertools
from collections.abc import Mapping, Sequence
from html import escape
from typing import TYPE_CHECKING

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.colors import Normalize, SymLogNorm
from matplotlib.figure import Figure
from matplotlib.image import AxesImage
from matplotlib.patches import Rectangle
from matplotlib.ticker import MaxNLocator, NullFormatter
from numpy.typing import ArrayLike
from PIL import Image

from scnn.data import Corpus

if TYPE_CHECKING:
    from IPython.display import HTML


def compact_figures() -> None:
    """Have this notebook keep its figures as PNGs of 256 colours, at less than half of the size.

    Outside a notebook it does nothing.
    """
    from IPython import get_ipython  # only notebooks call this, and they bring IPython

    shell = get_ipython()
    if shell is not None:
        plt.switch_backend(plt.get_backend())  # loads it, for it registers a PNG formatter of its own then
        shell.display_formatter.formatters["image/png"].for_type(Figure, _palette_png)


def _palette_png(figure: Figure) -> bytes:
    drawn, written = io.BytesIO(), io.BytesIO()
    figure.savefig(drawn, format="png", dpi="figure", facecolor="white", bbox_inches="tight")
    picture = Image.open(drawn).convert("RGB")
    # Maximum coverage keeps rare colours, such as a spike's, where a median cut would mix them.
    picture = picture.quantize(256, Image.Quantize.MAXCOVERAGE, kmeans=1, dither=Image.Dither.NONE)
    picture.save(written, format="png", optimize=True)
    return written.getvalue()


def membrane_trace(
    axes: Axes,
    membrane: ArrayLike,
    spikes: ArrayLike,
    threshold: float,
    times: ArrayLike | None = None,
    color: str = "C0",
) -> None:
    """Draw one neuron: its membrane potential as a line, the threshold dashed, a tick on top for each spike.

    Args:
        axes: where to draw; its limits in y become those of the data, with room for the ticks.
        membrane: `[T]`, membrane potentials.
        spikes: `[T]`, 0 or 1.
        threshold: in the unit of `membrane`.
        times: `[T]`, where the time steps lie in x; 0, 1, 2, ... if left out.
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
    """Draw the spikes of many neurons as ticks, one row for each neuron, the first at the bottom.

    Args:
        axes: where to draw.
        spikes: `[T, N]`, 0 or 1.
        times: `[T]`, where the time steps lie in x; 0, 1, 2, ... if left out.
        color: of the ticks.
    """
    spikes = np.asarray(spikes)
    times = np.arange(len(spikes)) if times is None else np.asarray(times)
    axes.eventplot([times[train > 0] for train in spikes.T], colors=color, linelengths=0.8, linewidths=1.1)
    axes.set_ylim(-0.6, spikes.shape[1] - 0.4)


def players(corpus: Corpus, rows: Sequence[Sequence[int]]) -> HTML:
    """A table of audio players: a row for each word, a column for each speaker, as loud as recorded.

    Args:
        corpus: where the clips are.
        rows: indices of clips, one row for each word, the speakers in the same order in each.
    """
    from IPython.display import HTML  # only notebooks get here, and they bring IPython

    heads = (f"<th>{escape(corpus.speakers[clip])}</th>" for clip in rows[0])
    table = f"<tr><th></th>{''.join(heads)}</tr>"
    for row in rows:
        word = escape(corpus.classes[corpus.labels[row[0]]])
        sounds = (_player(corpus.waveforms[clip], corpus.sample_rate, corpus.names[clip]) for clip in row)
        table += f"<tr><th>{word}</th>{''.join(sounds)}</tr>"
    return HTML(f"<table>{table}</table>")


def named_players(sounds: Mapping[str, np.ndarray], sample_rate: int) -> HTML:
    """A table of audio players, a row for each of `sounds` `[samples]` with its name, as loud as they are."""
    from IPython.display import HTML

    rows = (
        f"<tr><th>{escape(name)}</th>{_player(each, sample_rate, name)}</tr>" for name, each in sounds.items()
    )
    return HTML(f"<table>{''.join(rows)}</table>")


def _player(sound: np.ndarray, sample_rate: int, name: str) -> str:
    from IPython.display import Audio

    source = Audio(sound, rate=sample_rate, normalize=False).src_attr()
    return f'<td><audio controls style="width: 13em" title="{escape(name)}" src="{source}"></audio></td>'


def trimmed(axes: Axes, waveform: np.ndarray, sample_rate: int, bounds: Sequence[int]) -> None:
    """Draw a waveform over time in s, what trimming cuts off in grey.

    Args:
        axes: where to draw.
        waveform: `[samples]`.
        sample_rate: Hz.
        bounds: first sample that is kept, and the first after it that is not.
    """
    times, (start, end) = np.arange(len(waveform)) / sample_rate, bounds
    axes.plot(times, waveform, color="0.6", linewidth=0.5)
    axes.plot(times[start:end], waveform[start:end], color="C0", linewidth=0.6)
    axes.axvspan(start / sample_rate, end / sample_rate, color="C0", alpha=0.12, linewidth=0)


def signed(values: ArrayLike, linear: float | None = None) -> Normalize:
    """Colours for values of both signs, 0 in the middle; logarithmic beyond `linear`, where that is given."""
    largest = float(np.abs(values).max())
    if linear is None:
        return Normalize(-largest, largest)
    return SymLogNorm(linear, vmin=-largest, vmax=largest)


def feature_image(axes: Axes, image: ArrayLike, window: ArrayLike, colors: Normalize) -> AxesImage:
    """Draw one image as the network gets it, its first row at the bottom, with a frame around the data.

    Args:
        axes: where to draw.
        image: `[height, width]`; 0, which the padding is, is white.
        window: bool `[height, width]`, True where data is.
        colors: from `signed`.

    Returns:
        What a colour bar takes.
    """
    drawn = axes.imshow(np.asarray(image), origin="lower", cmap="RdBu_r", norm=colors)
    rows, columns = np.nonzero(np.asarray(window))
    corner = columns.min() - 0.5, rows.min() - 0.5
    size = np.ptp(columns) + 1, np.ptp(rows) + 1
    axes.add_patch(Rectangle(corner, *size, fill=False, edgecolor="0.2", linewidth=0.8))
    axes.set(xticks=[], yticks=[])
    axes.spines[:].set_visible(True)
    axes.spines[:].set_color("0.7")
    return drawn


def image_steps(
    axes: Sequence[Axes],
    waveform: np.ndarray,
    sample_rate: int,
    levels: np.ndarray,
    coefficients: np.ndarray,
    image: ArrayLike,
    window: ArrayLike,
) -> None:
    """Draw a clip on its way into the network: waveform, mel spectrogram, MFCC, padded image.

    Args:
        axes: four of them, one for each step.
        waveform: `[samples]`, trimmed.
        sample_rate: Hz.
        levels: `[mel bands, frames]`, dB.
        coefficients: `[coefficients, frames]`.
        image: `[height, width]`, `coefficients` in its middle.
        window: bool `[height, width]`, where they are.
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
    """Draw accuracies with error bars: filled where speakers are mixed, hollow where the speaker is unseen.

    Args:
        axes: where to draw.
        table: a row for each setting; columns `mixed`, `mixed_std`, `unseen` and `unseen_std` in %.
        x: the column whose values stand along x, evenly spaced.
        lines: the column whose values each get lines of their own.
    """
    ticks = sorted(set(table[x]))
    for number, (value, rows) in enumerate(table.groupby(lines)):
        places = [ticks.index(one) + 0.12 * (number - 1) for one in rows[x]]
        look = {"color": f"C{number}", "marker": "os^Dv"[number % 5], "capsize": 2, "elinewidth": 1}
        axes.errorbar(places, rows["mixed"], rows["mixed_std"], label=f"{lines} {value}", **look)
        axes.errorbar(places, rows["unseen"], rows["unseen_std"], ls=":", mfc="white", **look)
    axes.set(xticks=range(len(ticks)), xlabel=x, ylim=(0, 103))
    axes.set_xticklabels(ticks)
    axes.grid(axis="y")


# --- training ---------------------------------------------------------------------------------------------

MODEL_COLORS = {"A": "C0", "B": "C1", "C": "C2", "CNN": "C6"}  # the same on every page


def model_name(model: str) -> str:
    """What a title calls a model of the zoo."""
    return "control CNN" if model == "CNN" else f"Model {model}"


def architectures(costs: Mapping[str, pd.DataFrame], image: np.ndarray, classes: Sequence[str]) -> Figure:
    """Draw networks layer by layer, one below the other, with shapes and numbers of parameters.

    Args:
        costs: `scnn.metrics.layer_costs` of each model.
        image: `[H, W]`, an input.
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
    """A stack of feature maps `[C, H, W]` from `x` on, drawn for an input of `side` pixels; where it ends."""
    size, shift, edge = 0.75 * shape[1] / side, 0.3 / shape[0], min(0.8, 5 / shape[0])
    for number in range(shape[0]):
        corner = (x + number * shift, (0.3 - size) / 2 - number * shift)
        axes.add_patch(Rectangle(corner, size, size, facecolor=color, edgecolor="white", linewidth=edge))
    return x + size + 0.3


def _draw_units(axes: Axes, x: float, shape: tuple[int, ...], side: int, color: str) -> float:
    """A column of units, each of them visible where they are few; where it ends."""
    height = 1.0 if shape[0] <= 20 else min(1.0, 0.35 + 0.65 * shape[0] / 128)
    axes.add_patch(Rectangle((x, -height / 2), 0.12, height, facecolor=color))
    if shape[0] <= 20:
        axes.hlines(np.linspace(-0.5, 0.5, shape[0] + 1), x, x + 0.12, color="white", linewidth=1.2)
    return x + 0.12


def training_curves(histories: Mapping[str, Sequence[pd.DataFrame]], paper: Mapping[str, float]) -> Figure:
    """Draw accuracy and loss over the epochs: the mean over the seeds, and a band from lowest to highest.

    Args:
        histories: of each model, the `history` of its records.
        paper: of each model, the paper's accuracy in percent.
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
    """Draw accuracy over operations, a disc for each model, its area the number of parameters.

    Args:
        table: indexed by model; columns `macs` of one recording, `parameters`, `mean` and `deviation` of our
            accuracy and `paper`, the paper's, in percent.
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
    """Draw a confusion matrix `[classes, classes]`, rows spoken and columns answered, errors in colour."""
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
        window: `[H, W]`, the share of recordings with data there; its outline is drawn at one half.
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
    """Draw which share of each layer's neurons is silent, always spiking or in between.

    Args:
        tables: `scnn.metrics.activity` of each model, with its row "window".
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


def speedups(axes: Axes, ways: pd.DataFrame, bound: float) -> None:
    """Draw how many times as fast as the first of them several ways are, with the range over the rounds.

    Args:
        axes: where to draw.
        ways: rows by name, with columns "ratio", "ratio_low" and "ratio_high".
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
    """Draw where the time of several ways goes, each as one bar of 100 %.

    Args:
        axes: where to draw.
        shares: a row for each way, a column for each part of the time; rows add up to 1.
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


def new_voices(found: pd.DataFrame) -> Figure:
    """Draw accuracy against the examples of each word: for strangers on the left, for known voices beside it.

    Args:
        found: a row for each stranger, number of examples and draw of them; columns `speaker`, `examples`,
            and `stranger` and `known` in %. Lines are means over the draws, with their deviation; the thick
            line is the mean over the strangers.
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


def stretch_accuracy(axes: Axes, which: str = "y") -> None:
    """Give an accuracy axis in % more room the closer it gets to 100, where networks differ.

        position = -log10(101 - accuracy)

    Args:
        axes: where; limits and ticks of the axis are changed, too.
        which: the axis, "x" or "y".
    """
    functions = lambda y: -np.log10(np.maximum(101 - y, 1e-6)), lambda z: 101 - 10.0 ** (-z)
    getattr(axes, f"set_{which}scale")("function", functions=functions)
    ticks = [0, 50, 80, 90, 95, 98, 100]
    axes.set(**{f"{which}lim": (-5, 100.25)})
    getattr(axes, f"set_{which}ticks")(ticks, [str(tick) for tick in ticks])


def sweeps(
    ours: pd.DataFrame,
    paper: pd.DataFrame,
    columns: Mapping[str, str],
    names: Mapping[str, str],
    accuracy: bool = False,
) -> Figure:
    """Draw what one parameter at a time does: a row of panels for each model, a column for each parameter.

    The values of a parameter are evenly spaced, whatever they are.

    Args:
        ours: indexed by model, parameter and value; `n`, and of each of `columns` the mean and `NAME_sd`.
        paper: indexed alike, single trainings; those of `columns` that it has are drawn hollow.
        columns: what to draw, with its label.
        names: the parameters, with their labels.
        accuracy: whether it is an accuracy in %, drawn with `stretch_accuracy`.
    """
    models = ours.index.unique("model")
    figure, rows = plt.subplots(
        len(models),
        len(names),
        figsize=(8, 2.1 * len(models) + 0.6),
        sharex="col",
        sharey=True,
        squeeze=False,
    )
    lines = (("o-", None, 5), ("s--", "0.45", 3.5), ("^:", "0.6", 4))
    for (row, model), (column, name) in itertools.product(enumerate(models), enumerate(names)):
        axes, here = rows[row, column], {"model": model, "parameter": name}
        measured, printed = (table.xs(tuple(here.values()), level=list(here)) for table in (ours, paper))
        values = sorted({*ours.xs(name, level="parameter").index.unique("value"), *printed.index})
        for (line, gray, mark), (measure, label) in zip(lines, columns.items(), strict=False):
            places, color = [values.index(value) for value in measured.index], gray or MODEL_COLORS[model]
            style = {"color": color, "markersize": mark, "capsize": 2, "elinewidth": 1, "label": label}
            axes.errorbar(places, measured[measure], measured[f"{measure}_sd"], fmt=line, **style)
            if measure in printed:
                places = [values.index(value) - 0.2 for value in printed.index]
                axes.plot(places, printed[measure], "D", mfc="none", mec="black", markersize=4, label="paper")
        axes.set_xticks(range(len(values)), [f"{value:g}" for value in values])
        axes.grid(axis="y")
        if accuracy:
            stretch_accuracy(axes)
    for axes, label in zip(rows[-1], names.values(), strict=True):
        axes.set_xlabel(label)
    for axes, model in zip(rows[:, 0], models, strict=True):
        axes.set(title=f"{model_name(model)}, n = {ours.loc[model, 'n'].max()}")
        axes.set_ylabel("accuracy (%)" if accuracy else "sparsity")
    handles, labels = rows[0, 0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=len(labels))
    return figure


# --- layers -----------------------------------------------------------------------------------------------

ORIGINS = {  # columns of scnn.analysis.origins: colour, and what a legend calls them
    "padding": ("0.9", "zero: sees only padding"),
    "silent": ("0.65", "zero: sees data, never spikes"),
    "sparse": ("C5", "zero: spikes at other steps"),
    "spikes": ("C1", "spike: sees data"),
    "spikes_padding": ("C6", "spike: sees only padding"),
}


def channel_steps(
    filters: np.ndarray, current: np.ndarray, membrane: np.ndarray, spikes: np.ndarray, steps: Sequence[int]
) -> Figure:
    """Draw a layer's channels, a row for each: filter, current, last membrane potential, spikes at steps.

    Args:
        filters: `[C, k, k]`.
        current: `[C, h, w]`, constant over time.
        membrane: `[T, C, h, w]`, as `spikes`.
        spikes: 0 or 1.
        steps: the time steps whose spikes are drawn, from 1 to T.
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
    """Draw layers over time, a column for each: current and membrane of all neurons, spikes of some.

    Args:
        currents: `scnn.analysis.spread` of each layer; median as a line, middle half and range as bands.
        membranes: the same of the membrane potentials.
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
    """Draw where the zeros of each layer come from, a panel for each network.

    Args:
        tables: `scnn.analysis.origins` of each network, by the title of its panel.
    """
    figure, row = plt.subplots(1, len(tables), figsize=(8, 3.2), squeeze=False)
    for axes, (title, table) in zip(row[0], tables.items(), strict=True):
        left = np.zeros(len(table))
        for column, (color, label) in ORIGINS.items():
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


# --- quantisation -----------------------------------------------------------------------------------------


def clipped_gradients(membrane: np.ndarray, curves: pd.DataFrame, levels: tuple[float, float]) -> Figure:
    """Draw what rounding does to a membrane potential, to its gradient, and to the gradient of a spike.

    Args:
        membrane: before it is rounded.
        curves: a row for each way, by its label; in `rounded`, `gradient` (of the rounding) and `spike` (its
            gradient) an array each, as long as `membrane`.
        levels: the outermost ones.
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
    """Draw the accuracy of every training, a panel for each model, a row for each way of training.

    Args:
        ours: a row a training; `model`, `arm` (the label of its row) and `accuracy` in %.
        paper: the paper's accuracy in % by model and arm.
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
    """Draw loss and accuracy over the epochs, a column a model: means over the seeds, with their range.

    Args:
        histories: of each model and way of training, the `history` of its records, the loss per time step.
        floor: the least loss per time step that rounded membranes allow.
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
    """Draw how membrane potentials are distributed before rounding: a row a network, a column a layer.

    Args:
        values: of each network and layer, the potentials.
        levels: the outermost ones; what lies beyond them is clipped, drawn in colour, and its share named.
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
    """Draw how far a straight-through gradient is from the masked one, a row for each model.

    Args:
        tables: `scnn.analysis.clip_gradients` of each model, with the deviations over seeds as NAME_sd.
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
    """Draw accuracy over the bytes of a packed network: a colour for each model, a name at each point.

    Args:
        table: a row for each point; `model`, `label`, `bytes`, `accuracy` in % and `accuracy_sd`.
    """
    figure, axes = plt.subplots(figsize=(8, 4.6))
    for row in table.itertuples():
        color = MODEL_COLORS[row.model]
        axes.errorbar(
            row.bytes / 1024, row.accuracy, row.accuracy_sd, fmt="o", color=color, capsize=2, elinewidth=1
        )
        axes.annotate(
            row.label,
            (row.bytes / 1024, row.accuracy),
            (5, 3),
            textcoords="offset points",
            size=8,
            color=color,
        )
    stretch_accuracy(axes)
    axes.set(xscale="log", xlabel="packed weights, scales and biases (KiB)", ylabel="accuracy (%)")
    axes.grid(axis="y")
    for model in table["model"].unique():
        axes.plot([], [], "o", color=MODEL_COLORS[model], label=model_name(model))
    figure.legend(*axes.get_legend_handles_labels(), loc="outside lower center", ncols=3)
    return figure


_SEARCHED = {"beta": "beta", "num_steps": "time steps $T$", "threshold": "threshold"}
_KINDS = {"random": "o", "tpe": "^"}


def search_space(trials: pd.DataFrame) -> Figure:
    """Draw the trials of searches in the cube of their parameters, coloured by accuracy, as the paper does.

    Args:
        trials: a row for each; `model`, `kind`, `beta`, `num_steps`, `threshold` and `accuracy` in 0..1.
    """
    groups = list(trials.groupby(["model", "kind"], sort=False))
    limits = trials[list(_SEARCHED)].agg(["min", "max"])  # one cube for all
    rows = -(-len(groups) // 2)
    figure = plt.figure(figsize=(8, 3.6 * rows))
    for place, ((model, kind), group) in enumerate(groups, start=1):
        axes = figure.add_subplot(rows, 2, place, projection="3d")
        axes.patch.set_alpha(0)  # a cube's last label reaches into its neighbour
        beta, steps, threshold = (group[name] for name in _SEARCHED)
        style = {"vmin": 0, "vmax": 100, "s": 30, "edgecolor": "black", "linewidth": 0.4, "depthshade": False}
        shown = axes.scatter(beta, steps, threshold, c=100 * group["accuracy"], **style)
        xlabel, ylabel, zlabel = _SEARCHED.values()
        axes.set(title=f"{model_name(model)}, {kind}", xlabel=xlabel, ylabel=ylabel, zlabel=zlabel)
        axes.set(**{f"{axis}lim": limits[name] for axis, name in zip("xyz", _SEARCHED, strict=True)})
        axes.set_box_aspect(None, zoom=0.85)
    figure.colorbar(shown, ax=figure.axes, label="validation accuracy (%)", shrink=0.6, pad=0.1)
    return figure


def search_projections(trials: pd.DataFrame) -> Figure:
    """Draw accuracy and sparsity of the trials of searches over each parameter.

    Args:
        trials: as for `search_space`, with `sparsity_all` in 0..1 and `status`; those that were stopped early
            are hollow.
    """
    models = trials["model"].unique()
    quantities = {"accuracy": "accuracy (%)", "sparsity_all": "sparsity"}
    size = (8, 3.4 * len(models) + 0.6)
    figure, rows = plt.subplots(2 * len(models), len(_SEARCHED), figsize=size, sharex="col", sharey="row")
    for (row, (model, quantity)), (column, name) in itertools.product(
        enumerate(itertools.product(models, quantities)), enumerate(_SEARCHED)
    ):
        axes, scale = rows[row, column], 100 if quantity == "accuracy" else 1
        for (kind, status), group in trials[trials["model"] == model].groupby(["kind", "status"]):
            color = "C0" if kind == "random" else "C1"
            face = color if status == "finished" else "none"
            style = {
                "marker": _KINDS[kind],
                "facecolor": face,
                "edgecolor": color,
                "label": f"{kind}, {status}",
            }
            axes.scatter(group[name], scale * group[quantity], 24, linewidth=1, **style)
        axes.grid(axis="y")
        if scale == 100:
            stretch_accuracy(axes)
        if column == 0:
            axes.set_ylabel(f"{model_name(model)}\n{quantities[quantity]}")
        if row == len(rows) - 1:
            axes.set_xlabel(_SEARCHED[name])
    labels = {
        label: handle
        for axes in figure.axes
        for handle, label in zip(*axes.get_legend_handles_labels(), strict=True)
    }
    figure.legend(labels.values(), labels.keys(), loc="outside lower center", ncols=4)
    return figure


def answer_shares(table: pd.DataFrame) -> Figure:
    """A bar for each row of `scnn.keywords.Learnt.words`: how much was right, refused and wrong."""
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
    """How sure a network was of its answers: a row of dots for each group, and where it begins to be.

    Args:
        groups: confidences in 0..1, by name.
        refuse: the confidence below which the answer is "not sure".
    """
    figure, axes = plt.subplots(figsize=(6.5, 0.9 + 0.38 * len(groups)))
    generator = np.random.default_rng(0)  # dots beside each other, not upon each other
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


# --- on a device ------------------------------------------------------------------------------------------


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
