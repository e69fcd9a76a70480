"""The report of a run: a page for each executed notebook, and an index with date, versions and totals.

No page needs the network.
"""

from __future__ import annotations

import html
import re
import sys
from datetime import datetime
from importlib.metadata import version
from pathlib import Path

from helpers import course
from helpers.run import Result
from helpers.workspace import REPOSITORY

TOOLS = ("feast", "mlflow", "kfp", "kubeflow", "kserve", "optuna", "scikit-learn")


_INDEX_STYLE = """<style>
:root { color-scheme: light dark }
body { font: 16px/1.5 system-ui, sans-serif; margin: 2rem auto; max-width: 60rem; padding: 0 1rem }
div { overflow-x: auto }
table { border-collapse: collapse }
td, th { padding: .4rem .75rem .4rem 0; text-align: left; vertical-align: top }
tr { border-bottom: 1px solid #8888 }
tfoot td { font-weight: bold }
.bad { color: light-dark(#b00, #ff8a80); overflow-wrap: anywhere }
.name { font-size: 14px; opacity: .8; overflow-wrap: anywhere }
@media (max-width: 40rem) { body { font-size: 14px } td, th { padding-right: .5rem } }
</style>"""

# Prose in lines of about 75 characters; code, tables and plots take the width they find, and scroll within
# themselves on a phone.
_PAGE_STYLE = """<style>
body.jp-Notebook { padding: 0 }
main { max-width: 64rem; margin: 0 auto; padding: 0 1rem }
nav.run { display: flex; flex-wrap: wrap; justify-content: space-between; gap: .25rem 1rem; padding: .75rem 0;
  font: 14px system-ui, sans-serif }
nav.run a { text-decoration: underline }
.jp-MarkdownOutput > :not(pre, table, p:has(> img)) { max-width: 58ch }
.jp-RenderedHTMLCommon table { display: block; width: max-content; max-width: 100%; margin-left: 0;
  overflow-x: auto }
.jp-OutputArea-output, .highlight, .jp-RenderedHTMLCommon pre { overflow-x: auto }
.jp-OutputArea-output { min-width: 0 }
.jp-RenderedHTMLCommon :is(p, li, a, h1, h2, h3) { overflow-wrap: anywhere }
img, svg { max-width: 100%; height: auto }
.jp-OutputArea :is(pre, code), .highlight pre { font-family: ui-monospace, Menlo, Consolas, monospace }
.celltag_check { border-left: 4px solid #2e7d32; background: #2e7d3214 }
img { background: white }
@media (max-width: 40rem) { .jp-InputPrompt, .jp-OutputPrompt { display: none } }
</style>"""

# The template's own styles come first, in its light theme.
_TEMPLATE = """{%- extends 'lab/index.html.j2' -%}
{% block html_head_css %}{{ super() }}{{ resources.include_css("static/theme-dark.css")
  | replace('<style type="text/css">', '<style>@media (prefers-color-scheme: dark) {')
  | replace('</style>', '}</style>') }}{{ resources.workshop.style }}{% endblock %}
{% block body_header %}{{ super() }}{{ resources.workshop.ways }}{% endblock %}
{% block body_footer %}{{ resources.workshop.ways }}{{ super() }}{% endblock %}
{% block data_png scoped %}<div class="jp-RenderedImage jp-OutputArea-output">
<img src="data:image/png;base64,{{ output.data['image/png'] | replace("\\n", "") }}"
     alt="{{ output | get_metadata('alt', 'image/png') | escape }}">
</div>{% endblock %}"""


def _for_a_page(source: str) -> str:
    """Markdown whose links, written for the folder of the notebooks, work on the page of a report; its
    pictures are taken in from the repository."""
    source = source.replace("](../docs/pictures/", "](docs/pictures/").replace(
        "](../", f"]({REPOSITORY.as_uri()}/"
    )
    return re.sub(r"\]\((\d\d_\w+)\.ipynb\)", r"](\1.html)", source)


