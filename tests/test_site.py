"""The site: the arrangement of notebooks for reading, the landing page's picture, and its numbers."""

import base64
import copy
import re
import sys
from pathlib import Path
from types import SimpleNamespace
from xml.etree import ElementTree

import docutils.core
import nbformat
import numpy as np
import pandas as pd
import pytest
import soundfile
from docutils import nodes
from docutils.utils import new_document
from nbformat.v4 import new_code_cell, new_markdown_cell, new_output
from scipy import stats

ROOT = Path(__file__).parents[1]
RUNS = sorted((ROOT / "book" / "runs").glob("*.ipynb"))

sys.path[:0] = [str(ROOT / "book" / "_ext"), str(ROOT / "book")]
import hero  # noqa: E402
import pages  # noqa: E402

from scnn.data import load_corpus  # noqa: E402
from scnn.features import trim_bounds  # noqa: E402

FINDINGS = (
    "A table.\n\n## What we found\n\n- It works.\n\n### Exercises\n\n1. Try.\n\nNext: [more](more.ipynb)."
)


def arranged(findings=FINDINGS):
    """A page with every kind of cell, as arranged for the site: its cells and their tags."""
    parameters = new_code_cell('corpus = "espeak"', metadata={"tags": ["parameters"]})
    begin = new_code_cell("require()\nbook.begin(corpus, 0)", outputs=[new_output("stream", text="stand-in")])
    cells = [
        new_markdown_cell("# Toy\n\nWhy?\n\nYou will see:\n\n- one;\n- two.\n\nA minute."),
        *(new_code_cell("import os"), parameters, begin),
        new_code_cell("short = 1", outputs=[new_output("stream", text="shown")]),
        new_code_cell("pass\n" * 9),
        new_code_cell('glue("key", 1, display=False)'),
        new_markdown_cell(findings),
    ]
    notebook = pages.arrange(nbformat.v4.new_notebook(cells=cells))
    sources = [cell["source"] for cell in notebook["cells"]]
    return sources, [cell["metadata"].get("tags", []) for cell in notebook["cells"]], notebook["cells"]


def test_a_page_is_laid_out_for_reading():
    sources, tags, cells = arranged()
    assert sources == [
        "# Toy\n\nWhy?\n\n:::{dropdown} You will see …\n- one;\n- two.\n:::\n\nA minute.",
        'import os\n\ncorpus = "espeak"\n\nrequire()\nbook.begin(corpus, 0)',
        "## What we found\n\n- It works.",
        "short = 1",
        "pass\n" * 9 + '\n\nglue("key", 1, display=False)',
        "A table.\n\n## Exercises\n\n1. Try.",
    ]
    hidden = ["hide-input"]
    assert tags == [[], hidden, [], [], hidden, []]
    assert [one["text"] for one in cells[1]["outputs"]] == ["stand-in"]  # the warning stays visible


def test_findings_that_refer_to_what_stands_above_them_stay_there():
    sources, _, _ = arranged(FINDINGS.replace("It works.", "See the table above."))
    assert 'href="#what-we-found"' in sources[2]
    assert sources[-1] == "A table.\n\n## What we found\n\n- See the table above.\n\n## Exercises\n\n1. Try."


def test_folded_cells_are_joined_where_one_of_them_shows_nothing():
    shown = new_output("stream", text="shown")
    glued = new_output("display_data", {"text/plain": "1"}, metadata={"scrapbook": {"name": "one"}})
    for first, second, joined in (([], [shown], 1), ([shown], [shown], 0), ([shown], [glued], 1)):
        cells = [
            new_code_cell("pass\n" * 9, outputs=first, metadata={"mystnb": {"figure": {"name": "a"}}}),
            new_code_cell("pass\n" * 9, outputs=second, metadata={"mystnb": {"figure": {"name": "b"}}}),
        ]
        cells = [new_markdown_cell("# Toy"), new_code_cell("1"), *cells]
        found = pages.arrange(nbformat.v4.new_notebook(cells=cells))["cells"][2:]
        assert [each for cell in found for each in cell["outputs"]] == first + second
        names = [cell["metadata"]["mystnb"]["figure"]["name"] for cell in found]
        assert names == (["a", "b"] if not joined else ["b"] if not first else ["a"])


def test_cells_of_long_text_may_take_several_lines_and_numbers_may_not():
    table = pd.DataFrame({"layers": ["8C3s2p1-16C3s2p1-10FC"], "rate": ["98.6 ± 0.37"]})
    shown = new_output("execute_result", {"text/html": table.to_html()}, execution_count=1)
    arranged = pages.arrange(nbformat.v4.new_notebook(cells=[new_code_cell("1", outputs=[shown])]))
    html = arranged["cells"][0]["outputs"][0]["data"]["text/html"]
    assert '<td class="long">8C3s2p1-16C3s2p1-10FC</td>' in html and "<td>98.6 ± 0.37</td>" in html


