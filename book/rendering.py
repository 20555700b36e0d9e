"""Render the site with jupyter-book, from the pages run here or from the committed runs."""

import base64
import json
import shutil
import subprocess
import sys
from pathlib import Path

import nbformat

QUICK_RUNS = Path("_build/runs")
PAPER_RUNS = Path("book/runs")
PICTURES = {"03_training": "fig-03-maps"}  # for the README and for link previews
COMMITTED = (
    "This page was not run together with the others. It shows the committed run, at the paper's scale and on "
    "the paper's recordings."
)


def render(root: Path, quick: bool) -> int:
    """Render the site to `_build/html` with jupyter-book, and return its exit status; warnings are errors.

    Args:
        root: the project.
        quick: render the runs of `make book` in `_build/runs` rather than the committed ones in `book/runs`.
            Pages that were not run are taken from `book/runs`, and say so.

    Raises:
        FileNotFoundError: there is nothing to render; the message says what to do.
    """
    wanted = root / (QUICK_RUNS if quick else PAPER_RUNS)
    if not any(wanted.glob("*.ipynb")):
        raise FileNotFoundError(
            f"{wanted} contains no runs: run the pages first (python -m book run), or render the committed "
            "runs (python -m book render --paper)"
        )
    source = root
    if quick:
        source = root / "_build" / "quick"
        shutil.rmtree(source, ignore_errors=True)
        shutil.copytree(root / "book", source / "book")
        committed = {path.name for path in (source / PAPER_RUNS).glob("*.ipynb")}
        shutil.copytree(wanted, source / PAPER_RUNS, dirs_exist_ok=True)
        if left := sorted(committed - {path.name for path in wanted.glob("*.ipynb")}):
            print(f"not run here, so the committed runs are shown: {', '.join(left)}", flush=True)
        for name in left:
            _mark_committed(source / PAPER_RUNS / name)
        for name in ("_config.yml", "_toc.yml"):
            shutil.copy(root / name, source)
    # Sphinx would reuse pages that look unchanged, with outdated glued numbers and without their warnings.
    for name in ("html", ".doctrees"):
        shutil.rmtree(root / "_build" / name, ignore_errors=True)
    command = Path(sys.executable).with_name("jupyter-book")
    return subprocess.run(
        [command, "build", source, "--path-output", root, "-W", "-n", "--keep-going"]
    ).returncode


def _mark_committed(path: Path) -> None:
    """Add a note below a page's title that it shows the committed run."""
    page = nbformat.read(path, as_version=4)
    note = nbformat.v4.new_markdown_cell(f":::{{note}}\n{COMMITTED}\n:::")
    page.cells.insert(1, note)
    nbformat.write(page, path)


def save_pictures(root: Path) -> None:
    """Copy the `PICTURES` from the committed runs to `book/_static/<name of the figure>.png`."""
    for page, name in PICTURES.items():
        for cell in json.loads((root / PAPER_RUNS / f"{page}.ipynb").read_text(encoding="utf-8"))["cells"]:
            if cell["metadata"].get("mystnb", {}).get("figure", {}).get("name") == name:
                image = cell["outputs"][0]["data"]["image/png"]
                (root / "book" / "_static" / f"{name}.png").write_bytes(base64.b64decode(image))
