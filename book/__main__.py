"""Run the pages and render them: see `python -m book --help`, in a clone of the project."""

import argparse
import os
import sys
import textwrap
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import nbformat
import yaml

from book.rendering import PAPER_RUNS, QUICK_RUNS, render, save_pictures
from book.running import Job, run
from scnn import data
from scnn._terminal import until_closed
from scnn.book import NOTICE, STAND_IN, match_parameters, parameters


def notebooks(root: Path, names: Iterable[str] = ()) -> list[Path]:
    """The notebooks of the project in `root`, or those whose file names start with one of `names`.

    Raises:
        FileNotFoundError: `root` has no notebooks.
        ValueError: a name matches none; the message lists the valid ones.
    """
    found = sorted((root / "notebooks").glob("*.ipynb"))
    if not found:
        raise FileNotFoundError(f"no notebooks in {root / 'notebooks'}: run this in a clone of the project")
    for name in names:
        if not any(path.stem.startswith(name) for path in found):
            raise ValueError(f"no notebook {name!r}; valid: {', '.join(path.stem for path in found)}")
    return [path for path in found if not names or path.stem.startswith(tuple(names))]


def _jobs(root: Path, arguments: argparse.Namespace) -> list[Job]:
    """The jobs for `run` or `store`; all parameters are checked before anything runs."""
    from_file = _yaml_file(arguments.file) if getattr(arguments, "file", None) else {}
    if arguments.command == "store":
        wanted, target = {}, Path("notebooks")
    elif arguments.paper:
        wanted, target = _yaml_file(root / "notebooks" / "paper.yaml"), PAPER_RUNS
        if unknown := set(wanted) - {path.stem for path in notebooks(root)}:
            raise ValueError(f"notebooks/paper.yaml names unknown notebooks: {', '.join(sorted(unknown))}")
    else:
        given = from_file | dict(arguments.parameter)
        corpus = arguments.corpus or given.get("corpus") or data.default_corpus()
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
    """Read names and values from a YAML file; `ValueError` if it holds anything else."""
    try:
        found = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ValueError(f"{path} cannot be read as YAML ({_why(error)})") from None
    if not isinstance(found, dict) or not all(isinstance(name, str) for name in found):
        raise ValueError(f"{path} must consist of lines of the form name: value")
    return found


def _read(name: str, text: str, default: object) -> object:
    """Read a value from the command line: as text if the default is text, else as YAML."""
    if isinstance(default, str):
        return text
    texts = isinstance(default, list) and default and isinstance(default[0], str)
    try:
        return yaml.load(text, yaml.BaseLoader if texts else yaml.SafeLoader)
    except yaml.YAMLError as error:
        raise ValueError(f"{name} = {text!r} cannot be read as YAML ({_why(error)})") from None


def _why(error: Exception) -> str:
    """The cause and location of a YAML error, in one line."""
    mark = getattr(error, "problem_mark", None)
    where = f", line {mark.line + 1}, column {mark.column + 1}" if mark else ""
    return f"{getattr(error, 'problem', None) or ' '.join(str(error).split())}{where}"


def main(arguments: list[str] | None = None, root: Path = Path()) -> int:
    """The command line; returns the exit status."""
    return until_closed(lambda: _main(arguments, root))


def _main(arguments: list[str] | None, root: Path) -> int:
    # Keep Jupyter from running our notebooks in a kernel of the reader's own that is also called python3.
    os.environ.pop("JUPYTER_PATH", None)
    os.environ["JUPYTER_PREFER_ENV_PATH"] = "1"
    parser = argparse.ArgumentParser(prog="python -m book", description="Run and render the pages.")
    commands = parser.add_subparsers(dest="command", required=True)
    run_command = commands.add_parser(
        "run", help=f"execute the notebooks through papermill into {QUICK_RUNS}"
    )
    run_command.add_argument("--paper", action="store_true", help=f"at the paper's scale, into {PAPER_RUNS}")
    run_command.add_argument("--corpus", help="the corpus (default: FSDD 1.0.8 if available, else espeak)")
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
        help="a YAML file with a line NAME: VALUE for each parameter",
    )
    store_command = commands.add_parser("store", help="execute notebooks in place, with default parameters")
    for command in (run_command, store_command):
        command.add_argument("names", nargs="*", help="notebooks, by the start of their names (default: all)")
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
        print("\ninterrupted; finished notebooks are kept and will not run again", file=sys.stderr)
        return 130
    if failures:
        print("failed:", *failures, sep="\n  ", file=sys.stderr)
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
