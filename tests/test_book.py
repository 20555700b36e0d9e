"""The pages: rules for every notebook and every committed run, and running notebooks with papermill."""

import ast
import json
import os
import re
import shutil
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace

import nbformat
import numpy as np
import pytest
import yaml
from papermill import execute_notebook
from papermill.exceptions import PapermillExecutionError

from scnn import book

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))  # what runs and renders the pages, outside the package

from book import rendering, running  # noqa: E402
from book.__main__ import main  # noqa: E402

NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
RUNS = sorted((ROOT / "book" / "runs").glob("*.ipynb"))
PAPER = yaml.safe_load((ROOT / "notebooks" / "paper.yaml").read_text())


# --- rules: each takes a notebook and yields its violations -----------------------------------------------


def code(notebook):
    return [cell for cell in notebook.cells if cell.cell_type == "code" and cell.source.strip()]


def outputs(notebook, *kinds):
    return [one for cell in code(notebook) for one in cell.outputs if one.output_type in kinds]


def written(notebook):
    """Every text that a reader of the stored outputs can see."""
    for one in outputs(notebook, "stream"):
        yield one.text
    for one in outputs(notebook, "display_data", "execute_result"):
        for kind, text in one.data.items():
            if kind.endswith("text/plain") or (kind == "text/html" and "<audio" not in text):
                yield text


def rule_parameters(notebook):
    """There is one parameters cell of commented literals, with at least a corpus and a seed."""
    try:
        names = set(book.parameters(notebook))
    except ValueError as error:
        yield str(error)
        return
    yield from (f"no parameter {name}" for name in {"corpus", "seed"} - names)
    (cell,) = [cell for cell in notebook.cells if "parameters" in cell.metadata.get("tags", [])]
    for line in cell.source.splitlines():
        if re.match(r"\w+ = ", line) and "  # " not in line:
            yield f"no comment on: {line}"


def rule_checked(notebook):
    """The first code cell after the parameters begins the page and checks each of them."""
    cells = code(notebook)
    tags = [set(cell.metadata.get("tags", [])) for cell in cells]
    after = [
        cell
        for cell, tag, before in zip(cells[1:], tags[1:], tags, strict=False)
        if before & {"parameters", "injected-parameters"} and "injected-parameters" not in tag
    ]
    if not after or "book.begin(" not in after[0].source:
        yield "the cell after the parameters does not call book.begin"
        return
    used = {node.id for node in ast.walk(ast.parse(after[0].source)) if isinstance(node, ast.Name)}
    yield from (f"{name} is not checked" for name in book.parameters(notebook).keys() - used)


def rule_headings(notebook):
    """There is one title, no level is skipped, and the findings come last."""
    text = "\n".join(cell.source for cell in notebook.cells if cell.cell_type == "markdown")
    text = re.sub(r"^```.*?^```", "", text, flags=re.MULTILINE | re.DOTALL)
    found = re.findall(r"^(#+) (.*)$", text, flags=re.MULTILINE)
    levels = [len(marks) for marks, _ in found]
    if levels.count(1) != 1 or levels[0] != 1:
        yield f"not one title, and that first: {found}"
    for (_, before), (marks, title), level in zip(found, found[1:], levels, strict=False):
        if len(marks) > level + 1:
            yield f"a heading level is skipped between {before!r} and {title!r}"
    if not any(title == "What we found" for _, title in found):
        yield "no heading 'What we found'"


def rule_executed(notebook):
    """The notebook ran from top to bottom without errors or warnings, and its outputs are stored."""
    counts = [cell.execution_count for cell in code(notebook)]
    if counts != list(range(1, len(counts) + 1)):
        yield f"execution counts {counts}"
    yield from (f"error: {one.ename}: {one.evalue}" for one in outputs(notebook, "error"))
    yield from (f"stderr: {one.text}" for one in outputs(notebook, "stream") if one.name == "stderr")
    for cell in code(notebook):
        shows = cell.source.rstrip().endswith("plt.show()")
        if (shows or "nbval-check-output" in cell.metadata.get("tags", [])) and not cell.outputs:
            yield f"no output of: {cell.source.splitlines()[0]}"


