"""Functions that the notebooks call to check their parameters and to hand over their trainings.

`begin`, `check` and `check_each` stop a page on a wrong value before any work starts. The code that runs and
renders the notebooks is not part of the package: see `book/` in a clone of the project.
"""

from __future__ import annotations

import ast
import json
import os
import sys
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import pandas as pd
import torch

from scnn import data
from scnn.plots.common import crisp_figures

STAND_IN = "espeak"
ROWS = "SCNN_ROWS"  # environment variable: the file into which a running page writes its trainings
NOTICE = (
    "This ran without FSDD, on the packaged stand-in corpus: digits spoken by the eSpeak NG synthesiser. "
    "Its numbers and figures show that everything works; they say nothing about human speech. "
    "Results about speech come from the Free Spoken Digit Dataset."
)


# --- called by the notebooks ------------------------------------------------------------------------------


def begin(corpus: str, seed: int) -> None:
    """Check a page's parameters, seed torch, set the figure style, and show a notice for the stand-in corpus.

    Parameters injected by papermill must be among the notebook's own. Their values are converted to the types
    of the defaults: see `match_parameters`.

    Args:
        corpus: name of a corpus (`scnn.data.CORPORA`), or a folder of class folders.
        seed: seed of torch's global generator; pass it to every other generator, split and loader too.

    Raises:
        ValueError: an injected parameter is unknown or has the wrong type; the corpus is neither known nor a
            folder; or the seed is not a whole number of at least 0.
    """
    given = _match_injected()
    corpus, seed = given.get("corpus", corpus), given.get("seed", seed)
    known = isinstance(corpus, str) and (corpus in data.CORPORA or Path(corpus).expanduser().is_dir())
    if not known:
        raise ValueError(
            f"corpus = {corpus!r} is not valid; valid: {_listed(data.CORPORA)}, or a folder of class folders"
        )
    check("seed", seed, range(2**31))
    torch.manual_seed(seed)
    plt.style.use(Path(__file__).with_name("scnn.mplstyle"))
    crisp_figures()
    if corpus == STAND_IN:
        _show_notice()


@dataclass(frozen=True)
class Between:
    """Valid values of a parameter: the numbers from `low` to `high`, both included."""

    low: float
    high: float

    def __contains__(self, value: object) -> bool:
        if not isinstance(value, int | float) or isinstance(value, bool):
            return False
        return self.low <= value <= self.high

    def __str__(self) -> str:
        return f"numbers from {self.low} to {self.high}"


def check(name: str, value: object, valid: Between | range | Collection) -> None:
    """Check that `value` is valid.

    Args:
        name: name of the parameter, for the message.
        value: its value.
        valid: a `Between` for numbers, a `range` for whole numbers, or a collection of the valid values.

    Raises:
        ValueError: the value is not valid; the message names the parameter and lists the valid values.

    >>> check("beta", 1.5, Between(0.0, 1.0))
    Traceback (most recent call last):
        ...
    ValueError: beta = 1.5 is not valid; valid: numbers from 0.0 to 1.0
    """
    if isinstance(valid, Between):
        fits = value in valid
    elif isinstance(valid, range):
        fits = type(value) is int and value in valid
    else:
        fits = any(type(value) is type(one) and value == one for one in valid)
    if not fits:
        raise ValueError(f"{name} = {value!r} is not valid; valid: {_listed(valid)}")


def check_each(name: str, values: object, valid: Between | range | Collection) -> None:
    """Check that a parameter is a list of at least one value, all of them valid as in `check`.

    Raises:
        ValueError: it is not a list, is empty, or contains a value that is not valid.
    """
    if not isinstance(values, list) or not values:
        raise ValueError(
            f"{name} = {values!r} is not valid; valid: a list of one or more of {_listed(valid)}"
        )
    for value in values:
        check(f"one of {name}", value, valid)


def speakers_of(corpus: data.Corpus, words: Iterable[int], least: int) -> list[str]:
    """The speakers who say all of `words` (indices into the corpus's classes), sorted.

    Raises:
        ValueError: there are fewer than `least`; the message says how a folder of recordings names speakers.
    """
    spoken = {
        str(speaker): set(corpus.labels[corpus.speakers == speaker]) for speaker in set(corpus.speakers)
    }
    complete = sorted(speaker for speaker in spoken if set(words) <= spoken[speaker])
    if len(complete) < least:
        raise ValueError(
            f"corpus = {corpus.name!r}: this page compares voices, and needs at least {least} speakers who "
            f"say the first ten words; found {', '.join(complete) or 'none'} among the speakers "
            f"{', '.join(sorted(spoken)[:10])}. In a folder of class folders, file names give the speaker: "
            "SPEAKER_nohash_TAKE.wav"
        )
    return complete


def save_trainings(table: pd.DataFrame) -> None:
    """Hand over the trainings behind a page's numbers, as a table from `scnn.experiment.table`.

    `python -m book run` adds them, with the page's name, to `records.csv` beside the executed pages. In a
    notebook run by other means, this does nothing.
    """
    if path := os.environ.get(ROWS):
        table.to_csv(path, index=False)