def test_a_long_table_is_folded_with_its_code_and_a_short_one_stays():
    def tags(rows):
        table = new_output("execute_result", {"text/html": "<table>" + rows * "<tr></tr>"}, execution_count=1)
        cells = [new_code_cell("table", outputs=[table])]
        return pages.arrange(nbformat.v4.new_notebook(cells=cells))["cells"][0]["metadata"].get("tags", [])

    assert tags(30) == ["hide-cell"] and tags(5) == []


def test_a_table_has_one_row_of_heads_with_the_names_of_its_index():
    def heads(table):
        shown = new_output("execute_result", {"text/html": table.to_html()}, execution_count=1)
        arranged = pages.arrange(nbformat.v4.new_notebook(cells=[new_code_cell("1", outputs=[shown])]))
        head, _, body = arranged["cells"][0]["outputs"][0]["data"]["text/html"].partition("</thead>")
        assert body == table.to_html().partition("</thead>")[2]
        return [re.findall(r"<th[^>]*>([^<]*)</th>", row) for row in head.split("</tr>")]

    table = pd.DataFrame({"model": ["A", "B"], "layer": ["1", "2"], "rate": [0.1, 0.2]})
    named = table.set_index(["model", "layer"])
    assert heads(named) == [["model", "layer", "rate"], []]
    assert heads(named.rename_axis(columns="n = 3")) == [["model", "layer, n = 3", "rate"], []]
    assert heads(table) == [["", "model", "layer", "rate"], []]
    assert heads(named.rename_axis(index=[None, "layer"])) == [["", "layer", "rate"], []]


def test_what_is_folded_as_an_appendix_is_there():
    text = "".join(path.read_text(encoding="utf-8") for path in RUNS)
    assert all(f"## {title.replace('’', chr(39))}" in text for title in pages.APPENDIX)


def test_a_wide_figure_is_marked_for_phones():
    def image(width, metadata=None):
        head = b"\x89PNG\r\n\x1a\n" + bytes([0, 0, 0, 13]) + b"IHDR" + width.to_bytes(4, "big")
        drawn = new_output("display_data", {"image/png": base64.b64encode(head).decode()})
        drawn.metadata = {"image/png": metadata} if metadata else {}
        cells = [new_code_cell("1", outputs=[drawn], metadata={"mystnb": {"image": {"alt": "a line"}}})]
        (cell,) = pages.arrange(nbformat.v4.new_notebook(cells=cells))["cells"]
        return cell["metadata"]["mystnb"]["image"]

    assert image(800) == {"alt": "a line", "classes": "wide"}
    assert image(340) == {"alt": "a line", "width": "340px"}
    assert image(900, {"width": 450}) == {"alt": "a line", "width": "450px"}
    assert image(1600, {"width": 800}) == {"alt": "a line", "classes": "wide"}


@pytest.mark.parametrize("text", ["98.7 ± 0.57", "97.3", "1,615,606", "–", "-0.1", "98.1 %", "27 ×"])
def test_a_number_is_known(text):
    assert pages.NUMBER.fullmatch(text)


def test_a_negative_number_in_the_text_has_a_minus_sign():
    words = nodes.inline("", "Model A -0.04, fsdd-1.0.8, 8C3-10FC", classes=["pasted-text"])
    untouched = nodes.inline("", "-1")
    document = new_document("page")
    document += [words, untouched]
    pages.set_minus(None, document, "page")
    assert words.astext() == "Model A −0.04, fsdd-1.0.8, 8C3-10FC" and untouched.astext() == "-1"


@pytest.mark.parametrize("text", ["not reproduced (higher)", "A, T = 10", "3 of them", ""])
def test_a_text_is_no_number(text):
    assert not pages.NUMBER.fullmatch(text)


def test_findings_that_come_first_stay_where_they_are():
    cells = [
        new_markdown_cell("# Toy\n\n## What we found\n\n- It works."),
        new_code_cell("1"),
        new_markdown_cell("## Why\n\nSo.\n\n**Next:** [more](more.ipynb)."),
    ]
    found = [cell["source"] for cell in pages.arrange(nbformat.v4.new_notebook(cells=cells))["cells"]]
    assert found == ["# Toy\n\n## What we found\n\n- It works.", "1", "## Why\n\nSo."]