def _ways(names: list[str], name: str) -> str:
    """The links of a page: to the notebook before, to the index, to the notebook after."""
    place = names.index(name)
    before, after = names[:place][-1:], names[place + 1 :][:1]
    links = [f'<a rel="prev" href="{n}.html">← {n}</a>' for n in before]
    links += ['<a href="index.html">all notebooks of this run</a>']
    links += [f'<a rel="next" href="{n}.html">{n} →</a>' for n in after]
    return f'<nav class="run">{"".join(links)}</nav>'


def _row(result: Result, has_page: bool) -> str:
    facts = course.notebooks().get(result.name[:2])
    title = f"{facts.number} {html.escape(facts.title)}" if facts else result.name
    name = f'<a href="{result.name}.html">{title}</a>' if has_page else title
    name += f'<div class="name">{result.name}</div>' if facts else ""
    minutes = facts.reading + facts.exercises if facts else ""
    outcome = f'<b class="bad">{html.escape(result.failure)}</b>' if result.failure else "passed"
    return f"<tr><td>{name}<td>{minutes}<td>{result.seconds:.1f}<td>{result.checks}<td>{outcome}"


def report(results: list[Result], folder: Path) -> Path:
    """Write ``index.html`` and a page per executed notebook.

    Args:
        results: of the notebooks, in the order of the course.
        folder: holds their executed copies, and takes the pages.

    Returns:
        The path of the index.
    """
    import nbformat
    from jinja2 import DictLoader
    from nbconvert import HTMLExporter

    exporter = HTMLExporter(
        extra_loaders=[DictLoader({"workshop.html.j2": _TEMPLATE})],
        template_file="workshop.html.j2",
        embed_images=True,
    )
    for address in (
        "mathjax_url",
        "require_js_url",
        "jquery_url",
        "jupyter_widgets_base_url",
        "mermaid_js_url",
    ):
        setattr(exporter, address, "")
    names = [result.name for result in results if (folder / f"{result.name}.ipynb").exists()]
    for name in names:
        copy = folder / f"{name}.ipynb"
        notebook = nbformat.read(copy, as_version=4)
        for cell in notebook.cells:
            if cell.cell_type == "markdown":
                cell.source = _for_a_page(cell.source)
            for output in cell.get("outputs", []):
                if "text/markdown" in output.get("data", {}):
                    output.data["text/markdown"] = _for_a_page(output.data["text/markdown"])
        place = {"metadata": {"name": name, "path": str(REPOSITORY)}}
        workshop = {"style": _PAGE_STYLE, "ways": _ways(names, name)}
        page, _ = exporter.from_notebook_node(notebook, resources={**place, "workshop": workshop})
        copy.with_suffix(".html").write_text(page, encoding="utf-8")
    versions = ", ".join([f"Python {sys.version.split()[0]}", *(f"{tool} {version(tool)}" for tool in TOOLS)])
    failed = sum(bool(result.failure) for result in results)
    outcome = f'<b class="bad">{failed} failed</b>' if failed else "all passed"
    total = f"<td>{sum(r.seconds for r in results):.1f}<td>{sum(r.checks for r in results)}<td>{outcome}"
    index = folder / "index.html"
    index.write_text(
        '<!doctype html><html lang="en"><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1"><title>Workshop run</title>'
        f"{_INDEX_STYLE}<h1>Workshop run</h1>"
        f"<p>{datetime.now().astimezone():%Y-%m-%d %H:%M %Z}<p>{versions}"
        "<div><table><thead><tr><th>notebook<th>minutes to work through<th>seconds to run<th>checks passed"
        "<th>outcome</thead>"
        f"<tbody>{''.join(_row(result, result.name in names) for result in results)}</tbody>"
        f"<tfoot><tr><td>total<td>{total}</tfoot></table></div></html>\n",
        encoding="utf-8",
    )
    return index
