"""Sphinx extension: serve MathJax from the site itself, so that formulas work offline.

MathJax and its fonts come from the wheel `sphinx-mathjax-offline`; nothing else of it is used. If it is not
installed, pages load MathJax from the network, Sphinx's default.
"""

import shutil
from importlib.util import find_spec
from pathlib import Path

WHEEL = "sphinx-mathjax-offline"
SCRIPT, FONTS = "tex-mml-chtml.js", "output/chtml/fonts/woff-v2"  # the script expects the fonts at this path


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