@pytest.mark.parametrize("path", RUNS, ids=lambda path: path.stem)
def test_every_page_keeps_its_text_and_outputs(path):
    before, after = nbformat.read(path, 4), pages.arrange(nbformat.read(path, 4))

    def outputs(notebook):
        found = [one for cell in notebook["cells"] for one in copy.deepcopy(cell.get("outputs", []))]
        for one in found:  # a table's two header rows may be merged, but their words stay
            if "text/html" in one.get("data", ()):
                one["data"]["text/html"] = sorted(re.sub("<[^>]*>|,", " ", one["data"]["text/html"]).split())
        return found

    def lines(notebook):
        return {line for cell in notebook["cells"] for line in cell["source"].split("\n")}

    assert outputs(after) == outputs(before)
    lost = {line.strip() for line in lines(before) - lines(after)}
    assert all(
        line.startswith(("You will", "Next", "**Next", "Back", "### Ex", "Exercises")) for line in lost
    )
    text = "\n".join(cell["source"] for cell in after["cells"])
    assert text.count("## What we found") == 1
    first = next(i for i, cell in enumerate(after["cells"]) if cell["cell_type"] == "code")
    assert any("what we found" in cell["source"].lower() for cell in after["cells"][: first + 2])


# --- the landing page -------------------------------------------------------------------------------------


def test_a_map_is_drawn_where_it_is_not_zero():
    strength = np.zeros((4, 4))
    strength[1, 2], strength[3, 0] = 1.0, 0.1
    drawn = hero.pixels(strength, "blue")
    side = hero.SIDE / 4
    assert re.findall(r"M([\d.]+) ([\d.]+)h", drawn) == [
        ("0.00", f"{3 * side:.2f}"),  # the faintest first
        (f"{2 * side:.2f}", f"{side:.2f}"),
    ]
    assert 'opacity="1.00"' in drawn and hero.pixels(np.zeros((4, 4)), "blue") == ""


def test_every_output_spike_is_a_tick_and_the_answer_is_coloured():
    spikes = np.zeros((5, 3))
    spikes[:, 1], spikes[2, 0] = 1, 1
    drawn = hero.race(spikes, answer=1)
    assert drawn.count("v") == 6
    assert re.findall(r'fill="\{(\w+)\}">(\d)', drawn) == [("ink", "0"), ("orange", "1"), ("ink", "2")]


def test_the_picture_is_the_same_in_both_themes():
    light, dark = (ElementTree.parse(ROOT / f"book/_static/hero-{theme}.svg") for theme in ("light", "dark"))

    def parts(picture):
        return [(one.tag, one.get("d"), one.text) for one in picture.iter()]

    assert parts(light) == parts(dark) and len(parts(light)) > 30
    assert {one.get("fill") for one in light.iter()} != {one.get("fill") for one in dark.iter()}


def test_the_word_of_the_picture_is_the_recording_of_the_corpus(fsdd):
    corpus = load_corpus("fsdd-1.0.8")
    sound, rate = soundfile.read(ROOT / "book" / "_static" / "word.wav", dtype="float32")
    clips = np.flatnonzero((corpus.speakers == "jackson") & (corpus.takes == 0))
    (clip,) = (one for one in clips if corpus.classes[corpus.labels[one]] == hero.DIGIT)
    assert rate == corpus.sample_rate
    np.testing.assert_allclose(sound, corpus.waveforms[clip], atol=1e-4)


def glued(page):
    """The numbers glued by a committed run, by key."""
    outputs = (
        one
        for cell in nbformat.read(ROOT / "book" / "runs" / f"{page}.ipynb", 4).cells
        for one in cell.get("outputs", ())
        if "scrapbook" in one.get("metadata", {})
    )
    return {one.metadata["scrapbook"]["name"]: next(iter(one.data.values())) for one in outputs}


def test_the_findings_of_the_readme_are_those_of_the_committed_runs():
    text = " ".join((ROOT / "README.md").read_text(encoding="utf-8").split())
    layers, table = glued("05_layers"), glued("08_table")
    said = re.search(r"In Model A (\d+) % of them .*? and ([\d.]+) % belong", text).groups()
    assert said == (
        f"{float(layers['first_padding_raw']):.0f}",
        f"{float(layers['first_sparse_raw']):.1f}",
    )
    said = re.search(r"(\d+) times fewer operations .*? gets ([\d.]+) ± .*? B gets ([\d.]+) ±", text).groups()
    accuracies = [float(table[f"accuracy_{one}_fp32"]) for one in ("cnn", "b10")]
    assert said == (f"{float(table['b_macs_times']):.0f}", *(f"{one:.1f}" for one in accuracies))
    assert 0 < accuracies[1] - accuracies[0] < 0.5
    said = re.search(r"costs our Model A (\d+) points.*? it costs ([\d.]+) ", text).groups()
    lost = float(table["lost_a10_int8_paper"]), float(table["lost_a10_int8"])
    assert said == (f"{lost[0]:.0f}", f"{lost[1]:.1f}")


# --- the solutions ----------------------------------------------------------------------------------------

SOLUTIONS = " ".join((ROOT / "book" / "solutions.md").read_text(encoding="utf-8").split())


