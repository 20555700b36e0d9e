"""The examples in the docstrings: almost every public module has one, and all are right."""

import doctest
import importlib
import pkgutil
import subprocess
import sys

import pytest

import scnn

WITHOUT = {"deploy", "download", "plots", "search"}  # no quick examples: compilers, network, figures, Ray
PUBLIC = [name for _, name, _ in pkgutil.iter_modules(scnn.__path__) if not name.startswith("_")]
MODULES = ["scnn", *(f"scnn.{name}" for name in PUBLIC if name not in WITHOUT)]


@pytest.mark.parametrize("name", MODULES)
def test_examples_give_what_they_say(name):
    failed, tried = doctest.testmod(importlib.import_module(name))
    assert tried and not failed


def test_the_names_of_the_package_are_there_and_come_when_asked_for():
    assert len(set(scnn.__all__)) == len(scnn.__all__)
    assert all(getattr(scnn, name).__name__ == name for name in scnn.__all__)
    assert set(scnn.__all__) <= set(dir(scnn))
    with pytest.raises(AttributeError, match="module 'scnn' has no attribute 'nothing'"):
        scnn.nothing  # noqa: B018
    program = "import sys, scnn; print('torch' in sys.modules, scnn.Features().kind, 'torch' in sys.modules)"
    said = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout
    assert said == "False mfcc True\n"
