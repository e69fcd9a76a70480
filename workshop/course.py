"""The tables of README.md and docs/instructor-guide.md, written from course.toml, or with --check compared.

python -m workshop.course [--check]
"""

from __future__ import annotations

import argparse
import json
import math
import re
import sys

from helpers import course
from helpers.course import Notebook
from helpers.workspace import REPOSITORY

WORDS, LINES, OUTPUTS = 200, 15, 5
"""What a reader takes in within a minute: words of text, lines of code, outputs."""
_TABLE = re.compile(r"(<!-- (\w+): `python -m workshop\.course` writes [^\n]*-->\n)(.*?)(<!-- end -->)", re.S)


def readme(_: str) -> str:
    """The table of notebooks."""
    rows = [
        "| notebook | you will | minutes |",
        "|---|---|---|",
    ]
    for found in course.notebooks().values():
        link = f"[{found.number} {found.title}](notebooks/{found.stem}.ipynb)"
        rows.append(f"| {link} | {found.summary} | {found.reading + found.exercises} |")
    return "\n".join(rows) + "\n"


def plan(table: str) -> str:
    """A plan of a day, with its figures made anew: those of the notebooks, and the times, which add up.

    A notebook's row without minutes for the exercises leaves them for at home, and stays so.
    """
    head, rule, *rows = [
        [cell.strip() for cell in line.strip("|\n").split("|")] for line in table.splitlines()
    ]
    at, made = 0, [head, rule]
    for _, what, reading, exercises, running, minutes in rows:
        if link := re.search(r"notebooks/(\d\d)_", what):
            found = course.notebooks()[link[1]]
            what = f"[{found.number} {found.title}](../notebooks/{found.stem}.ipynb)"
            done = found.exercises if exercises else 0
            reading, exercises, running = str(found.reading), str(done or ""), str(found.seconds)
            minutes = str(found.reading + done + math.ceil(found.seconds / 60))
        made.append([f"{at // 60}:{at % 60:02d}", what, reading, exercises, running, minutes])
        at += int(minutes or 0)
    return "".join(f"|{'|'.join(row)}|\n" if row is rule else f"| {' | '.join(row)} |\n" for row in made)


PAGES = {"README.md": readme, "docs/instructor-guide.md": plan}


def generated(page: str) -> str:
    """A page as it should be: what stands between its markers made anew."""
    text = (REPOSITORY / page).read_text(encoding="utf-8")
    return _TABLE.sub(lambda found: found[1] + PAGES[page](found[3]) + found[4], text)


def minutes_to_read(cells: list[dict]) -> int:
    """How long a notebook's text, code, and outputs take to read, rounded up.

    Checks are collapsed in the lab, and an exercise's minutes include its text, so neither counts.
    """
    words = lines = outputs = 0
    for cell in cells:
        source, tags = "".join(cell["source"]), cell["metadata"].get("tags", [])
        if cell["cell_type"] == "markdown":
            text = re.sub(r"\]\([^)]*\)", "]", source)  # a link's address is not read
            words += 0 if source.startswith("### Exercise") else len(re.findall(r"\S*\w\S*", text))
        elif not {"check", "exercise", "exercise-check", "parameters", "showed"} & set(tags):
            lines += sum(bool(line.strip()) for line in source.splitlines())
            outputs += len(cell["outputs"])
    return math.ceil(words / WORDS + lines / LINES + outputs / OUTPUTS)


def wrong_header(notebook: Notebook) -> str:
    """What the first cell of a notebook tells that ``course.toml`` does not; empty when they agree."""
    path = REPOSITORY / "notebooks" / f"{notebook.stem}.ipynb"
    cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
    text = "".join(cells[0]["source"])
    time = (
        f"about {notebook.reading} minutes to read, {notebook.exercises} for the exercises, "
        f"{notebook.seconds} seconds to run."
    )
    told = re.search(r"\*\*Needs\*\*: ([^\n]*)", text)
    if not text.startswith(f"# {notebook.title}\n"):
        return f"the title is not {notebook.title!r}"
    if time not in text:
        return f"the time is not {time!r}"
    if abs(notebook.reading - (minutes := minutes_to_read(cells))) > minutes / 5:
        return f"it takes about {minutes} minutes to read, and not {notebook.reading}"
    if not told or (notebook.extra and f"`make {notebook.extra}`" not in told[1]):
        return "it does not say what it needs"
    makers = set(re.findall(r"\b\d\d\b", told[1].partition(";")[0]))
    if _behind(makers) != _behind({course.needs()[key].made_by for key in notebook.needs}):
        return f"it needs {', '.join(notebook.needs) or 'nothing'}, and the header says: {told[1]}"
    return ""


def _behind(numbers: set[str]) -> set[str]:
    """These notebooks and all that they need in turn."""
    behind = {course.needs()[key].made_by for number in numbers for key in course.notebooks()[number].needs}
    return numbers if behind <= numbers else _behind(numbers | behind)


def differences() -> list[str]:
    """A line for each page and notebook that tells something else than ``course.toml``."""
    stale = [page for page in PAGES if generated(page) != (REPOSITORY / page).read_text(encoding="utf-8")]
    found = [f"{page}: a table is not course.toml's; `python -m workshop.course` writes it" for page in stale]
    stems = {path.stem for path in (REPOSITORY / "notebooks").glob("[0-9][0-9]_*.ipynb")}
    listed = {notebook.stem for notebook in course.notebooks().values()}
    found += [f"{stem} is not both in notebooks/ and in course.toml" for stem in sorted(stems ^ listed)]
    there = [notebook for notebook in course.notebooks().values() if notebook.stem in stems]
    return found + [f"{n.stem}: {wrong}" for n in there if (wrong := wrong_header(n))]


def main(argv: list[str] | None = None) -> int:
    """The command line; returns its exit code."""
    parser = argparse.ArgumentParser(prog="python -m workshop.course", description=__doc__.partition("\n")[0])
    parser.add_argument(
        "--check", action="store_true", help="write nothing; say what differs, and exit with 1"
    )
    if not parser.parse_args(argv).check:
        for page in PAGES:
            (REPOSITORY / page).write_text(generated(page), encoding="utf-8")
    found = differences()
    print("\n".join(found), end="\n" if found else "", file=sys.stderr)
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