def rule_figures(notebook):
    """A figure is a PNG alone in its cell, with caption, name and alternative text."""
    for cell in code(notebook):
        kinds = [set(one.data) for one in cell.outputs if "data" in one]
        if any(kind & {"image/svg+xml", "image/jpeg", "image/gif", "application/pdf"} for kind in kinds):
            yield f"a figure that is no PNG: {cell.source.splitlines()[0]}"
        if any("image/png" in kind for kind in kinds):
            settings = cell.metadata.get("mystnb", {})
            figure = settings.get("figure", {})
            if not (figure.get("caption") and figure.get("name") and settings.get("image", {}).get("alt")):
                yield f"a figure without caption, name or alt text: {cell.source.splitlines()[0]}"
            if len(cell.outputs) > 1:
                yield f"a figure that is not alone in its cell: {cell.source.splitlines()[0]}"


def rule_portable(notebook):
    """No output depends on the machine or the time."""
    unwanted = {
        "path": r"(?<![\w:/.])/(?:home|root|tmp|usr|opt|work|Users|var|mnt)/\w+|[A-Z]:\\\w+",
        "memory address": r"\b0x[0-9a-f]{6,}\b",
        "time": r"\d{4}-\d\d-\d\d[T ]\d\d:\d\d|\d(?:it|s)/(?:s|it)\b",
        "unrounded number": r"\d\.\d{9,}",
    }
    for text in written(notebook):
        for what, pattern in unwanted.items():
            if found := re.search(pattern, text):
                yield f"a {what} in an output: {found[0]}"
    for place in [notebook.metadata, *(cell.metadata for cell in notebook.cells)]:
        yield from (f"{name} in the metadata" for name in {"papermill", "execution", "widgets"} & set(place))
    for cell in code(notebook):
        if found := re.search(r"^\s*[!%].*$", cell.source, flags=re.MULTILINE):
            yield f"a shell or magic line: {found[0]}"


def rule_width(notebook):
    """Code of at most 88 columns, which a page shows without scrolling."""
    for cell in code(notebook):
        if "injected-parameters" not in cell.metadata.get("tags", []):
            yield from (f"{len(line)} columns: {line}" for line in cell.source.splitlines() if len(line) > 88)


def rule_size(notebook):
    """Under 500 KiB."""
    size = len(nbformat.writes(notebook).encode())
    if size >= 500 * 1024:
        yield f"{size / 1024:.0f} KiB"


RULES = [rule for name, rule in globals().items() if name.startswith("rule_")]


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.__name__)
@pytest.mark.parametrize("path", [*NOTEBOOKS, *RUNS], ids=lambda path: str(path.relative_to(ROOT)))
def test_every_notebook_keeps_every_rule(path, rule):
    wrong = list(rule(nbformat.read(path, as_version=4)))
    assert not wrong, "\n".join(wrong)


def test_there_are_notebooks():
    assert NOTEBOOKS


def test_figure_names_are_unique_in_the_book():
    names = [
        cell.metadata["mystnb"]["figure"]["name"]
        for path in NOTEBOOKS
        for cell in nbformat.read(path, as_version=4).cells
        if "name" in cell.metadata.get("mystnb", {}).get("figure", {})
    ]
    assert sorted(names) == sorted(set(names))


# --- every rule can be broken -----------------------------------------------------------------------------


def page(*sources, parameters='corpus = "espeak"  # name\nseed = 0  # any whole number', title="# Toy"):
    """A notebook of title, parameters and the given cells, which are markdown where they begin with #."""
    new = nbformat.v4
    cells = [
        new.new_markdown_cell(title),
        new.new_code_cell(parameters, metadata={"tags": ["parameters"]}),
        *(new.new_markdown_cell(one) if one.startswith("#") else new.new_code_cell(one) for one in sources),
    ]
    for number, cell in enumerate(cells):
        cell.id = f"cell-{number}"
    kernel = {"name": "python3", "display_name": "Python 3", "language": "python"}
    return new.new_notebook(cells=cells, metadata={"kernelspec": kernel})


