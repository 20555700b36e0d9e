"""Formulas work offline: MathJax and its fonts are part of the site."""

import re
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "book" / "_ext"))
import offline


@pytest.fixture
def built(tmp_path):
    """Build a site of one page with a formula; returns the page's scripts and the folder."""
    application = pytest.importorskip("sphinx.application", reason="needs the extra [book]")

    def build():
        (tmp_path / "conf.py").write_text("extensions = ['sphinx.ext.mathjax', 'offline']\n")
        (tmp_path / "index.rst").write_text("Toy\n===\n\n:math:`x^2`\n")
        out = tmp_path / "out"
        where = map(str, (tmp_path, tmp_path, out, tmp_path / "trees"))
        application.Sphinx(*where, "html", status=None, freshenv=True).build()
        page = (out / "index.html").read_text()
        return [src.split("?")[0] for src in re.findall(r'<script[^>]* src="([^"]+)"', page)], out

    return build


def test_mathjax_and_its_fonts_are_files_of_the_site(built):
    if find_spec(offline.WHEEL) is None:
        pytest.skip(f"needs the package {offline.WHEEL}")
    scripts, out = built()
    assert f"_static/mathjax/{offline.SCRIPT}" in scripts
    assert not [script for script in scripts if "://" in script]
    assert (out / "_static" / "mathjax" / offline.SCRIPT).stat().st_size > 1_000_000
    fonts = {font.name for font in (out / "_static" / "mathjax" / offline.FONTS).glob("*.woff")}
    assert {"MathJax_Main-Regular.woff", "MathJax_Math-Italic.woff", "MathJax_AMS-Regular.woff"} <= fonts


def test_without_the_wheel_formulas_come_from_the_network(built, monkeypatch):
    monkeypatch.setattr(offline, "find_spec", lambda name: None)
    scripts, out = built()
    assert [script for script in scripts if "mathjax" in script and script.startswith("https://")]
    assert not (out / "_static" / "mathjax").exists()
