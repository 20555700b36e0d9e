"""The site's own extensions: how a notebook is laid out for reading."""

import sys
from pathlib import Path

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell, new_output

ROOT = Path(__file__).parents[1]
RUNS = sorted((ROOT / "book" / "runs").glob("*.ipynb"))

sys.path.insert(0, str(ROOT / "book" / "_ext"))
import docstrings  # noqa: E402
import pages  # noqa: E402

FINDINGS = (
    "A table.\n\n## What we found\n\n- It works.\n\n### Exercises\n\n1. Try.\n\nNext: [more](more.ipynb)."
)


def glue():
    return new_output("display_data", {"text/plain": "1"}, metadata={"scrapbook": {"name": "key"}})


def arranged(findings=FINDINGS):
    """A page of every kind of cell as the site shows it: its cells, and their tags."""
    parameters = new_code_cell('corpus = "espeak"', metadata={"tags": ["parameters"]})
    begin = new_code_cell("book.begin(corpus, 0)", outputs=[new_output("stream", text="stand-in")])
    cells = [
        new_markdown_cell("# Toy\n\nWhy?\n\nYou will see:\n\n- one;\n- two.\n\nA minute."),
        *(new_code_cell("import os"), parameters, begin),
        new_code_cell("short = 1", outputs=[new_output("stream", text="shown")]),
        new_code_cell("pass\n" * 9),
        new_code_cell("glue()", outputs=[glue()]),
        new_markdown_cell(findings),
    ]
    notebook = pages.arrange(nbformat.v4.new_notebook(cells=cells))
    sources = [cell["source"] for cell in notebook["cells"]]
    return sources, [cell["metadata"].get("tags", []) for cell in notebook["cells"]], notebook["cells"]


def test_a_page_is_laid_out_for_reading():
    sources, tags, cells = arranged()
    assert sources == [
        "# Toy\n\nWhy?\n\n:::{dropdown} You will see …\n- one;\n- two.\n:::\n\nA minute.",
        'import os\n\ncorpus = "espeak"\n\nbook.begin(corpus, 0)',
        "## What we found\n\n- It works.",
        "short = 1",
        "pass\n" * 9,
        "glue()",
        "A table.\n\n## Exercises\n\n1. Try.",
    ]
    hidden = ["hide-input"]
    assert tags == [[], hidden, [], [], hidden, hidden, []]
    assert [one["text"] for one in cells[1]["outputs"]] == ["stand-in"]  # the warning stays in sight


def test_findings_that_refer_to_what_stands_above_them_stay_there():
    sources, _, _ = arranged(FINDINGS.replace("It works.", "See the table above."))
    assert 'href="#what-we-found"' in sources[2]
    assert sources[-1] == "A table.\n\n## What we found\n\n- See the table above.\n\n## Exercises\n\n1. Try."


@pytest.mark.parametrize("path", RUNS, ids=lambda path: path.stem)
def test_every_page_keeps_its_text_and_outputs(path):
    before, after = nbformat.read(path, 4), pages.arrange(nbformat.read(path, 4))

    def outputs(notebook):
        return [one for cell in notebook["cells"] for one in cell.get("outputs", [])]

    def lines(notebook):
        return {line for cell in notebook["cells"] for line in cell["source"].split("\n")}

    assert outputs(after) == outputs(before)
    lost = {line.strip() for line in lines(before) - lines(after)}
    assert all(
        line.startswith(("You will", "Next", "**Next", "Back", "### Ex", "Exercises")) for line in lost
    )
    text = "\n".join(cell["source"] for cell in after["cells"])
    assert text.count("## What we found") == text.count("## Exercises") == 1
    first = next(i for i, cell in enumerate(after["cells"]) if cell["cell_type"] == "code")
    assert "what we found" in after["cells"][first + 1]["source"].lower()


def test_a_list_in_a_docstring_ends_where_its_indentation_does():
    plain = ["Holds", "- a", "  more", "- b", "and text"]
    assert docstrings.convert(plain) == ["Holds", "", "- a", "  more", "- b", "", "and text", ""]