def good():
    """A page that satisfies every rule, as if it had been executed."""
    notebook = page("book.begin(corpus, seed)", "axes.plot(x)\nplt.show()", "## What we found")
    for number, cell in enumerate(code(notebook), start=1):
        cell.execution_count = number
    drawn = nbformat.v4.new_output("display_data", {"image/png": "iVBORw0KGgo="})
    notebook.cells[3].outputs = [drawn]
    notebook.cells[3].metadata["mystnb"] = {
        "figure": {"caption": "A line.", "name": "fig-toy"},
        "image": {"alt": "a line that rises"},
    }
    return notebook


def text_output(text, name="stdout"):
    return nbformat.v4.new_output("stream", name=name, text=text)


def error_output():
    return nbformat.v4.new_output("error", ename="ValueError", evalue="no", traceback=[])


BROKEN = {
    "two parameters cells": (rule_parameters, lambda n: n.cells.insert(1, n.cells[1])),
    "derived parameter": (rule_parameters, lambda n: n.cells[1].update(source="seed = 1 + 1j + f()")),
    "no comment": (rule_parameters, lambda n: n.cells[1].update(source="corpus = 'a'  # a\nseed = 0")),
    "no seed": (rule_parameters, lambda n: n.cells[1].update(source="corpus = 'a'  # a")),
    "begin missing": (rule_checked, lambda n: n.cells[2].update(source="pass")),
    "begin too late": (rule_checked, lambda n: n.cells.insert(2, nbformat.v4.new_code_cell("pass"))),
    "unchecked": (rule_checked, lambda n: n.cells[1].update(source=n.cells[1].source + "\nmore = 1  # more")),
    "two titles": (rule_headings, lambda n: n.cells[-1].update(source="# Two\n\n## What we found")),
    "skipped level": (rule_headings, lambda n: n.cells[0].update(source="# Toy\n\n### Deep")),
    "no findings": (rule_headings, lambda n: n.cells[-1].update(source="## End")),
    "out of order": (rule_executed, lambda n: n.cells[2].update(execution_count=9)),
    "error": (rule_executed, lambda n: n.cells[2].update(outputs=[error_output()])),
    "stderr": (rule_executed, lambda n: n.cells[2].update(outputs=[text_output("careful", "stderr")])),
    "cleared": (rule_executed, lambda n: n.cells[3].update(outputs=[])),
    "svg": (rule_figures, lambda n: n.cells[3].outputs[0].data.update({"image/svg+xml": "<svg/>"})),
    "no alt text": (rule_figures, lambda n: n.cells[3].metadata["mystnb"].pop("image")),
    "figure and text": (rule_figures, lambda n: n.cells[3].outputs.append(text_output("and"))),
    "path": (rule_portable, lambda n: n.cells[2].update(outputs=[text_output("in /home/me/data")])),
    "address": (rule_portable, lambda n: n.cells[2].update(outputs=[text_output("<a at 0x7f00aa11>")])),
    "speed": (rule_portable, lambda n: n.cells[2].update(outputs=[text_output("3/3 12.0it/s")])),
    "digits": (rule_portable, lambda n: n.cells[2].update(outputs=[text_output("0.98765432101")])),
    "timings": (rule_portable, lambda n: n.metadata.update(papermill={"duration": 1})),
    "magic": (rule_portable, lambda n: n.cells[2].update(source="!pip install x")),
    "wide": (rule_width, lambda n: n.cells[2].update(source="x = 1  # " + 80 * "-")),
    "large": (rule_size, lambda n: n.cells[2].update(outputs=[text_output("x" * 600_000)])),
}


def test_a_good_page_keeps_the_rules():
    assert [wrong for rule in RULES for wrong in rule(good())] == []


@pytest.mark.parametrize("case", BROKEN)
def test_a_broken_page_is_found(case):
    rule, damage = BROKEN[case]
    notebook = good()
    damage(notebook)
    assert list(rule(notebook))


# --- the two trees ----------------------------------------------------------------------------------------


def test_the_paper_parameters_belong_to_their_notebooks():
    assert sorted(PAPER) == [path.stem for path in NOTEBOOKS]
    for path in NOTEBOOKS:
        book.match_parameters(book.parameters(nbformat.read(path, as_version=4)), PAPER[path.stem])


