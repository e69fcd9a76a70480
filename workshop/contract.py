"""Check what each notebook promises its reader: `python -m workshop.contract [--collapse] [notebook ...]`.

Prints a line for each broken promise (notebook, cell, sentence), and exits 1 when there is one.
With `--collapse`, it first collapses the source of each check and of `showed`, and changes nothing else.
"""

from __future__ import annotations

import ast
import builtins
import json
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

NOTEBOOKS = Path(__file__).resolve().parent.parent / "notebooks"
STEPS = ["define", "retrieve", "validate", "select", "tune", "orchestrate", "serve", "monitor"]
# The first cell's paragraphs. `workshop.course --check` compares title, times and needs with course.toml.
HEADER = {
    "a title": r"# .+",
    "one sentence that begins with 'You will'": r"You will (?!.*\. ).+\.",
    "**You will learn**": r"\*\*You will learn\*\*",
    "three to five things to learn": r"- (.+\n- ){2,4}.+",
    "time and needs": r"\*\*Time\*\*: (?s:.+)\*\*Needs\*\*: (?s:.+)\.",
    "what you should know, with a link": r"\*\*You should know\*\*: .*\]\(http.+\.",
    "the lifecycle": " → ".join(rf"(\*\*{step}\*\*|{step})" for step in STEPS),
    "a table of before and after": r"\| Before \| After \|\n\|---\|---\|\n\| (?s:.+)",
}
CLOSING = {-5: "What you showed", -3: "In production", -2: "Read on", -1: "Next"}
_COLLAPSED = {"check", "showed"}
LONGEST, LARGEST = 25, 300_000  # lines of a code cell, bytes of a file
NEVER_SHOWN = {
    "an absolute path": r"(?<![\w.<])/(root|home|Users|tmp|work|private|var|opt|usr|mnt|runner)/|[A-Z]:\\\\",
    "a warning": r"\w*Warning\b",
    "an object's address": r"\bat 0x[0-9a-f]{6,}",
    "a run id": r"\b[0-9a-f]{32}\b|\b[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-",
    "a color code": "\x1b\\[",
    "a date of the wall clock": r"\b20(2[6-9]|[3-9]\d)-\d\d-\d\d",
}
Broken = Iterator[tuple[Any, str]]  # the cell and the sentence


class Node(dict):
    """A part of a notebook, whose texts are in one piece. (Importing nbformat would take three seconds.)"""

    def __init__(self, values: dict) -> None:
        texts = {key: "".join(value) for key, value in values.items() if _is_text(key, value)}
        super().__init__(values | texts)

    __getattr__ = dict.__getitem__


def _is_text(key: str, value: Any) -> bool:
    return isinstance(value, list) and (key in ("source", "text") or "/" in key)


def tags(cell: Any) -> list[str]:
    """Return a cell's tags."""
    return cell.metadata.get("tags", [])


def own_tags(cell: Any) -> list[str]:
    """Return the tags that name a check: ``claim-<id>`` or ``check-<name>``."""
    return [tag for tag in tags(cell) if tag.startswith(("claim-", "check-"))]


def _opening(number: str, cells: list, code: list) -> Broken:
    parts = cells[0].source.split("\n\n")
    for part, (what, pattern) in zip([*parts, *[""] * len(HEADER)], HEADER.items(), strict=False):
        if not re.fullmatch(pattern, part):
            yield cells[0], f"the header lacks {what}"
    step = STEPS[max(int(number) - 1, 0) : int(number)]
    if re.findall(r"\*\*(\w+)\*\*", parts[6] if len(parts) > 6 else "") != step:
        yield cells[0], "the lifecycle does not mark this notebook's step"
    begin = rf'(?s)seed = 2025.*\nworkspace = begin\("{number}", seed=seed\)'
    start = [tag for cell in code[:3] for tag in tags(cell)] == ["parameters", "imports", "imports"]
    if not start or not re.match(begin, f"{code[0].source}\n{code[1].source}"):
        yield code[0], "the code does not start with parameters, `begin` and imports, and these tags"
    for place, heading in CLOSING.items():
        if not cells[place].source.startswith(f"## {heading}\n"):
            yield cells[place], f"the closing lacks '## {heading}' here"