def _listed(valid: Between | range | Collection) -> str:
    if isinstance(valid, Between):
        return str(valid)
    if isinstance(valid, range):
        return f"whole numbers from {valid[0]} to {valid[-1]}"
    return ", ".join(repr(one) for one in valid)


def _show_notice() -> None:
    from IPython.display import display  # only notebooks call this, and they have IPython

    # The classes give the site's warning box; the inline style is for notebooks opened elsewhere.
    box = (
        '<div class="admonition warning" style="border-left: 4px solid #d95f02; padding: 0.4em 1em">'
        f'<p class="admonition-title">Stand-in corpus</p><p>{NOTICE}</p></div>'
    )
    display({"text/html": box, "text/plain": f"Stand-in corpus. {NOTICE}"}, raw=True)


# --- a notebook's parameters ------------------------------------------------------------------------------


def parameters(notebook: Mapping[str, Any]) -> dict[str, Any]:
    """The names and default values in the cell tagged `parameters`.

    Args:
        notebook: as read by nbformat.

    Raises:
        ValueError: there is not exactly one such cell, or it contains anything but `name = literal`.
    """
    cells = [cell for cell in notebook["cells"] if "parameters" in cell["metadata"].get("tags", [])]
    if len(cells) != 1:
        raise ValueError(f"a notebook must have one cell tagged 'parameters', not {len(cells)}")
    return _literals(cells[0]["source"])


def _literals(source: str) -> dict[str, Any]:
    values = {}
    for statement in ast.parse(source).body:
        match statement:
            case ast.Assign(targets=[ast.Name(id=name)], value=value):
                try:
                    values[name] = ast.literal_eval(value)
                except ValueError:
                    raise ValueError(f"the parameter {name} is not a literal: {ast.unparse(value)}") from None
            case _:
                raise ValueError(
                    f"the parameters cell may contain only name = literal, not: {ast.unparse(statement)}"
                )
    return values


def match_parameters(defaults: Mapping[str, Any], wanted: Mapping[str, Any]) -> dict[str, Any]:
    """The parameters `wanted` for a notebook, converted to the types of its `defaults`.

    Where the default is a float, an int is converted, and so is text such as "1e-3", which YAML does not read
    as a number. Where the default is text, a number is converted.

    Raises:
        ValueError: a name is unknown, or its value has another type; the message names the parameter and
            lists the valid ones with their defaults.
    """
    matched = {}
    valid = ", ".join(f"{name} = {value!r}" for name, value in defaults.items())
    for name, value in wanted.items():
        if name not in defaults:
            raise ValueError(f"no parameter {name}; valid: {valid}")
        matched[name] = fitted = _fit(value, defaults[name])
        if _type(fitted) != _type(defaults[name]):
            raise ValueError(
                f"{name} = {value!r} is {_type(value)}, but the notebook's {name} = {defaults[name]!r} is "
                f"{_type(defaults[name])}{_hint(name, value, defaults[name])}; valid: {valid}"
            )
    return matched


def _fit(value: object, default: object) -> object:
    """`value` converted to the type of `default` if possible, else unchanged."""
    if isinstance(value, list) and isinstance(default, list) and default:
        return [_fit(one, default[0]) for one in value]
    if not isinstance(value, int | float | str) or isinstance(value, bool):
        return value
    if isinstance(default, str):
        return str(value)
    if isinstance(default, float):
        try:
            return float(value)
        except (ValueError, OverflowError):
            return value
    return value


def _hint(name: str, value: object, default: object) -> str:
    """The likely mistake in a command or a YAML file."""
    if isinstance(default, str) and (isinstance(value, bool) or value is None):
        return f" (yes, no, on, off, true, false and null are not text in YAML: quote them, or use -r {name})"
    if isinstance(default, list) and not isinstance(value, list):
        return f" (a list is written as {name}: {json.dumps(default)} in a file for -f)"
    return ""


def _type(value: object) -> str:
    if isinstance(value, list):
        return "list of " + "/".join(sorted({_type(one) for one in value}))
    return type(value).__name__


def _match_injected() -> dict[str, Any]:
    """The parameters that papermill injected into the running notebook, checked by `match_parameters`.

    Papermill itself only warns about an unknown name, and ignores it.
    """
    ipython = sys.modules.get("IPython")  # if it was never imported, no notebook is running
    shell = ipython.get_ipython() if ipython else None
    if shell is None:
        return {}
    cells = shell.user_ns.get("In", [])  # the last one is the running cell
    if len(cells) < 3 or not cells[-2].startswith("# Parameters\n"):
        return {}
    names = [target.id for one in ast.parse(cells[-2]).body for target in one.targets]
    given = match_parameters(_literals(cells[-3]), {name: shell.user_ns[name] for name in names})
    shell.user_ns.update(given)
    return given
