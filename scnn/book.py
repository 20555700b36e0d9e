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
from scnn._terminal import until_closed
from scnn.files import atomic_write

STAND_IN = "espeak"
_START = 600  # seconds for a kernel to start in, on a machine that does much else
_ROWS = "SCNN_ROWS"  # environment variable: the file in which the page that is run leaves its trainings
QUICK_RUNS = Path("_build/runs")
PAPER_RUNS = Path("book/runs")
PICTURES = {"03_training": "fig-03-maps"}  # of the README and of previews
COMMITTED = (
    "This page was not run with the others of this book. What it shows is the committed run, at the paper's "
    "scale and on the paper's recordings."
)
NOTICE = (
    "This ran without FSDD, on the packaged stand-in corpus: digits spoken by the eSpeak NG synthesiser. "
    "Its numbers and figures show that everything works; they say nothing about human speech. "
    "Results about speech come from the Free Spoken Digit Dataset."
)


# --- what a notebook calls --------------------------------------------------------------------------------


def begin(corpus: str, seed: int) -> None:
    """Check a page's parameters, seed torch, set the figure style, and tell of a stand-in corpus.

    corpus: name of a corpus (`scnn.data.CORPORA`) or a folder of class folders.
    seed: of torch's global generator; hand it to every other generator, split and loader too.

    In a notebook that papermill gave parameters, their names must be those of the notebook's own, and values
    that stand for one of the default's type become that: see `match_parameters`.

    Raises ValueError for a parameter that the notebook does not have or that is of another type, for a corpus
    that is neither known nor a folder, and for a seed below 0 or not whole.
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


def speakers_of(corpus: data.Corpus, words: Iterable[int], least: int) -> list[str]:
    """The speakers who say each of `words` (indices of its classes), sorted.

    Raises ValueError where they are fewer than `least`, with what a folder of one's own needs.
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

    Raises ValueError for a name that is not there, and for a value of another type. It names the parameter
    and lists the valid ones with their defaults.
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
    plain = isinstance(value, int | float | str) and not isinstance(value, bool)
    if isinstance(default, str) and plain:
        return str(value)
    if isinstance(default, float) and plain:
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
    cells = shell.user_ns.get("In", []) if shell is not None else []  # the last one is running
    if len(cells) < 3 or not cells[-2].startswith("# Parameters\n"):
        return {}
    names = [target.id for one in ast.parse(cells[-2]).body for target in one.targets]
    given = match_parameters(_literals(cells[-3]), {name: shell.user_ns[name] for name in names})
    shell.user_ns.update(given)
    return given


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
                start_timeout=_START,
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
        except RuntimeError as error:  # of one that did not start
            failure = f"no kernel: {error}"
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
    quick: render the run of `make book` in `_build/runs` rather than the committed runs of `book/runs`. Pages
        that are not there are those of `book/runs`, and say so.

    Raises FileNotFoundError, which says what to do, where there is nothing to render.
    """
    wanted = root / (QUICK_RUNS if quick else PAPER_RUNS)
    if not any(wanted.glob("*.ipynb")):
        raise FileNotFoundError(
            f"{wanted} holds no page that was run: run the pages first (python -m scnn.book run), or render "
            "the committed runs (python -m scnn.book render --paper)"
        )
    source = root
    if quick:
        source = root / "_build" / "quick"
        shutil.rmtree(source, ignore_errors=True)
        shutil.copytree(root / "book", source / "book")
        committed = {path.name for path in (source / PAPER_RUNS).glob("*.ipynb")}
        shutil.copytree(wanted, source / PAPER_RUNS, dirs_exist_ok=True)
        if left := sorted(committed - {path.name for path in wanted.glob("*.ipynb")}):
            print(f"not run here, so shown as they were committed: {', '.join(left)}", flush=True)
        for name in left:
            _mark_committed(source / PAPER_RUNS / name)
        for name in ("_config.yml", "_toc.yml"):
            shutil.copy(root / name, source)
    # Sphinx would keep pages that it thinks unchanged: their glued numbers would be old, their warnings lost.
    for name in ("html", ".doctrees"):
        shutil.rmtree(root / "_build" / name, ignore_errors=True)
    command = Path(sys.executable).with_name("jupyter-book")
    return subprocess.run(
        [command, "build", source, "--path-output", root, "-W", "-n", "--keep-going"]
    ).returncode


def _mark_committed(path: Path) -> None:
    """Say below a page's title that it is the committed run, among pages that were run here."""
    import nbformat

    page = nbformat.read(path, as_version=4)
    note = nbformat.v4.new_markdown_cell(f":::{{note}}\n{COMMITTED}\n:::")
    page.cells.insert(1, note)
    nbformat.write(page, path)


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

    from_file = _yaml_file(arguments.file) if getattr(arguments, "file", None) else {}
    if arguments.command == "store":
        wanted, target = {}, Path("notebooks")
    elif arguments.paper:
        wanted, target = _yaml_file(root / "notebooks" / "paper.yaml"), PAPER_RUNS
        if unknown := set(wanted) - {path.stem for path in notebooks(root)}:
            raise ValueError(f"notebooks/paper.yaml names no notebook: {', '.join(sorted(unknown))}")
    else:
        given = from_file | dict(arguments.parameter)
        corpus = arguments.corpus or given.get("corpus") or data.available()
        if corpus == STAND_IN:
            print("!" * 80, textwrap.fill(f"Stand-in corpus. {NOTICE}", 80), "!" * 80, sep="\n", flush=True)
        wanted, target = {path.stem: {"corpus": corpus} for path in notebooks(root)}, QUICK_RUNS
    jobs = []
    for source in notebooks(root, arguments.names):
        try:
            defaults = parameters(nbformat.read(source, as_version=4))
            values = dict(wanted.get(source.stem) or {}) | from_file
            if arguments.command == "run":
                values |= {name: _read(name, text, defaults.get(name)) for name, text in arguments.parameter}
            values = match_parameters(defaults, values)
        except ValueError as error:
            raise ValueError(f"{source}: {error}") from None
        jobs.append(Job(source, root / target / source.name, values))
    return jobs