def _cells(number: str, cells: list, code: list) -> Broken:
    for cell in cells:
        text = re.sub(r"(?ms)^```.*?^```", "", cell.source)
        if cell.cell_type == "code":
            if len(cell.source.splitlines()) > LONGEST and not {"imports", "showed"} & set(tags(cell)):
                yield cell, f"a code cell of more than {LONGEST} lines"
            continue
        if re.search(r"\n#{1,6} ", text):
            yield cell, "a heading that is not the cell's first line"
        if re.search(r"!\[\s*\]\(|<img(?![^>]*\balt=\"[^\"]+\")[^>]*>", text):
            yield cell, "a picture without alt text"
        for link in re.findall(r"\]\((?!https?://|#|attachment:)([^)#\s]+)", text):
            if not (NOTEBOOKS / link).exists():
                yield cell, f"a link to {link}, which does not exist"


def _python(source: str) -> str:
    """The Python of a code cell, without magics: a shell cell, or one that writes a file, has none."""
    if source.startswith(("%%bash\n", "%%writefile ")):
        return ""
    return source


def _of_kind(tree: ast.AST, *kinds: Any) -> list[Any]:
    return [node for node in ast.walk(tree) if isinstance(node, kinds)]


def _collapsed(number: str, cells: list, code: list) -> Broken:
    for cell in code:
        hidden = bool(cell.metadata.get("jupyter", {}).get("source_hidden"))
        if hidden != bool(_COLLAPSED & set(tags(cell))):
            yield (
                cell,
                "checks and `showed` are collapsed, and no other cell: run `python -m workshop.contract "
                "--collapse`",
            )


def _checks(number: str, cells: list, code: list) -> Broken:
    only_in_checks: set[str] = set()
    seen, taken = set(dir(builtins)), set()
    for cell in code:
        tree, own = ast.parse(_python(cell.source)), own_tags(cell)
        read = {node.id for node in _of_kind(tree, ast.Name) if isinstance(node.ctx, ast.Load)}
        bound = {node.id for node in _of_kind(tree, ast.Name) if isinstance(node.ctx, ast.Store)}
        bound |= {node.name for node in _of_kind(tree, ast.FunctionDef, ast.ClassDef)}
        if leaked := (read - bound) & only_in_checks:
            yield cell, f"it uses {min(leaked)}, which only a check has bound"
        if "check" not in tags(cell):
            if own or cell.source.startswith("# Check"):
                yield cell, "a check without the tag `check`"
            only_in_checks -= bound
            seen |= read
            continue
        only_in_checks |= bound
        if len(own) != 1 or own[0] in taken or not cell.source.startswith(f"# Check: {own[0]}\n"):
            yield cell, "a check has one tag of its own, claim-<id> or check-<name>, also in its first line"
        taken.update(own)
        asserts, calls = _of_kind(tree, ast.Assert), _of_kind(tree, ast.Call)
        if not asserts or not all(node.msg for node in asserts) or _of_kind(tree, ast.Try):
            yield cell, "a check asserts, each time with a message, and outside of a `try`"
        prints = [node for node in calls if getattr(node.func, "id", "") == "print"]
        output = [(output.get("name"), output.get("text", "").count("\n")) for output in cell.outputs]
        if prints != [getattr(tree.body[-1], "value", None)] or output != [("stdout", 1)]:
            yield cell, "a check prints one line, at its end"
        if new := {node.func.id for node in calls if isinstance(node.func, ast.Name)} - seen:
            yield cell, f"a check calls {min(new)}, which the reader has not seen"


def _outputs(number: str, cells: list, code: list) -> Broken:
    counts = [cell.execution_count for cell in code]
    if counts != list(range(1, len(code) + 1)) or not any(cell.outputs for cell in code):
        yield code[0], "the cells were not executed in order, or without outputs: run `make notebooks`"
    for cell, output in [(owner, output) for owner in code for output in owner.outputs]:
        data = output.get("data", {})
        if output.output_type == "error" or output.get("name") == "stderr":
            yield cell, "an output is an error or on stderr"
        alts = [output.metadata.get(kind, {}).get("alt", "") for kind in data if kind.startswith("image/")]
        for picture in re.findall(r"<img[^>]*>", data.get("text/html", "")):
            alts += re.findall(r'\balt="([^"]*)"', picture) or [""]
        if any(len(alt) < 30 for alt in alts):
            yield cell, "a picture's alt text has fewer than 30 characters"
        text = [str(value) for kind, value in data.items() if not kind.startswith("image/")]
        shown = re.sub(r'src="data:image/png;base64,[^"]*"', "", "\n".join([output.get("text", ""), *text]))
        for what, pattern in NEVER_SHOWN.items():
            if match := re.search(pattern, shown):
                yield cell, f"an output shows {what}: {match[0]!r}"


