"""Sphinx extension: read the package's docstrings, which are written as plain text, as reStructuredText.

They use five conventions: `code` in single backticks, lists with dashes, indented formulas, examples after
`>>>`, and a legend of lines `name: text` with their continuation indented, perhaps itself indented below
`Args:`. Whatever else looks like markup is text.
"""

import re
import textwrap
from itertools import groupby

LEGEND = re.compile(r"(\w+(?:, \w+)*): (.*)")
CODE = re.compile(r"((?<![`:])`[^`]+`(?!`))")


def _prose(lines: list[str]) -> list[str]:
    """Text: its `code` in double backticks, nothing else taken for markup, a list between empty lines."""
    pieces = CODE.split("\n".join(lines))
    for number, piece in enumerate(pieces):
        pieces[number] = f"`{piece}`" if number % 2 else re.sub(r"([*|\\]|_(?!\w))", r"\\\1", piece)
    written, item = [], None  # the indentation of the list's items, within a list
    for line in "".join(pieces).split("\n"):
        indent = len(line) - len(line.lstrip())
        if line.lstrip().startswith("- "):
            if item is None and written:
                written.append("")
            item = indent
        elif item is not None and indent <= item:
            written.append("")
            item = None
        written.append(line)
    return written


def _legend(lines: list[str]) -> list[str]:
    """A legend as a definition list: the name, and below it its text."""
    written, texts = [], []
    for line in lines:
        if entry := LEGEND.fullmatch(line):
            texts.append((entry[1], [f"    {entry[2]}"]))
        else:
            texts[-1][1].append(line)
    for names, text in texts:
        written += [", ".join(f"``{name}``" for name in names.split(", ")), *_prose(text)]
    return written


def convert(docstring: list[str]) -> list[str]:
    """The lines of a plain docstring as reStructuredText."""
    written = []
    for filled, group in groupby(docstring, key=lambda line: bool(line.strip())):
        if not filled:
            continue
        block = list(group)
        if block[0] == "Args:":
            block = textwrap.dedent("\n".join(block[1:])).split("\n")
        if block[0].startswith(">>> "):
            written += block
        elif all(line.startswith("    ") for line in block):
            ended = len(written) > 1 and written[-2].endswith("::")
            written += block if ended else ["::", "", *block]
        elif LEGEND.fullmatch(block[0]) and all(
            LEGEND.fullmatch(line) or line.startswith(" ") for line in block
        ):
            written += _legend(block)
        else:
            written += _prose(block)
        written.append("")
    return written


def setup(app) -> dict[str, bool]:
    """Register with Sphinx."""
    app.connect(
        "autodoc-process-docstring",
        lambda app, what, name, thing, options, lines: _replace(lines),
        priority=600,  # after napoleon, which reads the sections
    )
    app.connect("autodoc-skip-member", _skip)
    return {"parallel_read_safe": True}


def _skip(app, what, name, thing, skip, options) -> bool | None:
    """Leave out the fields of named tuples: the class tells what they are."""
    return True if str(getattr(thing, "__doc__", "")).startswith("Alias for field number") else None


def _replace(lines: list[str]) -> None:
    lines[:] = convert(lines)
