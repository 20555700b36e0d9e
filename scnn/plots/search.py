"""The figures of pages 06 and 07: one parameter at a time, and all of them at once."""

from __future__ import annotations

import itertools
from collections.abc import Mapping

import matplotlib.pyplot as plt
import pandas as pd
from matplotlib.figure import Figure

from scnn.plots.common import MODEL_COLORS, model_name, stretch_accuracy


def sweeps(
    ours: pd.DataFrame,
    paper: pd.DataFrame,
    columns: Mapping[str, str],
    names: Mapping[str, str],
    accuracy: bool = False,
) -> Figure:
    """Draw sweeps of one parameter at a time: a row of panels for each model, a column for each parameter.

    The values of a parameter are always evenly spaced.

    Args:
        ours: indexed by model, parameter and value; `n`, and for each of `columns` the mean and `NAME_sd`.
        paper: single trainings, indexed in the same way; it may have only some of `columns`. Drawn hollow.
        columns: columns to draw, with their labels.
        names: parameters, with their labels.
        accuracy: whether the columns are accuracies in %; these are drawn with `stretch_accuracy`.
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
            places = [float(values.index(value)) for value in measured.index]
            color = gray or MODEL_COLORS[model]
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


_SEARCHED = {"beta": "beta", "num_steps": "time steps $T$", "threshold": "threshold"}
_KINDS = {"random": "o", "tpe": "^"}


def search_space(trials: pd.DataFrame) -> Figure:
    """Draw the trials of searches in 3D parameter space, coloured by accuracy, as in the paper.

    Args:
        trials: a row for each, with `model`, `kind`, `beta`, `num_steps`, `threshold` and `accuracy` (0..1).
    """
    groups = list(trials.groupby(["model", "kind"], sort=False))
    limits = trials[list(_SEARCHED)].agg(["min", "max"])  # the same for all panels
    rows = -(-len(groups) // 2)
    figure = plt.figure(figsize=(8, 3.6 * rows))
    for place, ((model, kind), group) in enumerate(groups, start=1):
        axes = figure.add_subplot(rows, 2, place, projection="3d")
        axes.patch.set_alpha(0)  # the last label extends into the neighbouring panel
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
        trials: as for `search_space`, and with `sparsity_all` (0..1) and `status`; trials that were stopped
            early are hollow.
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