def test_the_examples_of_rerunning_use_parameters_that_exist():
    text = (ROOT / "book" / "rerun.md").read_text()
    defaults = book.parameters(nbformat.read(ROOT / "notebooks" / "03_training.ipynb", as_version=4))
    (example,) = re.findall(r"^```yaml\n(.*?)^```", text, flags=re.MULTILINE | re.DOTALL)
    commands = re.findall(r"03(?:_training.ipynb mine.ipynb)?( -p .*?)\n```", text)
    assert len(commands) == 2
    given = {name: yaml.safe_load(value) for name, value in re.findall(r"-p (\S+) (\S+)", "".join(commands))}
    book.match_parameters(defaults, yaml.safe_load(example) | given)


@pytest.mark.parametrize("path", RUNS, ids=lambda path: path.stem)
def test_a_committed_run_is_its_notebook_with_the_paper_parameters(path):
    def parts(notebook):
        return [
            (cell.id, cell.cell_type, cell.source, cell.metadata)
            for cell in notebook.cells
            if cell.id != "injected-parameters"
        ]

    run = nbformat.read(path, as_version=4)
    assert parts(run) == parts(nbformat.read(ROOT / "notebooks" / path.name, as_version=4))
    (injected,) = [cell for cell in run.cells if cell.id == "injected-parameters"]
    values = {one.targets[0].id: ast.literal_eval(one.value) for one in ast.parse(injected.source).body}
    assert values == PAPER[path.stem]


def glued(page):
    """The values glued by a committed run, by key."""
    outputs = (
        output
        for cell in nbformat.read(ROOT / "book" / "runs" / f"{page}.ipynb", as_version=4).cells
        for output in cell.get("outputs", ())
        if "scrapbook" in output.get("metadata", {})
    )
    return {
        output.metadata["scrapbook"]["name"]: next(iter(output.data.values()), None) for output in outputs
    }


def test_the_readme_shows_the_numbers_of_the_committed_run():
    values, text = glued("08_table"), (ROOT / "README.md").read_text(encoding="utf-8")
    assert values["n_seeds"] == "10"
    for row in ("a10", "a1", "b10", "b1", "cnn"):
        ways = [f"accuracy_{row}_{way}" for way in ("fp32", "int8")]
        shown = [f"{float(values[way]):.1f} ± {float(values[f'{way}_sd']):.2f} %" for way in ways]
        assert re.search(rf"\| {re.escape(shown[0])} \|[^|]*\| {re.escape(shown[1])} \|", text), (row, shown)


def test_the_readme_shows_what_strangers_get():
    values, text = glued("10_strangers"), (ROOT / "README.md").read_text(encoding="utf-8")
    for name in ("first_unknown", "robust"):
        assert f"{float(values[name]):.1f} %" in text, name


def test_the_pictures_are_those_of_the_committed_runs(tmp_path):
    shutil.copytree(ROOT / "book" / "runs", tmp_path / "book" / "runs")
    (tmp_path / "book" / "_static").mkdir()
    rendering.save_pictures(tmp_path)
    for name in rendering.PICTURES.values():
        made, committed = (root / "book" / "_static" / f"{name}.png" for root in (tmp_path, ROOT))
        assert made.read_bytes() == committed.read_bytes()


