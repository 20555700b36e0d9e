"""The site: jupyter-book over the pages that were run here, or over the committed runs."""

import base64
import json
import shutil
import subprocess
import sys
from pathlib import Path

import nbformat

QUICK_RUNS = Path("_build/runs")
PAPER_RUNS = Path("book/runs")
PICTURES = {"03_training": "fig-03-maps"}  # of the README and of previews
COMMITTED = (
    "This page was not run with the others of this book. What it shows is the committed run, at the paper's "
    "scale and on the paper's recordings."
)


def render(root: Path, quick: bool) -> int:
    """Render the site to `_build/html` with jupyter-book, warnings being errors, and return its exit status.

    Args:
        root: the project.
        quick: render the run of `make book` in `_build/runs` rather than the committed runs of `book/runs`.
            Pages that are not there are those of `book/runs`, and say so.

    Raises:
        FileNotFoundError: there is nothing to render; the message says what to do.
    """
    wanted = root / (QUICK_RUNS if quick else PAPER_RUNS)
    if not any(wanted.glob("*.ipynb")):
        raise FileNotFoundError(
            f"{wanted} holds no page that was run: run the pages first (python -m book run), or render "
            "the committed runs (python -m book render --paper)"
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
