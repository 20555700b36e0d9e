"""Sphinx extension: arrange the notebooks for reading on the site, and add metadata for other sites.

A notebook is written to be run: set-up first, findings last. `arrange` turns a copy of it into a page for
reading: it folds the set-up, longer code, the list of contents and cells that glue numbers, and moves the
findings to the top. The files stay unchanged. Each page also gets a description for search engines and
previews. On GitHub, where GITHUB_REPOSITORY names the repository, pages link to it.
"""

import ast
import base64
import json
import os
import re
from pathlib import Path

LINES = 8  # longer code is folded
ROWS = 17  # longer tables, including the header, are folded
APPENDIX = {
    "Are these librosa’s features?",
    "Energies of a filter bank",
    "What a checkpoint holds",
    "Normalisation",
    "From image to spikes",
    "Fewer bits",
    "The control CNN, quantised after its training",
    "How many trainings are behind a printed row?",
    "Sparsity, step by step",
    "Feature maps beside spike maps",
}  # sections with these titles are folded, too
WIDE = 640  # pixels; on a phone, wider figures scroll instead of shrinking
NUMBER = re.compile(r"[−–\-]?\d[\d.,]*(?:\s*[%±×M]\s*(?:\d[\d.,]*)?)*|–")  # matches a numeric table cell
FINDINGS = re.compile(r"^## What we found\n.*?(?=^(?:#+ )?Exercises$|\Z)", re.MULTILINE | re.DOTALL)
CONTENTS = re.compile(r"^(You will[^\n]*?):?\n\n(- .*?)(?=\n\n(?!- )|\Z)", re.MULTILINE | re.DOTALL)
EXERCISES = re.compile(r"^(?:#+ )?Exercises$", re.MULTILINE)
HEADS = re.compile(
    r"(<tr[^>]*>)((?:\s*<th[^>]*>[^<]*</th>)+)\s*</tr>\s*<tr>((?:\s*<th>[^<]*</th>)+)\s*(?=</tr>\s*</thead>)"
)
MINUS = re.compile(r"(?:(?<=\s)|^)-(?=\d)")
LONG = re.compile(r"<td>([^<]{17,}</td>)")
LINKS = re.compile(r"\n+(?:\*\*Next:\*\*|Next:|Back to)[^\n]*(?:\n(?!\n)[^\n]+)*\s*\Z")  # at the very end


def arrange(notebook):
    """Arrange the cells of a notebook for reading, in place, and return it."""
    cells = [cell | {"source": "".join(cell["source"])} for cell in notebook["cells"]]
    if cells and cells[0]["cell_type"] == "markdown":
        cells[0]["source"] = CONTENTS.sub(r":::{dropdown} \1 …\n\2\n:::", cells[0]["source"])
    cells = _join_folded(_drop_links(_findings_first(_join_setup(cells))))
    for cell in cells:
        if cell["cell_type"] == "code":
            _mark_wide(cell)
            _shape_table(cell)
            metadata = cell["metadata"]
            if _is_long_table(cell):
                metadata["tags"] = [*metadata.get("tags", []), "hide-cell"]
                metadata["mystnb"] = {
                    "code_prompt_show": "Show the table",
                    "code_prompt_hide": "Hide the table",
                }
            elif _folds(cell):
                metadata["tags"] = [*metadata.get("tags", []), "hide-input"]
    notebook["cells"] = cells
    return notebook


def _tags(cell):
    return set(cell["metadata"].get("tags", []))


def _is_setup(cell):
    """Whether a cell holds imports, parameters, or their checks."""
    source = cell["source"]
    if _tags(cell) & {"parameters", "injected-parameters"} or re.search(r"^book\.begin\(", source, re.M):
        return True
    return isinstance(next(iter(ast.parse(source).body), None), ast.Import | ast.ImportFrom)


def _folds(cell):
    long = len(cell["source"].splitlines()) > LINES
    return long or _is_setup(cell) or bool(re.search(r"^ *glue\(", cell["source"], re.MULTILINE))


