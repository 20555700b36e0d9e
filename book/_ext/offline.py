"""MathJax served by the site itself: formulas are set without a network.

MathJax and its fonts are in the wheel `sphinx-mathjax-offline` (of which the rest is not used). Where that is
not installed, the pages ask the network for MathJax, as Sphinx has it.
"""

import shutil
from importlib.util import find_spec
from pathlib import Path

WHEEL = "sphinx-mathjax-offline"
SCRIPT, FONTS = "tex-mml-chtml.js", "output/chtml/fonts/woff-v2"  # which the script looks for beside it


def setup(app):
    found = find_spec(WHEEL)
    if found is not None:
        source = Path(found.origin).parent / "static" / "mathjax"
        app.config.mathjax_path = f"mathjax/{SCRIPT}"
        app.connect("build-finished", lambda app, error: error or _copy(source, Path(app.outdir)))
    return {"parallel_read_safe": True, "parallel_write_safe": True}


def _copy(source: Path, site: Path) -> None:
    target = site / "_static" / "mathjax"
    shutil.copytree(source / FONTS, target / FONTS, dirs_exist_ok=True)
    shutil.copyfile(source / SCRIPT, target / SCRIPT)