def _exercises(number: str, cells: list, code: list) -> Broken:
    places = [place for place, cell in enumerate(cells) if "exercise-check" in tags(cell)]
    if len(places) not in (2, 3):
        yield cells[0], f"a notebook has two or three exercises, not {len(places)}"
    for n, place in enumerate(places, 1):
        name, (heading, answer, check) = f"{int(number)}.{n}", cells[place - 2 : place + 1]
        title = re.match(rf"### Exercise {name}: (.+)\n\n\*\*\w+ minutes\.\*\* ", heading.source)
        if not title:
            yield heading, f"it is not the heading of exercise {name} with its minutes below"
        elif [output.get("text") for output in check.outputs] != [f"open: {name}, {title[1]}\n"]:
            yield check, f"exercise {name} is not stored as open, with the title of its heading"
        if not re.match(rf"(?s)# Exercise {name}: your answer\n.*\.\.\.", answer.source):
            yield answer, f"it is not the cell for the answer to exercise {name}, left at `...`"
        if tags(answer) != ["exercise"] or f'\nexercise("{name}").check(' not in check.source:
            yield check, f"the cells of exercise {name} lack the tag `exercise` or the call of its check"


def _showed(number: str, cells: list, code: list) -> Broken:
    own = {tag for cell in code if "check" in tags(cell) for tag in own_tags(cell)}
    try:
        sentences = ast.literal_eval(ast.parse(cells[-4].source).body[0].value.args[0])
        lines = cells[-4].outputs[0].data["text/markdown"].splitlines()
    except (AttributeError, IndexError, ValueError, KeyError):
        sentences, lines = {}, []
    named = {name for names in sentences.values() for name in names}
    if not named <= own or {tag for tag in own if tag.startswith("claim-")} - named:
        yield cells[-4], "`showed` names each claim of the notebook, and only its checks"
    shown = [re.sub(r" \*\(not run here: .*; shown in \[.*\)\*$", "", line) for line in lines]
    unlike = [
        line
        for line, said in zip(shown, sentences, strict=False)
        if line[2:] not in (f"✓ {said}", f"↗ {said}")
    ]
    if not lines or len(lines) != len(sentences) or unlike or "showed" not in tags(cells[-4]):
        yield cells[-4], "a sentence of `showed` is not ticked, or the cell lacks the tag `showed`"


def broken(path: Path) -> list[str]:
    """Return a line for each promise that a notebook breaks."""
    notebook = json.loads(path.read_text(encoding="utf-8"), object_hook=Node)
    cells, number = notebook.cells, path.name[:2]
    code = [cell for cell in cells if cell.cell_type == "code"]
    promises = (_opening, _cells, _collapsed, _checks, _outputs, _exercises, _showed)
    found = [line for promise in promises for line in promise(number, cells, code)]
    lines = [f"{path.name}, cell {cells.index(cell)}: {sentence}" for cell, sentence in found]
    if path.stat().st_size > LARGEST or len({cell.id for cell in cells}) < len(cells):
        lines.append(f"{path.name}: more than {LARGEST:,} bytes, or two cells with one id")
    if (
        set(notebook.metadata) != {"kernelspec", "language_info"}
        or notebook.metadata.kernelspec.name != "python3"
    ):
        lines.append(
            f"{path.name}: metadata beyond the kernel python3 and the language: run `make notebooks`"
        )
    return lines


def collapse(path: Path) -> None:
    """Collapse the source of each check and of ``showed``, and expand that of all other cells."""
    notebook = json.loads(path.read_text(encoding="utf-8"))
    for cell in notebook["cells"]:
        shown = {
            key: value for key, value in cell["metadata"].get("jupyter", {}).items() if key != "source_hidden"
        }
        hidden = {"source_hidden": True} if _COLLAPSED & set(cell["metadata"].get("tags", [])) else {}
        cell["metadata"].pop("jupyter", None)
        if shown | hidden:
            cell["metadata"]["jupyter"] = shown | hidden
    # As nbformat writes it.
    text = json.dumps(notebook, ensure_ascii=False, indent=1, sort_keys=True, separators=(",", ": "))
    path.write_text(text + "\n", encoding="utf-8")


def main(arguments: list[str]) -> int:
    """Check these notebooks, or all; return the exit code."""
    paths = [Path(path) for path in arguments if path != "--collapse"]
    notebooks = paths or sorted(NOTEBOOKS.glob("[0-9][0-9]_*.ipynb"))
    if "--collapse" in arguments:
        for path in notebooks:
            collapse(path)
    found = [line for path in notebooks for line in broken(path)]
    print("\n".join(found), end="\n" if found else "")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