def _shown(cell):
    """The outputs of a cell that a reader sees: those that only glue a number show nothing."""
    return [one for one in cell["outputs"] if "scrapbook" not in one.get("metadata", {})]


def _is_long_table(cell):
    """Whether a cell shows only long tables."""
    tables = ["".join(one.get("data", {}).get("text/html", "")).count("<tr") for one in _shown(cell)]
    return bool(tables) and min(tables) > ROWS


def _join_setup(cells):
    """Join the first consecutive set-up cells into one, which folds into a single line."""
    start = next((i for i, cell in enumerate(cells) if cell["cell_type"] == "code"), len(cells))
    end = start
    while end < len(cells) and cells[end]["cell_type"] == "code" and _is_setup(cells[end]):
        end += 1
    if end - start < 2:
        return cells
    joined = cells[start] | {
        "source": "\n\n".join(cell["source"] for cell in cells[start:end]),
        "outputs": [one for cell in cells[start:end] for one in cell["outputs"]],
        "metadata": {"mystnb": {"code_prompt_show": "Show imports and parameters"}},
    }
    return [*cells[:start], joined, *cells[end:]]


def _join_folded(cells):
    """Join two folded cells in a row into one, if one of them shows nothing."""
    joined = []
    for cell in cells:
        before = joined[-1] if joined else None
        if before and before["cell_type"] == cell["cell_type"] == "code" and _folds(before) and _folds(cell):
            if not _shown(before) or not _shown(cell):
                source = f"{before['source']}\n\n{cell['source']}"
                outputs = before["outputs"] + cell["outputs"]
                kept = before if _shown(before) else cell  # whose caption and tags count
                joined[-1] = kept | {"source": source, "outputs": outputs}
                continue
        joined.append(cell)
    return joined


def _mark_wide(cell):
    """Give a cell's picture the class `wide` if it is, or else its display width.

    The display width is in the output's metadata; by default it is the PNG's own width, in bytes 16 to 19.
    """
    for one in cell["outputs"]:
        if png := one.get("data", {}).get("image/png"):
            pixels = int.from_bytes(base64.b64decode("".join(png))[16:20], "big")
            width = one.get("metadata", {}).get("image/png", {}).get("width", pixels)
            image = cell["metadata"].setdefault("mystnb", {}).setdefault("image", {})
            image |= {"classes": "wide"} if width > WIDE else {"width": f"{width}px"}


def _shape_table(cell):
    """Merge the names of a table's index, which pandas puts in a separate row, into the header row above.

    Cells of long text get the class `long`, which lets them wrap.
    """

    def joined(found):
        start, heads, names = found[1], *(re.findall(r"<th[^>]*>([^<]*)</th>", found[n]) for n in (2, 3))
        pairs = list(zip(names, heads, strict=False))
        if len(heads) != len(names) or sum(map(all, pairs)) > 1:  # the latter are columns of two levels
            return found[0]
        return start + "".join(f"<th>{', '.join(filter(None, pair))}</th>" for pair in pairs)

    for one in cell["outputs"]:
        if html := one.get("data", {}).get("text/html"):
            one["data"]["text/html"] = LONG.sub(r'<td class="long">\1', HEADS.sub(joined, "".join(html)))


def _findings_first(cells):
    """Move the findings to just after the set-up, unless they are already there or before it.

    Findings that refer to something "above" stay at the end; a link to them is added at the top.
    """
    place = next((i + 1 for i, cell in enumerate(cells) if cell["cell_type"] == "code"), len(cells))
    for number, cell in enumerate(cells[place + 1 :], start=place + 1):
        if cell["cell_type"] != "markdown" or not (found := FINDINGS.search(cell["source"])):
            continue
        section, rest = found[0].rstrip(), cell["source"][: found.start()]
        if re.search(r"\babove\b(?! zero)", section):
            rest += section + "\n\n"
            section = 'In a hurry? Go straight to <a href="#what-we-found">what we found</a>.'
        rest += EXERCISES.sub("## Exercises", cell["source"][found.end() :])
        moved = {"cell_type": "markdown", "id": "findings", "metadata": {}, "source": section}
        return [*cells[:place], moved, *cells[place:number], cell | {"source": rest}, *cells[number + 1 :]]
    return cells