# --- what a notebook calls --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("value", "valid", "message"),
    [
        ("D", ("A", "B"), "model = 'D' is not valid; valid: 'A', 'B'"),
        (0, range(1, 11), "whole numbers from 1 to 10"),
        (2.0, range(1, 11), "whole numbers from 1 to 10"),
        (True, range(1, 11), "whole numbers from 1 to 10"),
        (1.5, book.Between(0.0, 1.0), "numbers from 0.0 to 1.0"),
        ("0.5", book.Between(0.0, 1.0), "numbers from 0.0 to 1.0"),
        (1, (True, False), "True, False"),
    ],
)
def test_a_wrong_value_is_refused_with_the_valid_ones(value, valid, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        book.check("model", value, valid)


def test_right_values_pass():
    book.check("model", "A", ("A", "B"))
    book.check("steps", 10, range(1, 11))
    book.check("beta", 1, book.Between(0.0, 1.0))
    book.check_each("hops", [256, 512], (256, 512))


@pytest.mark.parametrize("values", [[], 256, [256, 300]])
def test_a_wrong_list_is_refused(values):
    with pytest.raises(ValueError, match=r"hops = .* is not valid; valid: .*256, 512"):
        book.check_each("hops", values, (256, 512))


def test_an_unknown_corpus_and_a_wrong_seed_are_refused():
    with pytest.raises(ValueError, match=r"corpus = 'fsd' is not valid; valid: 'fsdd', .*folder"):
        book.begin("fsd", 0)
    with pytest.raises(ValueError, match="seed = -1"):
        book.begin("espeak", -1)


@pytest.mark.parametrize("corpus", [7, None, ["espeak"], True])
def test_a_corpus_that_is_no_text_is_refused(corpus):
    with pytest.raises(ValueError, match=r"corpus = .* is not valid; valid: 'fsdd'"):
        book.begin(corpus, 0)


def test_a_page_that_compares_voices_says_what_it_needs():
    def corpus(speakers):
        return SimpleNamespace(name="mine", speakers=np.array(speakers), labels=np.array([0, 1, 0, 1, 1]))

    assert book.speakers_of(corpus(["b", "b", "a", "a", "c"]), range(2), least=2) == ["a", "b"]
    message = r"corpus = 'mine': .* at least 2 speakers .* found a among .* a, c. .*_nohash_TAKE.wav"
    with pytest.raises(ValueError, match=message):
        book.speakers_of(corpus(list("aaaac")), range(2), least=2)


def test_the_stand_in_corpus_is_announced_and_no_other(capsys, tmp_path):
    book.begin("espeak", 0)
    assert "stand-in" in capsys.readouterr().out
    book.begin(str(tmp_path), 0)
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize(
    ("wanted", "message"),
    [
        ({"sed": 1}, "no parameter sed; valid: corpus = 'espeak', seed = 0"),
        ({"seed": "1e-3"}, "seed = '1e-3' is str"),
        ({"seed": 1.0}, "seed = 1.0 is float"),
        ({"seed": True}, "seed = True is bool"),
        (
            {"corpus": False},
            "corpus = False is bool, but the notebook's corpus = 'espeak' is str (yes",
        ),
        ({"corpus": None}, "corpus = None is NoneType"),
        ({"rate": True}, "rate = True is bool"),
        ({"rate": "fast"}, "rate = 'fast' is str"),
        ({"rate": 10**400}, "is int, but the notebook's rate = 0.5 is float"),
        (
            {"seeds": 3},
            "seeds = 3 is int, but the notebook's seeds = [0, 1] is list of int (a list",
        ),
        ({"seeds": [1.5]}, "seeds = [1.5] is list of float"),
    ],
)
def test_a_wrong_parameter_is_refused_before_anything_runs(wanted, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        book.match_parameters({"corpus": "espeak", "seed": 0, "rate": 0.5, "seeds": [0, 1]}, wanted)


def test_a_value_that_stands_for_one_of_the_default_s_type_becomes_that():
    defaults = {"rate": 0.5, "digit": "7", "rates": [0.5], "words": ["a"]}
    given = {"rate": 1, "digit": 8, "rates": [1, 2.5, "1e-3"], "words": ["b", 3]}
    fitted = book.match_parameters(defaults, given)
    assert fitted == {"rate": 1.0, "digit": "8", "rates": [1.0, 2.5, 1e-3], "words": ["b", "3"]}
    assert [type(one) for one in [fitted["rate"], *fitted["rates"]]] == 4 * [float]


# --- running notebooks with papermill ---------------------------------------------------------------------


@pytest.fixture
def project(tmp_path):
    """A project of three notebooks, the second of which fails."""
    (tmp_path / "notebooks").mkdir()
    for name, source in {"1_a": "print(seed)", "2_b": "seed / 0", "3_c": "print(corpus)"}.items():
        nbformat.write(page("pass", source), tmp_path / "notebooks" / f"{name}.ipynb")
    return tmp_path


def test_a_failing_notebook_is_named_and_the_others_run_once(project, capsys):
    arguments = ["run", "--corpus", "espeak"]
    assert main(arguments, project) == 1
    shown = capsys.readouterr()
    assert re.search(r"\[1/3\] 1_a: ok, [\d.]+ s\n.*\n\[2/3\] 2_b: failed.*\n.*\n\[3/3\] 3_c: ok", shown.out)
    assert re.search(r"2_b\.ipynb, cell \[4\] \(seed / 0\): ZeroDivisionError", shown.err)
    assert "1_a" not in shown.err
    (left,) = re.findall(r"The run up to there: (.*)", shown.err)
    assert nbformat.read(left, as_version=4).cells[-1].outputs[0].ename == "ZeroDivisionError"
    assert [path.parent for path in (project / "_build" / "running").rglob("*.ipynb")] == [Path(left).parent]
    assert sorted(path.name for path in (project / rendering.QUICK_RUNS).iterdir()) == [
        "1_a.ipynb",
        "3_c.ipynb",
    ]

    nbformat.write(page("pass", "print(-seed)"), project / "notebooks" / "2_b.ipynb")
    assert main(arguments, project) == 0
    shown = capsys.readouterr().out
    assert "1_a: unchanged" in shown and "2_b: ok" in shown and "3_c: unchanged" in shown

    assert main([*arguments, "1_", "-p", "seed", "7"], project) == 0
    run = nbformat.read(project / rendering.QUICK_RUNS / "1_a.ipynb", as_version=4)
    assert run.cells[-1].outputs[0].text == "7\n"


def test_a_run_holds_nothing_of_its_machine_and_minute(project, monkeypatch):
    monkeypatch.setattr(running, "_package_digest", lambda: "the package may be edited between the two runs")
    source = project / "notebooks" / "1_a.ipynb"
    for name in ("one", "two"):
        assert not running.run(
            [running.Job(source, project / name / "1_a.ipynb", {"seed": 3})], project / "scratch"
        )
    text = (project / "one" / "1_a.ipynb").read_text()
    assert text == (project / "two" / "1_a.ipynb").read_text()
    assert list(rule_portable(nbformat.reads(text, as_version=4))) == []
    assert str(project) not in text


def test_the_trainings_of_the_pages_are_kept_in_one_table(project, monkeypatch):
    source = (
        "from scnn import book\nimport pandas\nbook.save_trainings(pandas.DataFrame({'seed': [seed, 9]}))"
    )
    for name in ("1_a", "3_c"):
        nbformat.write(page("pass", source), project / "notebooks" / f"{name}.ipynb")
    nbformat.write(page("pass", "print(seed)"), project / "notebooks" / "2_b.ipynb")
    records = project / rendering.QUICK_RUNS / "records.csv"
    arguments = ["run", "--corpus", "espeak"]
    assert main(arguments, project) == 0
    assert records.read_text() == "page,seed\n1_a,0\n1_a,9\n3_c,0\n3_c,9\n"
    assert main([*arguments, "1_", "-p", "seed", "7"], project) == 0
    assert records.read_text() == "page,seed\n1_a,7\n1_a,9\n3_c,0\n3_c,9\n"
    nbformat.write(page("pass", "print(seed)"), project / "notebooks" / "1_a.ipynb")
    assert main([*arguments, "1_"], project) == 0
    assert records.read_text() == "page,seed\n3_c,0\n3_c,9\n"
    assert main(["store", "3_"], project) == 0
    assert records.read_text() == "page,seed\n3_c,0\n3_c,9\n"
    assert book.ROWS not in os.environ  # notebooks run by other means must not write there


WISH = 'corpus = "espeak"  # name\nseed = 0  # a\nrate = 0.5  # b\ndigit = "7"  # c\nwords = ["a"]  # d'


@pytest.fixture
def wish(tmp_path):
    """A notebook of a few parameters that shows what became of them."""
    checked = (
        "from scnn import book\nbook.begin(corpus, seed)\nbook.check('rate', rate, book.Between(0.0, 1.0))"
    )
    shown = "print(repr([corpus, seed, rate, digit, words]))"
    (tmp_path / "notebooks").mkdir()
    nbformat.write(page(checked, shown, parameters=WISH), tmp_path / "notebooks" / "1_a.ipynb")
    return tmp_path


def test_papermill_s_own_parameters_are_checked_in_the_first_cell(wish, monkeypatch):
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    source, target = wish / "notebooks" / "1_a.ipynb", wish / "out.ipynb"
    given = {"corpus": str(wish), "rate": 1, "digit": 7}
    execute_notebook(source, target, given, progress_bar=False)
    found = nbformat.read(target, as_version=4).cells[-1].outputs[0].text
    assert found == f"['{wish}', 0, 1.0, '7', ['a']]\n"
    with pytest.raises(
        PapermillExecutionError, match="no parameter sed; valid: corpus = 'espeak'"
    ) as stopped:
        execute_notebook(source, target, given | {"sed": 1}, progress_bar=False)
    assert stopped.value.exec_count == 3


@pytest.mark.parametrize(
    ("injected", "message"),
    [
        ({"digit": False}, "digit = False is bool"),
        ({"seed": 2**31}, "seed = 2147483648 is not valid; valid: whole numbers from 0 to 2147483647"),
        ({"seed": float("nan")}, "seed = nan is float"),
        ({"corpus": 3}, "corpus = '3' is not valid"),
    ],
)
def test_what_papermill_put_into_a_notebook_is_checked(monkeypatch, injected, message):
    lines = "".join(f"{name} = {value!r}\n" for name, value in injected.items())
    cells = ["", "import os", WISH, f"# Parameters\n{lines}", "book.begin(corpus, seed)"]
    namespace = {"corpus": "espeak", "seed": 0, "In": cells} | injected
    running = SimpleNamespace(get_ipython=lambda: SimpleNamespace(user_ns=namespace))
    monkeypatch.setitem(sys.modules, "IPython", running)
    with pytest.raises(ValueError, match=re.escape(message)):
        book.begin(namespace["corpus"], namespace["seed"])


def test_the_command_takes_text_as_it_is_written_and_numbers_as_meant(wish, monkeypatch):
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    (wish / "mine.yaml").write_text("rate: 1\nseed: 3\n")
    arguments = ["run", "-f", str(wish / "mine.yaml")]
    monkeypatch.setattr(book.data, "default_corpus", lambda: pytest.fail("a corpus was given"))
    for name, value in (("digit", "no"), ("words", "[yes, 7, off]"), ("corpus", "espeak"), ("seed", "5")):
        arguments += ["-p", name, value]
    assert main(arguments, wish) == 0
    run = nbformat.read(wish / rendering.QUICK_RUNS / "1_a.ipynb", as_version=4)
    assert run.cells[-1].outputs[0].text == "['espeak', 5, 1.0, 'no', ['yes', '7', 'off']]\n"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["-p", "words", "[a"], r"1_a.ipynb: words = '\[a' cannot be read as YAML \(.*, line 1, column 3\)"),
        (["-f", "broken.yaml"], r"broken.yaml cannot be read as YAML \(.*line \d, column \d+\)"),
        (["-f", "list.yaml"], r"list.yaml must consist of lines of the form name: value"),
        (["-f", "none.yaml"], r"none.yaml"),
        (["--paper"], r"paper.yaml cannot be read as YAML"),
    ],
)
def test_broken_yaml_is_one_line(wish, capsys, monkeypatch, arguments, message):
    monkeypatch.chdir(wish)
    Path("broken.yaml").write_text("rate: 1\nseed: [0, 1\n")
    Path("list.yaml").write_text("- 1\n")
    Path("notebooks", "paper.yaml").write_text("1_a: {seed: 1")
    assert main(["run", "--corpus", "espeak", *arguments], wish) == 2
    said = capsys.readouterr().err
    assert re.search(message, said) and said.count("\n") == 1