def _yaml_file(path: Path) -> dict[str, Any]:
    """Names and values in a file; ValueError, with the line, for one that does not hold that."""
    import yaml

    try:
        found = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ValueError(f"{path} cannot be read as YAML ({_why(error)})") from None
    if not isinstance(found, dict) or not all(isinstance(name, str) for name in found):
        raise ValueError(f"{path} does not hold lines of the form name: value")
    return found


def _read(name: str, text: str, default: object) -> object:
    """The value that `text` on the command line is: text where the default is, and YAML otherwise."""
    import yaml

    if isinstance(default, str):
        return text
    texts = isinstance(default, list) and default and isinstance(default[0], str)
    try:
        return yaml.load(text, yaml.BaseLoader if texts else yaml.SafeLoader)
    except yaml.YAMLError as error:
        raise ValueError(f"{name} = {text!r} cannot be read as YAML ({_why(error)})") from None


def _why(error: Exception) -> str:
    """The reason of an error of YAML, and where it is, in one line."""
    mark = getattr(error, "problem_mark", None)
    where = f", line {mark.line + 1}, column {mark.column + 1}" if mark else ""
    return f"{getattr(error, 'problem', None) or ' '.join(str(error).split())}{where}"


def main(arguments: list[str] | None = None, root: Path = Path()) -> int:
    """The command line; returns the exit status."""
    return until_closed(lambda: _main(arguments, root))


def _main(arguments: list[str] | None, root: Path) -> int:
    # A kernel of the reader's own that is also called python3 must not run our notebooks.
    os.environ.pop("JUPYTER_PATH", None)
    os.environ["JUPYTER_PREFER_ENV_PATH"] = "1"
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
    run_command.add_argument(
        "-f",
        "--file",
        type=Path,
        metavar="FILE",
        help="a YAML file of parameters, a line NAME: VALUE for each",
    )
    store_command = commands.add_parser("store", help="execute notebooks in place, with their defaults")
    for command in (run_command, store_command):
        command.add_argument("names", nargs="*", help="notebooks by the start of their names (default: all)")
    render_command = commands.add_parser("render", help="render the site to _build/html")
    render_command.add_argument(
        "--paper", action="store_true", help=f"from the committed runs of {PAPER_RUNS}"
    )
    chosen = parser.parse_args(arguments)
    try:
        if chosen.command == "render":
            return render(root, quick=not chosen.paper)
        failures = run(_jobs(root, chosen), root / "_build" / "running")
        if chosen.command == "run" and chosen.paper:
            save_pictures(root)
    except BrokenPipeError:
        raise
    except (ValueError, OSError) as error:
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
