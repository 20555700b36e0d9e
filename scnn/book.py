"""What a notebook calls: it checks its parameters in its first cells, and hands over its trainings.

`begin`, `check` and `check_each` stop a page on a wrong value, before any work. What runs the notebooks and
renders them is no part of the package: see `book/` in a clone of the project.
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
ROWS = "SCNN_ROWS"  # environment variable: the file in which the page that is run leaves its trainings
NOTICE = (
    "This ran without FSDD, on the packaged stand-in corpus: digits spoken by the eSpeak NG synthesiser. "
    "Its numbers and figures show that everything works; they say nothing about human speech. "
    "Results about speech come from the Free Spoken Digit Dataset."
)


# --- what a notebook calls --------------------------------------------------------------------------------


def begin(corpus: str, seed: int) -> None:
    """Check a page's parameters, seed torch, set the figure style, and tell of a stand-in corpus.

    In a notebook that papermill gave parameters, their names must be those of the notebook's own, and values
    that stand for one of the default's type become that: see `match_parameters`.

    Args:
        corpus: name of a corpus (`scnn.data.CORPORA`) or a folder of class folders.
        seed: of torch's global generator; hand it to every other generator, split and loader too.

    Raises:
        ValueError: the notebook does not have a parameter, or has it with another type; the corpus is neither
            known nor a folder; the seed is below 0 or not whole.
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
    """The numbers from `low` to `high`, both included, as the valid values of a parameter."""

    low: float
    high: float

    def __contains__(self, value: object) -> bool:
        if not isinstance(value, int | float) or isinstance(value, bool):
            return False
        return self.low <= value <= self.high

    def __str__(self) -> str:
        return f"numbers from {self.low} to {self.high}"


def check(name: str, value: object, valid: Between | range | Collection) -> None:
    """Stop with the list of valid values unless `value` is one of them.

    Args:
        name: the parameter's, for the message.
        value: the parameter's.
        valid: a `Between` for numbers, a `range` for whole numbers, or a collection of the values themselves.

    Raises:
        ValueError: the value is not valid; the message names the parameter and lists what is.

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
    """`check` for a parameter that holds a list: at least one value, each of them valid.

    Raises:
        ValueError: it is not a list, is empty, or holds a value that is not valid.
    """
    if not isinstance(values, list) or not values:
        raise ValueError(
            f"{name} = {values!r} is not valid; valid: a list of one or more of {_listed(valid)}"
        )
    for value in values:
        check(f"one of {name}", value, valid)


def speakers_of(corpus: data.Corpus, words: Iterable[int], least: int) -> list[str]:
    """The speakers who say each of `words` (indices of its classes), sorted.

    Raises:
        ValueError: they are fewer than `least`; the message says what a folder of one's own needs.
    """
    said = {str(speaker): set(corpus.labels[corpus.speakers == speaker]) for speaker in set(corpus.speakers)}
    found = sorted(speaker for speaker in said if set(words) <= said[speaker])
    if len(found) < least:
        raise ValueError(
            f"corpus = {corpus.name!r}: this page compares voices, and needs {least} speakers or more who "
            f"say the first ten words; found {', '.join(found) or 'none'} of the speakers "
            f"{', '.join(sorted(said)[:10])}. A folder of class folders names them in its files: "
            "SPEAKER_nohash_TAKE.wav"
        )
    return found


def save_trainings(table: pd.DataFrame) -> None:
    """Hand over the trainings that a page's numbers come from (`scnn.experiment.table`).

    `python -m book run` puts them, with the page's name, into `records.csv` beside the executed pages. In a
    notebook that is run by other means nothing happens.
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
    from IPython.display import display  # only notebooks get here, and they bring IPython

    # The class names are the site's own warning box; the style serves where a notebook is opened elsewhere.
    box = (
        '<div class="admonition warning" style="border-left: 4px solid #d95f02; padding: 0.4em 1em">'
        f'<p class="admonition-title">Stand-in corpus</p><p>{NOTICE}</p></div>'
    )
    display({"text/html": box, "text/plain": f"Stand-in corpus. {NOTICE}"}, raw=True)


# --- a notebook's parameters ------------------------------------------------------------------------------


def parameters(notebook: Mapping[str, Any]) -> dict[str, Any]:
    """The names and default values in the cell tagged `parameters`.

    Args:
        notebook: as nbformat reads it.

    Raises:
        ValueError: there is not exactly one such cell, or it holds anything but `name = literal`.
    """
    cells = [cell for cell in notebook["cells"] if "parameters" in cell["metadata"].get("tags", [])]
    if len(cells) != 1:
        raise ValueError(f"a notebook has one cell tagged 'parameters', not {len(cells)}")
    return _literals(cells[0]["source"])


def _literals(source: str) -> dict[str, Any]:
    found = {}
    for statement in ast.parse(source).body:
        match statement:
            case ast.Assign(targets=[ast.Name(id=name)], value=value):
                try:
                    found[name] = ast.literal_eval(value)
                except ValueError:
                    raise ValueError(f"the parameter {name} is not a literal: {ast.unparse(value)}") from None
            case _:
                raise ValueError(
                    f"the parameters cell holds more than name = literal: {ast.unparse(statement)}"
                )
    return found


def match_parameters(defaults: Mapping[str, Any], wanted: Mapping[str, Any]) -> dict[str, Any]:
    """The parameters `wanted` of a notebook, as values of the types of its `defaults`.

    A whole number serves where the default has a point, and so does text that says a number, as YAML reads
    1e-3; a number serves where the default is text.

    Raises:
        ValueError: there is no such name, or the value is of another type; the message names the
            parameter and lists the valid ones with their defaults.
    """
    found = {}
    valid = ", ".join(f"{name} = {value!r}" for name, value in defaults.items())
    for name, value in wanted.items():
        if name not in defaults:
            raise ValueError(f"no parameter {name}; valid: {valid}")
        found[name] = fitted = _fit(value, defaults[name])
        if _type(fitted) != _type(defaults[name]):
            raise ValueError(
                f"{name} = {value!r} is {_type(value)}, and the notebook's {name} = {defaults[name]!r} is "
                f"{_type(defaults[name])}{_hint(name, value, defaults[name])}; valid: {valid}"
            )
    return found


def _fit(value: object, default: object) -> object:
    """`value`, or what it stands for where `default` is of another type."""
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
    """What may have gone wrong on the way from a command or a file."""
    if isinstance(default, str) and (isinstance(value, bool) or value is None):
        return f" (yes, no, on, off, true, false and null are no text in YAML: quote them, or use -r {name})"
    if isinstance(default, list) and not isinstance(value, list):
        return f" (a list is written {name}: {json.dumps(default)} in a file for -f)"
    return ""


def _type(value: object) -> str:
    if isinstance(value, list):
        return "list of " + "/".join(sorted({_type(one) for one in value}))
    return type(value).__name__


def _match_injected() -> dict[str, Any]:
    """The parameters that papermill gave the notebook that is running, as `match_parameters` has them.

    Papermill itself warns of a name that the notebook does not have, and goes on without it.
    """
    ipython = sys.modules.get("IPython")  # where nobody imported it, no notebook is running
    shell = ipython.get_ipython() if ipython else None
    if shell is None:
        return {}
    cells = shell.user_ns.get("In", [])  # the last one is running
    if len(cells) < 3 or not cells[-2].startswith("# Parameters\n"):
        return {}
    names = [target.id for one in ast.parse(cells[-2]).body for target in one.targets]
    given = match_parameters(_literals(cells[-3]), {name: shell.user_ns[name] for name in names})
    shell.user_ns.update(given)
    return given
