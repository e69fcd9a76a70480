"""The website. Sphinx reads the repository's own pages, and this turns what GitHub and JupyterLab show in
another way: tags of cells, links to files that are no pages, glossary terms, the table of notebooks."""

from __future__ import annotations

import html
import importlib
import json
import os
import pkgutil
import re
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pygments.lexers.special import TextLexer

from exercises.core import exercise
from helpers import course

if TYPE_CHECKING:
    from sphinx.application import Sphinx

ROOT = Path(__file__).resolve().parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")

project = README.splitlines()[0].removeprefix("# ").partition(":")[0]
extensions = ["myst_nb", "sphinx_design", "sphinx_copybutton", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]
include_patterns = [
    "index.md",
    "notebooks/[0-9]*.ipynb",
    "docs/*.md",
    "docs/site/api/*.md",
    "cluster/README.md",
    "data/README.md",
    "data/flights/README.md",
    "lifecycle/README.md",
    "lifecycle/CHANGELOG.md",
    "CONTRIBUTING.md",
    "SECURITY.md",
    "CHANGELOG.md",
]
exclude_patterns = [".*", "workspace", "wheels", "tests", "lifecycle/src", "lifecycle/tests"]

html_theme = "sphinx_book_theme"
html_title = project
html_static_path = ["static"]
html_css_files = ["site.css"]
html_js_files = [("site.js", {"defer": "defer"})]
html_context = {"default_mode": "auto"}
html_show_sphinx = False
html_copy_source = False
html_use_index = False
html_domain_indices = False
html_theme_options = {
    "navbar_persistent": [],
    "use_download_button": False,
    "show_navbar_depth": 1,
    "pygments_light_style": "a11y-high-contrast-light",
    "pygments_dark_style": "a11y-high-contrast-dark",
}
copybutton_exclude = ".linenos, .gp, .go"

nb_execution_mode = "off"  # the committed outputs
nb_ipywidgets_js = {}  # they would come from another server
nb_merge_streams = True
nb_render_markdown_format = "myst"  # links in an output are links of the page
myst_heading_anchors = 4

default_role = "code"
napoleon_use_ivar = True  # an attribute that autodoc finds too is described once
add_module_names = False
autodoc_default_options = {
    "members": True,
    "member-order": "bysource",
    "exclude-members": "model_config, Address, KubernetesName",
}
autodoc_typehints_format = "short"

SERVER, REPOSITORY, COMMIT = map(os.environ.get, ("GITHUB_SERVER_URL", "GITHUB_REPOSITORY", "GITHUB_SHA"))
FILES = f"{SERVER}/{REPOSITORY}/blob/{COMMIT}" if SERVER else ROOT.as_uri()
"""Where links to files lead that are no pages: to the hosting site, or on a laptop into the clone."""
myst_url_schemes = {"http": None, "https": None, "mailto": None, "repository": f"{FILES}/{{{{path}}}}"}
FOLDED = {"check": "Show the check", "exercise-check": "Show the check", "showed": "Show the code"}


def cards() -> str:
    """The notebooks as cards, in place of README's table."""
    grid = ["`````{grid} 1 2 2 3", ":gutter: 3", ""]
    for found in course.notebooks().values():
        grid += [f"````{{grid-item-card}} {found.number} {found.title}", f":link: notebooks/{found.stem}"]
        grid += [":link-type: doc", "", found.summary[0].upper() + found.summary[1:], "", "```{card-footer}"]
        grid += [f"{found.reading + found.exercises} minutes", "```", "````", ""]
    return "\n".join([*grid, "`````"])


def modules(package: str) -> str:
    """What the modules of a package of ``lifecycle`` hold, each below a heading of its own."""
    found = importlib.import_module(package)
    names = [f"{package}.{module.name}" for module in pkgutil.iter_modules(getattr(found, "__path__", []))]
    for name in names:  # autodoc would import with TYPE_CHECKING set, which MLflow does not survive
        importlib.import_module(name)
    return "\n".join(
        (f"## {name.removeprefix(f'{package}.')}\n" if name != package else "")
        + f"```{{eval-rst}}\n.. automodule:: {name}\n```\n"
        for name in [package, *names]
    )


