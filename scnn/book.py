"""The pages: what a notebook calls in its first cells, and papermill and jupyter-book over all of them.

A page checks in its first cells what it was given (`begin`, `check`, `check_each`). `run` executes every
notebook through papermill and `render` makes the site. At the command line: `python -m scnn.book --help`.
"""

from __future__ import annotations

import argparse
import ast
import base64
import hashlib
import json
import os
import shutil
import subprocess
import sys
import textwrap
import time
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import pandas as pd
import torch

from scnn import data
from scnn.files import atomic_write

STAND_IN = "espeak"
_ROWS = "SCNN_ROWS"  # environment variable: the file in which the page that is run leaves its trainings
QUICK_RUNS = Path("_build/runs")
PAPER_RUNS = Path("book/runs")
PICTURES = {"01_features": "fig-01-steps", "03_training": "fig-03-maps"}  # of the README and the landing page
NOTICE = (
    "This ran without FSDD, on the packaged stand-in corpus: digits spoken by the eSpeak NG synthesiser. "
    "Its numbers and figures show that everything works; they say nothing about human speech. "
    "Results about speech come from the Free Spoken Digit Dataset."
)


# --- what a notebook calls --------------------------------------------------------------------------------


def begin(corpus: str, seed: int) -> None:
    """Check a page's corpus and seed, seed torch, set the figure style, and tell of a stand-in corpus.

    corpus: name of a corpus (`scnn.data.CORPORA`) or a folder of class folders.
    seed: of torch's global generator; hand it to every other generator, split and loader too.

    Raises ValueError for a corpus that is neither known nor a folder, and for a seed below 0 or not whole.
    """
    if corpus not in data.CORPORA and not Path(corpus).is_dir():
        raise ValueError(
            f"corpus = {corpus!r} is not valid; valid: {_listed(data.CORPORA)}, or a folder of class folders"
        )
    check("seed", seed, range(2**31))
    torch.manual_seed(seed)
    plt.style.use(Path(__file__).with_name("scnn.mplstyle"))
    if corpus == STAND_IN:
        _show_notice()


@dataclass(frozen=True)
class Between:
    """The numbers from `low` to `high`, both included, as the valid values of a parameter."""

    low: float
    high: float

    def __contains__(self, value: object) -> bool:
        number = isinstance(value, int | float) and not isinstance(value, bool)
        return number and self.low <= value <= self.high

    def __str__(self) -> str:
        return f"numbers from {self.low} to {self.high}"


def check(name: str, value: object, valid: Between | range | Collection) -> None:
    """Stop with the list of valid values unless `value` is one of them.

    name, value: the parameter's, for the message.
    valid: a `Between` for numbers, a `range` for whole numbers, or a collection of the values themselves.

    Raises ValueError, which names the parameter and lists what is valid.
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

    Raises ValueError where it is not a list, is empty, or holds a value that is not valid.
    """
    if not isinstance(values, list) or not values:
        raise ValueError(
            f"{name} = {values!r} is not valid; valid: a list of one or more of {_listed(valid)}"
        )
    for value in values:
        check(f"one of {name}", value, valid)