def test_a_foreign_kernel_of_the_same_name_does_not_run_the_notebooks(project, tmp_path, monkeypatch):
    foreign = tmp_path / "foreign" / "kernels" / "python3"
    foreign.mkdir(parents=True)
    spec = {"argv": ["false"], "display_name": "Python 3", "language": "python"}
    (foreign / "kernel.json").write_text(json.dumps(spec))
    monkeypatch.setenv("JUPYTER_PATH", str(foreign.parents[1]))
    monkeypatch.setenv("JUPYTER_DATA_DIR", str(foreign.parents[1]))
    monkeypatch.setenv("JUPYTER_PREFER_ENV_PATH", "0")
    assert main(["run", "--corpus", "espeak", "1_a"], project) == 0


def test_storing_runs_a_notebook_in_place_with_its_defaults(project):
    path = project / "notebooks" / "1_a.ipynb"
    assert main(["store", "1_a"], project) == 0
    stored = nbformat.read(path, as_version=4)
    assert [cell.source for cell in stored.cells] == [
        cell.source for cell in page("pass", "print(seed)").cells
    ]
    assert stored.cells[-1].outputs[0].text == "0\n"


def test_what_a_cell_prints_is_stored_in_one_piece_however_slowly_it_came(project):
    path = project / "notebooks" / "1_a.ipynb"
    said = "import time\nfor number in range(3):\n    print(number, flush=True)\n    time.sleep(0.5)"
    nbformat.write(page("pass", f"{said}\n1 + 1"), path)
    assert main(["store", "1_a"], project) == 0
    printed, result = nbformat.read(path, as_version=4).cells[-1].outputs
    assert printed.text == "0\n1\n2\n" and result.data["text/plain"] == "2"


