"""Docstrings are in Google style, name only what exists, and render correctly on the API pages."""

import ast
import builtins
import re
import sys
from itertools import pairwise
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "book" / "_ext"))
import docstrings  # noqa: E402

from scnn.models import Output  # noqa: E402

FILES = sorted(file for folder in ("scnn", "book", "benchmarks") for file in (ROOT / folder).rglob("*.py"))
TREES = {file: ast.parse(file.read_text(encoding="utf-8")) for file in FILES}
ERRORS = {name for name, thing in vars(builtins).items() if isinstance(thing, type)} | {
    node.name for tree in TREES.values() for node in ast.walk(tree) if isinstance(node, ast.ClassDef)
}
SECTION = re.compile(r"^(Args|Attributes|Raises|Returns|Yields):\n((?:(?: {4}.*)?\n)*)", re.M)
ENTRY = re.compile(r"^ {4}(\S.*?):(?: |$)", re.M)


def names_of(node):
    """The arguments of a function, or the fields and constructor arguments of a class."""
    if isinstance(node, ast.ClassDef):
        makers = [each for each in node.body if getattr(each, "name", "") in ("__init__", "__new__")]
        fields = {each.target.id for each in node.body if isinstance(each, ast.AnnAssign)}
        inside = [each for each in ast.walk(node) if isinstance(each, ast.Attribute)]
        kept = {each.attr for each in inside if isinstance(each.ctx, ast.Store)}
        return fields.union(kept, *map(names_of, makers))
    given = node.args
    every = [*given.posonlyargs, *given.args, *given.kwonlyargs, given.vararg, given.kwarg]
    return {each.arg for each in every if each}


def wrong(tree):
    """The errors in the docstrings of a module."""
    for node in ast.walk(tree):
        if not isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef):
            continue
        text = (ast.get_docstring(node) or "") + "\n"
        where = getattr(node, "name", "module")
        for section, content in SECTION.findall(text):
            if section in ("Returns", "Yields"):
                first = content.split("\n")[0].strip()
                if ":" in re.sub("`[^`]*`", "", first):
                    yield f"{where}: what stands before a colon is read as the type, {first}"
            else:
                known = ERRORS if section == "Raises" else names_of(node)
                entries = [name.rsplit(".", 1)[-1] for name in ENTRY.findall(content)]
                yield from (f"{where}: {section} has no {name}" for name in entries if name not in known)
        if re.search(r"\bRaises `?[A-Z]", text):
            yield f"{where}: errors belong below Raises:"
        for before, after in pairwise(SECTION.sub("", text).split("\n\n")):
            if after.startswith("    ") and not before.endswith("::") and not before.startswith("    "):
                yield f"{where}: an indented block follows ::, {after}"


@pytest.mark.parametrize("file", FILES, ids=lambda file: str(file.relative_to(ROOT)))
def test_docstrings_are_right(file):
    assert list(wrong(TREES[file])) == []


def test_what_is_wrong_is_found():
    text = '''
def f(size):
    """Do it. Raises ValueError never.

        size = 1

    Args:
        sise: of it.

    Returns:
        Two: a and b.

    Raises:
        ValeError: never.
    """


class C:
    """A thing.

    Attributes:
        length: in m; 0: none.
    """

    width: int
'''
    assert [each.split(",")[0] for each in wrong(ast.parse(text))] == [
        "f: Args has no sise",
        "f: what stands before a colon is read as the type",
        "f: Raises has no ValeError",
        "f: errors belong below Raises:",
        "f: an indented block follows ::",
        "C: Attributes has no length",
    ]


def test_the_fields_of_named_tuples_are_left_out_and_nothing_else():
    assert docstrings.skip(None, "class", "membrane", Output.membrane, False, {})
    assert docstrings.skip(None, "module", "Output", Output, False, {}) is None