def keep(table: pd.DataFrame) -> None:
    """Hand over the trainings that a page's numbers come from (`scnn.experiment.table`).

    `run` puts them, with the page's name, into `records.csv` beside the executed pages. In a notebook that
    is run by other means nothing happens.
    """
    if path := os.environ.get(_ROWS):
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

    notebook: as nbformat reads it.

    Raises ValueError unless there is exactly one such cell, which holds nothing but `name = literal`.
    """
    cells = [cell for cell in notebook["cells"] if "parameters" in cell["metadata"].get("tags", [])]
    if len(cells) != 1:
        raise ValueError(f"a notebook has one cell tagged 'parameters', not {len(cells)}")
    found = {}
    for statement in ast.parse(cells[0]["source"]).body:
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


def match_parameters(defaults: Mapping[str, Any], wanted: Mapping[str, Any]) -> None:
    """Refuse parameters that a notebook does not have, or that are of another type than its default.

    Raises ValueError, which names the parameter and lists the valid ones with their defaults.
    """
    valid = ", ".join(f"{name} = {value!r}" for name, value in defaults.items())
    for name, value in wanted.items():
        if name not in defaults:
            raise ValueError(f"no parameter {name}; valid: {valid}")
        if _type(value) != _type(defaults[name]):
            raise ValueError(
                f"{name} = {value!r} is {_type(value)}, and the notebook's {name} = {defaults[name]!r} is "
                f"{_type(defaults[name])} (in YAML, 1e-3 is text: write 1.0e-3); valid: {valid}"
            )


def _type(value: object) -> str:
    if isinstance(value, list):
        return "list of " + "/".join(sorted({_type(one) for one in value}))
    return type(value).__name__


# --- papermill over the notebooks -------------------------------------------------------------------------


@dataclass(frozen=True)
class Job:
    """One notebook to execute: where it is, where its run goes, and with which parameters."""

    source: Path
    target: Path
    parameters: dict[str, Any]


def run(jobs: Iterable[Job], scratch: Path) -> list[str]:
    """Execute notebooks, with a line for each; one that fails does not stop the others.

    A notebook is not run again where its cells, its parameters, the corpus and the package are those of the
    run already at its target. A run moves to its target when complete, so an interrupt keeps what finished.

    jobs: the notebooks.
    scratch: folder for the notebook that is running; one that fails stays there.

    Returns one message for each notebook that failed: notebook, cell and error.
    """
    import nbformat  # here, so that reading a page's own cells does not ask for the [book] extra
    from nbclient.exceptions import DeadKernelError
    from papermill import execute_notebook
    from papermill.exceptions import PapermillExecutionError

    # Without ipywidgets, which no page uses, tqdm would write this into the first cell of each.
    os.environ["PYTHONWARNINGS"] = "ignore:IProgress not found"
    jobs, failures, watched = list(jobs), [], sys.stderr.isatty()
    package = _package_digest()
    for number, job in enumerate(jobs, start=1):
        line = f"[{number}/{len(jobs)}] {job.source.stem}"
        started = time.monotonic()
        source = nbformat.read(job.source, as_version=4)
        in_place = job.target == job.source
        digest = None if in_place else _digest(source, job.parameters, package)
        if digest and job.target.exists():
            if nbformat.read(job.target, as_version=4).metadata.get("scnn") == digest:
                print(f"{line}: unchanged", flush=True)
                continue
        if not watched:
            print(f"{line}: running", flush=True)
        partial = scratch / job.source.name
        partial.parent.mkdir(parents=True, exist_ok=True)
        rows = partial.with_suffix(".csv").absolute()
        rows.unlink(missing_ok=True)
        os.environ[_ROWS] = str(rows)
        failure = None
        try:
            execute_notebook(
                job.source,
                partial,
                job.parameters,
                progress_bar={"desc": line, "leave": False} if watched else False,
                extra_arguments=[
                    "--log-level=ERROR"
                ],  # the kernel warns of plain TCP, and it is this machine's own
            )
        except PapermillExecutionError as error:
            first_line = error.source.strip().partition("\n")[0]
            failure = f"cell [{error.exec_count}] ({first_line}): {error.ename}: {error.evalue}"
        except DeadKernelError as error:
            failure = f"the kernel died: {error}"
        print(f"{line}: {'failed' if failure else 'ok'}, {time.monotonic() - started:.1f} s", flush=True)
        if failure:
            failures.append(f"{job.source}, {failure}\n    The run up to there: {partial}")
            continue
        executed = nbformat.read(partial, as_version=4)
        _tidy(executed, source)
        if digest:
            executed.metadata["scnn"] = digest
        nbformat.write(executed, partial)
        job.target.parent.mkdir(parents=True, exist_ok=True)
        if not in_place:
            _merge(rows, job.target)
        os.replace(partial, job.target)
    return failures


def _merge(rows: Path, target: Path) -> None:
    """Put a page's trainings in the place of its earlier ones in `records.csv`, beside the page."""
    records, parts = target.with_name("records.csv"), []
    if records.exists():
        earlier = pd.read_csv(records)
        parts.append(earlier[earlier["page"] != target.stem])
    if rows.exists():
        new = pd.read_csv(rows)
        new.insert(0, "page", target.stem)
        parts.append(new)
    parts = [part for part in parts if len(part)]
    if parts:
        with atomic_write(records) as file:
            pd.concat(parts).sort_values("page", kind="stable").to_csv(file, index=False)