def test_a_page_is_run_and_stored_at_the_same_time(project):
    path = project / "notebooks" / "1_a.ipynb"
    nbformat.write(page("pass", "import time; time.sleep(1); print(seed)"), path)
    with ThreadPoolExecutor(2) as pool:
        commands = (["run", "--corpus", "espeak", "-p", "seed", "7", "1_a"], ["store", "1_a"])
        assert list(pool.map(lambda command: main(command, project), commands)) == [0, 0]
    executed = project / rendering.QUICK_RUNS / "1_a.ipynb"
    assert [nbformat.read(one, as_version=4).cells[-1].outputs[0].text for one in (executed, path)] == [
        "7\n",
        "0\n",
    ]


def test_wrong_names_stop_the_command_before_anything_runs(project, capsys):
    assert main(["run", "--corpus", "espeak", "-p", "sed", "7"], project) == 2
    assert "1_a.ipynb: no parameter sed; valid: corpus = 'espeak', seed = 0" in capsys.readouterr().err
    assert main(["store", "4"], project) == 2
    assert "no notebook '4'; valid: 1_a, 2_b, 3_c" in capsys.readouterr().err
    (project / "notebooks" / "paper.yaml").write_text("9_z: {seed: 1}")
    assert main(["run", "--paper"], project) == 2
    assert "paper.yaml names unknown notebooks: 9_z" in capsys.readouterr().err
    assert not (project / "_build").exists()