def terms() -> dict[str, str]:
    """The first paragraph of each entry of the glossary, by its anchor."""
    text = (ROOT / "docs" / "glossary.md").read_text(encoding="utf-8")
    entries = re.findall(r"(?ms)^## (.+?)\n\n(.+?)\n\n", text)
    return {
        term.lower().replace(" ", "-"): html.escape(re.sub(r"[`*]|\[|\]\(.+?\)", "", meaning)).replace(
            "\n", " "
        )
        for term, meaning in entries
    }


TERMS = terms()


def lead(text: str, page: Path, pages: Iterable[str]) -> str:
    """Make the links of a page lead to files on the hosting site, and show the meanings of terms."""

    def link(found: re.Match) -> str:
        start, path, anchor = found.groups()
        target = Path(os.path.normpath(page.parent / path)).relative_to(ROOT) if path else page
        name = target.with_suffix("").as_posix()
        if target.name == "glossary.md" and anchor:
            return f'{start}{path}{anchor} "{TERMS.get(anchor[1:], "")}"'
        if not path or name in pages or target.suffix == ".png":
            return start + path + anchor.lower()
        return f"{start}repository:{target.as_posix()}{anchor}"

    return re.sub(r"(\]\(|(?m:^)\[[^]\n]+\]: )(?![a-z]+:)([^\s()#]*)((?:#[^\s()]+)?)", link, text)


def prepare(app: Sphinx, docname: str, source: list[str]) -> None:
    """Change the text of a page before Sphinx reads it."""
    page, pages = app.env.doc2path(docname), app.env.found_docs
    if page.suffix == ".ipynb":
        notebook = json.loads(source[0])
        title = notebook["cells"][0]["source"]
        title[0] = title[0].replace("# ", f"# {page.name[:2]} ")
        notebook["cells"] = [new for cell in notebook["cells"] for new in cells(cell, page, pages)]
        source[0] = json.dumps(notebook)
        return
    source[0] = source[0].replace("<!-- README.md -->", README)
    source[0] = re.sub(r"(?s)<!-- notebooks: .*?<!-- end -->", cards(), source[0])
    source[0] = re.sub(r"<!-- modules of ([\w.]+) -->", lambda found: modules(found[1]), source[0])
    source[0] = lead(source[0], page, pages)


def cells(cell: dict[str, Any], page: Path, pages: Iterable[str]) -> list[dict[str, Any]]:
    """A notebook's cell as the site shows it: checks are folded, and behind an exercise's is its solution."""
    text = "".join(cell["source"])
    if cell["cell_type"] == "markdown":
        return [cell | {"source": lead(text, page, pages)}]
    for data in (output["data"] for output in cell["outputs"] if "data" in output):
        if "text/markdown" in data:
            data["text/markdown"] = lead("".join(data["text/markdown"]), page, pages)
    tags = cell["metadata"].setdefault("tags", [])
    for tag in FOLDED.keys() & set(tags):
        cell["metadata"]["mystnb"] = {"code_prompt_show": FOLDED[tag]}
        tags.append("hide-cell" if tag == "exercise-check" else "hide-input")
    if "exercise-check" not in tags:
        return [cell]
    number = re.findall(r'exercise\("([\d.]+)"\)', text)[0]
    solution = f"````{{dropdown}} Show a solution\n```python\n{exercise(number).worked.strip()}\n```\n````"
    return [cell, {"cell_type": "markdown", "metadata": {}, "source": solution}]


def shorten(app: Sphinx, what: str, name: str, obj: Any, options: Any, signature: str, returns: str) -> tuple:
    """Leave the bounds of pydantic's types out of a signature."""
    return re.sub(r"Annotated\[(\w+), .*?\)\](?= =|,|\))", r"\1", signature or "") or signature, returns


def setup(app: Sphinx) -> None:
    """Called by Sphinx."""
    app.connect("autodoc-process-signature", shorten)
    app.add_lexer("gitignore", TextLexer)
    app.connect("source-read", prepare)