def _tidy(executed: Mapping[str, Any], source: Mapping[str, Any]) -> None:
    """Take out of a run what another machine or another minute would write differently."""
    metadata = {cell["id"]: cell["metadata"] for cell in source["cells"]}
    for cell in executed["cells"]:
        if cell["id"] in metadata:
            cell["metadata"] = metadata[cell["id"]]
        else:
            cell["id"] = "injected-parameters"
            cell["metadata"] = {"tags": ["injected-parameters"]}
    executed["metadata"].clear()
    executed["metadata"].update(
        kernelspec={"display_name": "Python 3", "language": "python", "name": "python3"},
        language_info={"name": "python"},
    )


def _package_digest() -> str:
    """Digest of the package's own files, which a run depends on as much as on its notebook."""
    package = Path(__file__).parent
    digest = hashlib.sha256()
    for path in sorted(package.rglob("*")):
        if path.is_file() and "__pycache__" not in path.parts:
            digest.update(f"{path.relative_to(package)}\0".encode())
            digest.update(hashlib.sha256(path.read_bytes()).digest())
    return digest.hexdigest()


def _digest(notebook: Mapping[str, Any], wanted: Mapping[str, Any], package: str) -> str:
    values = parameters(notebook) | wanted
    corpus = values.get("corpus")
    basis = {
        "cells": [
            [cell["id"], cell["cell_type"], cell["source"], cell["metadata"]] for cell in notebook["cells"]
        ],
        "parameters": values,
        "corpus": data.fingerprint(corpus) if corpus else None,
        "package": package,
    }
    return hashlib.sha256(json.dumps(basis, sort_keys=True, default=str).encode()).hexdigest()


# --- the command line: python -m scnn.book ----------------------------------------------------------------


def notebooks(root: Path, names: Iterable[str] = ()) -> list[Path]:
    """The notebooks of the project in `root`, or those whose file names start with one of `names`.

    Raises FileNotFoundError where `root` has no notebook; ValueError, which lists them, if a name fits none.
    """
    found = sorted((root / "notebooks").glob("*.ipynb"))
    if not found:
        raise FileNotFoundError(f"no notebooks in {root / 'notebooks'}: run this in a clone of the project")
    for name in names:
        if not any(path.stem.startswith(name) for path in found):
            raise ValueError(f"no notebook {name!r}; valid: {', '.join(path.stem for path in found)}")
    return [path for path in found if not names or path.stem.startswith(tuple(names))]


def render(root: Path, quick: bool) -> int:
    """Render the site to `_build/html` with jupyter-book, warnings being errors, and return its exit status.

    root: the project.
    quick: render the run of `make book` in `_build/runs` rather than the committed runs of `book/runs`.
    """
    source = root
    if quick:
        source = root / "_build" / "quick"
        shutil.rmtree(source, ignore_errors=True)
        shutil.copytree(root / "book", source / "book", ignore=shutil.ignore_patterns("runs"))
        shutil.copytree(root / QUICK_RUNS, source / PAPER_RUNS)
        for name in ("_config.yml", "_toc.yml"):
            shutil.copy(root / name, source)
    # Sphinx would keep pages that it thinks unchanged: their glued numbers would be old, their warnings lost.
    for name in ("html", ".doctrees"):
        shutil.rmtree(root / "_build" / name, ignore_errors=True)
    command = Path(sys.executable).with_name("jupyter-book")
    return subprocess.run(
        [command, "build", source, "--path-output", root, "-W", "-n", "--keep-going"]
    ).returncode