def test_the_stand_in_corpus_is_announced_on_the_terminal(project, capsys, monkeypatch):
    monkeypatch.setattr(book.data, "default_corpus", lambda: "espeak")
    assert main(["run", "3_c"], project) == 0
    assert "Stand-in corpus" in capsys.readouterr().out
    run = nbformat.read(project / rendering.QUICK_RUNS / "3_c.ipynb", as_version=4)
    assert run.cells[-1].outputs[0].text == "espeak\n"


def test_the_quick_site_is_rendered_from_the_quick_runs(project, monkeypatch, capsys):
    for name in ("_config.yml", "_toc.yml", "book/index.md"):
        (project / name).parent.mkdir(parents=True, exist_ok=True)
        (project / name).touch()
    for tree in ("book", "_build"):
        (project / tree / "runs").mkdir(parents=True)
        for name in ("1_a", "2_b") if tree == "book" else ("1_a",):
            nbformat.write(page(f"print({tree!r})"), project / tree / "runs" / f"{name}.ipynb")
    called = []
    done = SimpleNamespace(returncode=0)
    monkeypatch.setattr(rendering.subprocess, "run", lambda command: called.append(command) or done)
    assert main(["render"], project) == 0
    assert capsys.readouterr().out == "not run here, so the committed runs are shown: 2_b.ipynb\n"
    source = called[0][2]
    runs = {name: nbformat.read(source / "book" / "runs" / f"{name}.ipynb", 4) for name in ("1_a", "2_b")}
    assert [cell.source for cell in runs["1_a"].cells][-1] == "print('_build')"
    assert rendering.COMMITTED in runs["2_b"].cells[1].source
    assert [cell.source for cell in runs["2_b"].cells][-1] == "print('book')"
    assert main(["render", "--paper"], project) == 0
    assert called[1][2] == project


def test_rendering_before_any_run_says_what_to_do(project, capsys):
    assert main(["render"], project) == 2
    assert re.search(r"_build/runs contains no runs: .*python -m book run.*--paper", capsys.readouterr().err)