def _drop_links(cells):
    """Drop a notebook's closing links to the previous and next page, because the site has its own."""
    last = cells[-1] if cells else None
    if last and last["cell_type"] == "markdown":
        last = last | {"source": LINKS.sub("", "\n\n" + last["source"]).strip()}
        return [*cells[:-1], last] if last["source"] else cells[:-1]
    return cells


def read(app, docname, source):
    """Arrange a notebook that Sphinx has just read, and link to the solutions of its exercises."""
    if not app.env.doc2path(docname).endswith(".ipynb"):
        return
    notebook = arrange(json.loads(source[0]))
    label = f"solutions-{docname.rpartition('/')[2]}"
    if f"({label})=" in (Path(app.srcdir) / "book" / "solutions.md").read_text(encoding="utf-8"):
        text = f"Stuck? Some of these are [solved](#{label})."
        notebook["cells"].append({"cell_type": "markdown", "id": "solved", "metadata": {}, "source": text})
    source[0] = json.dumps(notebook)


def mark_numbers(app, doctree, docname):
    """Give numeric table cells the class `number`, which keeps them on one line."""
    from docutils import nodes

    for entry in doctree.findall(nodes.entry):
        if NUMBER.fullmatch(entry.astext().strip()):
            entry["classes"].append("number")


def set_minus(app, doctree, docname):
    """Set the hyphen before a negative number that a page hands to its text as a minus sign."""
    from docutils import nodes

    for pasted in doctree.findall(nodes.inline):
        if "pasted-text" in pasted["classes"]:
            for text in list(pasted.findall(nodes.Text)):
                text.parent.replace(text, nodes.Text(MINUS.sub("−", text)))


def fold_appendices(app, doctree, docname):
    """Fold the sections listed in `APPENDIX`: checks and asides that the argument does not need."""
    from docutils import nodes

    for section in doctree.findall(nodes.section):
        if (title := section.next_node(nodes.title)) and title.astext() in APPENDIX:
            begin = '<details class="appendix"><summary>Show this section</summary>'
            section.insert(section.index(title) + 1, nodes.raw("", begin, format="html"))
            section.append(nodes.raw("", "</details>", format="html"))


def describe(app, pagename, templatename, context, doctree):
    """Add a page's title and first paragraph to its HTML head, for link previews."""
    if doctree is None:
        return
    from docutils import nodes

    texts = (" ".join(one.astext().split()) for one in doctree.findall(nodes.paragraph))
    text = next((one for one in texts if len(one) > 40), "")
    if len(text) > 200:
        text = text[:200].rpartition(" ")[0] + " …"
    found = {"og:title": context["title"], "og:description": text, "og:type": "article"}
    if app.config.html_baseurl:
        found["og:url"] = f"{app.config.html_baseurl}{pagename}.html"
        found["og:image"] = f"{app.config.html_baseurl}_static/fig-03-maps.png"
    lines = [_meta("name", "description", text)]
    lines += [_meta("property", name, value) for name, value in found.items()]
    context["metatags"] = "\n".join([context.get("metatags", ""), *lines])


def _meta(kind, name, value):
    from markupsafe import Markup

    plain = Markup(value).striptags()  # titles are HTML
    return Markup('<meta {}="{}" content="{}" />').format(Markup(kind), name, plain)


def link(app, config):
    """On GitHub, link to the repository and set the site's address."""
    if repository := os.environ.get("GITHUB_REPOSITORY"):
        owner, _, name = repository.partition("/")
        config.html_baseurl = f"https://{owner.lower()}.github.io/{name}/"
        config.html_theme_options |= {
            "repository_url": f"https://github.com/{repository}",
            "use_repository_button": True,
        }


def setup(app):
    """Register with Sphinx."""
    app.connect("config-inited", link)
    app.connect("source-read", read)
    app.connect("doctree-resolved", mark_numbers)
    app.connect("doctree-resolved", set_minus)
    app.connect("doctree-resolved", fold_appendices)
    app.connect("html-page-context", describe)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
