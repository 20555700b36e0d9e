"""Shared by the figures of several pages: colours, names, axes, images, and audio players."""

from __future__ import annotations

import io
import sys
from collections.abc import Mapping
from html import escape
from typing import TYPE_CHECKING

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import Normalize, SymLogNorm
from matplotlib.figure import Figure
from matplotlib.image import AxesImage
from matplotlib.patches import Rectangle
from numpy.typing import ArrayLike
from PIL import Image, ImageChops, ImageStat

if TYPE_CHECKING:
    from IPython.display import HTML


_DPI = 200
_COLOURS = 32, 64  # palette sizes to try: fewer colours make a smaller file
_UNSEEN = 0.35  # mean change of the pixels, of 255, that is too small to see


def crisp_figures() -> None:
    """Make this notebook store its figures as PNGs with 200 dpi and few colours, displayed at half size.

    Does nothing outside a notebook.
    """
    ipython = sys.modules.get("IPython")  # if it was never imported, no notebook is running
    shell = ipython.get_ipython() if ipython else None
    if shell is not None and hasattr(shell, "display_formatter"):
        plt.switch_backend(plt.get_backend())  # load it first, as loading registers another PNG formatter
        shell.display_formatter.formatters["image/png"].for_type(Figure, crisp_png)


def crisp_png(figure: Figure) -> tuple[bytes, dict[str, int]]:
    """A figure as a PNG on white, and the `width` and `height` in pixels at which to display it."""
    drawn, written = io.BytesIO(), io.BytesIO()
    figure.savefig(drawn, format="png", dpi=_DPI, facecolor="white", bbox_inches="tight")
    picture = Image.open(drawn).convert("RGB")
    for colours in _COLOURS:
        # Maximum coverage keeps rare colours, such as those of spikes; a median cut would blend them.
        few = picture.quantize(colours, Image.Quantize.MAXCOVERAGE, kmeans=1, dither=Image.Dither.NONE)
        change = ImageStat.Stat(ImageChops.difference(picture, few.convert("RGB"))).mean
        if max(change) < _UNSEEN:
            break
    few.save(written, format="png", optimize=True)
    return written.getvalue(), {"width": picture.width // 2, "height": picture.height // 2}


MODEL_COLORS = {"A": "C0", "B": "C1", "C": "C2", "CNN": "C6"}  # the same on every page


def model_name(model: str) -> str:
    """The name of a model of the zoo in titles."""
    return "control CNN" if model == "CNN" else f"Model {model}"


def signed(values: ArrayLike, linear: float | None = None) -> Normalize:
    """A symmetric colour scale around 0; logarithmic beyond `linear`, if given."""
    largest = float(np.abs(values).max())
    if linear is None:
        return Normalize(-largest, largest)
    return SymLogNorm(linear, vmin=-largest, vmax=largest)


def feature_image(axes: Axes, image: ArrayLike, window: ArrayLike, colors: Normalize) -> AxesImage:
    """Draw an image as the network receives it, first row at the bottom, with a frame around the data.

    Args:
        axes: where to draw.
        image: `[height, width]`; 0, the value of the padding, is white.
        window: bool `[height, width]`, True where there is data.
        colors: from `signed`.

    Returns:
        The image, for a colour bar.
    """
    drawn = axes.imshow(np.asarray(image), origin="lower", cmap="RdBu_r", norm=colors)
    rows, columns = np.nonzero(np.asarray(window))
    corner = float(columns.min()) - 0.5, float(rows.min()) - 0.5
    width, height = float(np.ptp(columns)) + 1, float(np.ptp(rows)) + 1
    axes.add_patch(Rectangle(corner, width, height, fill=False, edgecolor="0.2", linewidth=0.8))
    axes.set(xticks=[], yticks=[])
    axes.spines[:].set_visible(True)
    axes.spines[:].set_color("0.7")
    return drawn


def stretch_accuracy(axes: Axes, which: str = "y") -> None:
    """Stretch an accuracy axis in % towards 100, where networks differ.

    An accuracy is placed at `-log10(101 - accuracy)`.

    Args:
        axes: the plot; the axis limits and ticks are also set.
        which: the axis, "x" or "y".
    """
    functions = lambda y: -np.log10(np.maximum(101 - y, 1e-6)), lambda z: 101 - 10.0 ** (-z)
    getattr(axes, f"set_{which}scale")("function", functions=functions)
    ticks = [0, 50, 80, 90, 95, 98, 100]
    axes.set(**{f"{which}lim": (-5, 100.25)})
    getattr(axes, f"set_{which}ticks")(ticks, [str(tick) for tick in ticks])


def named_players(sounds: Mapping[str, np.ndarray], sample_rate: int) -> HTML:
    """A table of audio players, one row for each named sound `[samples]`, without normalising the volume."""
    from IPython.display import HTML

    rows = (
        f"<tr><th>{escape(name)}</th>{player(each, sample_rate, name)}</tr>" for name, each in sounds.items()
    )
    return HTML(f"<table>{''.join(rows)}</table>")


def player(sound: np.ndarray, sample_rate: int, name: str) -> str:
    """A table cell that plays `sound` `[samples]`, without normalising the volume."""
    from IPython.display import Audio

    source = Audio(sound, rate=sample_rate, normalize=False).src_attr()
    return f'<td><audio controls style="width: 13em" title="{escape(name)}" src="{source}"></audio></td>'