def test_the_energies_are_those_of_the_committed_trainings():
    rows = pd.read_csv(ROOT / "book" / "runs" / "records.csv")
    rows = rows[(rows["page"] == "08_table") & (rows["precision"] == "fp32")]
    operations = rows.groupby(["model", "num_steps"])["synops"].mean()
    first = float(glued("01_features")["window_share"]) / 100 * 32**2 * 54  # MACs of the layer with the image
    energy = (4.6 * first + 0.9 * (operations - first)) / 1000  # nJ, of MACs and additions of 32 bits
    energy[("CNN", 10)] = 4.6 * operations[("CNN", 10)] / 1000
    said = re.search(
        r"B at \*T\* = 1 takes (\S+) nJ and A .*? (\S+) nJ; B .*? (\S+) nJ, .*? (\S+) nJ .*? takes (\S+) nJ",
        SOLUTIONS,
    )
    order = [("B", 1), ("A", 1), ("B", 10), ("CNN", 10), ("A", 10)]
    assert said.groups() == tuple(f"{energy[one]:,.0f}" for one in order)


def test_no_verdict_of_the_table_depends_on_the_repeats():
    ours = glued("08_table")
    printed = {  # leow2023: mean and standard deviation, as on the page, and whether it calls them consistent
        "a10_fp32": (98.7, 0.57, True),
        "a1_fp32": (95.4, 3.24, True),
        "b10_fp32": (98.4, 0.35, True),
        "b1_fp32": (93.1, 0.77, False),
        "a10_int8_paper": (74.1, 9.22, False),
        "a1_int8_paper": (61.6, 12.30, True),
        "b10_int8_paper": (97.0, 0.77, False),
        "b1_int8_paper": (91.3, 2.40, False),
    }
    for row, (mean, deviation, consistent) in printed.items():
        assert (ours[f"verdict_{row}"].strip("'") == "consistent") == consistent
        here = float(ours[f"accuracy_{row}"]), float(ours[f"accuracy_{row}_sd"]), int(ours["n_seeds"])
        for repeats in (3, 50):
            p = stats.ttest_ind_from_stats(mean, deviation, repeats, *here, equal_var=False).pvalue
            assert (p >= 0.05) == consistent, (row, repeats)


def test_nine_seeds_are_the_fewest_that_halve_the_interval_of_three():
    factors = {n: stats.t.ppf(0.975, n - 1) * np.sqrt(1 + 1 / n) for n in range(3, 12)}
    assert min(n for n in factors if factors[n] < factors[3] / 2) == 9
    assert f"{factors[3]:.2f}. Nine seeds" in SOLUTIONS and f"the factor {factors[9]:.2f}," in SOLUTIONS


def test_the_hop_that_fills_the_image(fsdd):
    begin, end = trim_bounds(load_corpus("fsdd-1.0.8").waveforms, trim_db=10.0).T
    samples = end - begin
    hop = int(samples.max()) // 32 + 1
    share = 100 * np.mean(1 + samples // hop) / 32
    assert 1 + samples.max() // hop <= 32 < 1 + samples.max() // (hop - 1)
    assert f"has {samples.max():,} samples" in SOLUTIONS and f"at least {hop} samples" in SOLUTIONS
    assert f"Then {share:.0f} % of the image" in SOLUTIONS


def test_on_github_the_pages_link_to_the_repository(monkeypatch):
    config = SimpleNamespace(html_baseurl="", html_theme_options={"show_toc_level": 2})
    monkeypatch.delenv("GITHUB_REPOSITORY", raising=False)
    pages.link(None, config)
    assert config.html_theme_options == {"show_toc_level": 2} and config.html_baseurl == ""
    monkeypatch.setenv("GITHUB_REPOSITORY", "Someone/listens")
    pages.link(None, config)
    assert config.html_theme_options["repository_url"] == "https://github.com/Someone/listens"
    assert config.html_baseurl == "https://someone.github.io/listens/"


def test_a_preview_shows_title_description_and_picture():
    doctree = docutils.core.publish_doctree("Short.\n\nA paragraph that says what a page is about, & more.")
    app = SimpleNamespace(config=SimpleNamespace(html_baseurl="https://example.org/"))
    context = {"title": "A <em>page</em>", "metatags": ""}
    pages.describe(app, "book/toy", "page.html", context, doctree)
    assert 'property="og:title" content="A page"' in context["metatags"]
    assert (
        'name="description" content="A paragraph that says what a page is about, &amp; more."'
        in context["metatags"]
    )
    assert "https://example.org/book/toy.html" in context["metatags"]
    (picture,) = re.findall(r'og:image" content="https://example.org/(.*?)"', context["metatags"])
    assert (ROOT / "book" / picture).exists()