def save_pictures(root: Path) -> None:
    """Copy the `PICTURES` of the committed runs to `book/_static/<name of the figure>.png`."""
    for page, name in PICTURES.items():
        for cell in json.loads((root / PAPER_RUNS / f"{page}.ipynb").read_text(encoding="utf-8"))["cells"]:
            if cell["metadata"].get("mystnb", {}).get("figure", {}).get("name") == name:
                image = cell["outputs"][0]["data"]["image/png"]
                (root / "book" / "_static" / f"{name}.png").write_bytes(base64.b64decode(image))


def _jobs(root: Path, arguments: argparse.Namespace) -> list[Job]:
    """What `run` or `store` is to execute; every parameter is checked before anything runs."""
    import nbformat
    import yaml

    if arguments.command == "store":
        wanted, target = {}, Path("notebooks")
    elif arguments.paper:
        wanted, target = yaml.safe_load((root / "notebooks" / "paper.yaml").read_text()), PAPER_RUNS
        if unknown := set(wanted) - {path.stem for path in notebooks(root)}:
            raise ValueError(f"notebooks/paper.yaml names no notebook: {', '.join(sorted(unknown))}")
    else:
        corpus = arguments.corpus or data.available()
        if corpus == STAND_IN:
            print("!" * 80, textwrap.fill(f"Stand-in corpus. {NOTICE}", 80), "!" * 80, sep="\n", flush=True)
        wanted, target = {path.stem: {"corpus": corpus} for path in notebooks(root)}, QUICK_RUNS
    jobs = []
    for source in notebooks(root, arguments.names):
        values = dict(wanted.get(source.stem) or {})
        if arguments.command == "run":
            values |= {name: yaml.safe_load(value) for name, value in arguments.parameter}
        try:
            match_parameters(parameters(nbformat.read(source, as_version=4)), values)
        except ValueError as error:
            raise ValueError(f"{source}: {error}") from None
        jobs.append(Job(source, root / target / source.name, values))
    return jobs


def main(arguments: list[str] | None = None, root: Path = Path()) -> int:
    """The command line; returns the exit status."""
    parser = argparse.ArgumentParser(prog="python -m scnn.book", description="Run and render the pages.")
    commands = parser.add_subparsers(dest="command", required=True)
    run_command = commands.add_parser(
        "run", help=f"execute the notebooks through papermill into {QUICK_RUNS}"
    )
    run_command.add_argument("--paper", action="store_true", help=f"at the paper's scale, into {PAPER_RUNS}")
    run_command.add_argument(
        "--corpus", help="the corpus (default: FSDD 1.0.8 where it can be had, else espeak)"
    )
    run_command.add_argument(
        "-p",
        "--parameter",
        nargs=2,
        action="append",
        default=[],
        metavar=("NAME", "VALUE"),
        help="one parameter",
    )
    store_command = commands.add_parser("store", help="execute notebooks in place, with their defaults")
    for command in (run_command, store_command):
        command.add_argument("names", nargs="*", help="notebooks by the start of their names (default: all)")
    render_command = commands.add_parser("render", help="render the site to _build/html")
    render_command.add_argument(
        "--paper", action="store_true", help=f"from the committed runs of {PAPER_RUNS}"
    )
    chosen = parser.parse_args(arguments)
    if chosen.command == "render":
        return render(root, quick=not chosen.paper)
    try:
        failures = run(_jobs(root, chosen), root / "_build" / "running")
        if chosen.command == "run" and chosen.paper:
            save_pictures(root)
    except (ValueError, FileNotFoundError) as error:
        print(error, file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("\ninterrupted; the notebooks that finished are kept, and not run again", file=sys.stderr)
        return 130
    if failures:
        print("failed:", *failures, sep="\n  ", file=sys.stderr)
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
