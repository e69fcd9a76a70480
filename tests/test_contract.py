"""What each notebook promises its reader, as far as it can be counted. One test per promise and notebook."""

import ast
import re
import statistics
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest

from helpers.workspace import REPOSITORY

FILES = sorted((REPOSITORY / "notebooks").glob("*.ipynb"))
STEPS = ["define", "retrieve", "validate", "select", "tune", "orchestrate", "serve", "monitor"]
README = REPOSITORY / "README.md"


@pytest.fixture(params=FILES, ids=lambda path: path.stem)
def path(request) -> Path:
    return request.param


@pytest.fixture
def cells(path):
    return nbformat.read(path, as_version=4).cells


def tags(cell) -> list[str]:
    return cell.metadata.get("tags", [])


def code(cells) -> list:
    return [cell for cell in cells if cell.cell_type == "code"]


def prose(cells) -> str:
    return "\n\n".join(cell.source for cell in cells if cell.cell_type == "markdown")


def checks(cells) -> list:
    return [cell for cell in code(cells) if "check" in tags(cell)]


def shown(cell) -> str:
    """All text that a cell's outputs show."""
    texts = [output.get("text", "") for output in cell.outputs]
    texts += [value for o in cell.outputs for kind, value in o.get("data", {}).items() if not kind.startswith("image/")]
    return "\n".join(map(str, texts))


def test_there_are_notebooks_and_each_number_is_used_once():
    numbers = [path.name[:2] for path in FILES]
    assert numbers == [f"{n:02d}" for n in range(len(FILES))] and len(FILES) >= 8


def test_the_header_says_what_you_do_learn_and_need(path, cells):
    title, sentence, learn, bullets, needs, strip, table = cells[0].source.split("\n\n")
    assert re.sub(r"\b(the|an?) ", "", title.lower()) == "# " + path.stem[3:].replace("_", " ")
    assert sentence.startswith("You will ") and sentence.endswith(".") and ". " not in sentence
    assert learn == "**You will learn**"
    assert 3 <= len(re.findall(r"^- ", bullets, re.M)) <= 5
    assert re.fullmatch(r"\*\*Time\*\*: about \d+ minutes to read, \d+ seconds to run\. \*\*Needs\*\*: .+\.", needs)
    assert strip.replace("*", "") == " → ".join(STEPS)
    assert table.startswith("| Before | After |\n|---|---|\n| ")


def test_the_lifecycle_strip_marks_the_place(path, cells):
    strip = next(line for line in cells[0].source.splitlines() if " → " in line)
    number = int(path.name[:2])
    assert re.findall(r"\*\*(\w+)\*\*", strip) == STEPS[max(number - 1, 0) : number]  # 00 stands before the first


def test_parameters_come_first_then_begin_then_the_imports(path, cells):
    first, second, third = code(cells)[:3]
    assert tags(first) == ["parameters"] and first.source.startswith("seed = 2025")
    assert tags(second) == ["imports"] and f'workspace = begin("{path.name[:2]}", seed=seed)' in second.source
    assert tags(third) == ["imports"] and re.match("import |from ", third.source)
    assert [cell for cell in code(cells)[1:] if "parameters" in tags(cell)] == []


def test_there_are_20_to_45_cells(cells):
    assert 20 <= len(cells) <= 45


def test_code_cells_are_short(cells):
    lines = [len(cell.source.splitlines()) for cell in code(cells)]
    assert statistics.median(lines) <= 6
    assert max(lines) <= 25


def test_there_is_at_least_as_much_prose_as_code(cells):
    assert len(prose(cells)) >= sum(len(cell.source) for cell in code(cells))


def test_there_are_at_least_four_checks(cells):
    assert len(checks(cells)) >= 4


def test_each_check_asserts_with_a_message_and_ends_in_one_line_with_the_figure(cells):
    for cell in checks(cells):
        tree = ast.parse(cell.source)
        asserts = [node for node in ast.walk(tree) if isinstance(node, ast.Assert)]
        assert asserts, f"no assert in\n{cell.source}"
        assert all(node.msg for node in asserts), f"an assert without a message in\n{cell.source}"
        prints = [n for n in ast.walk(tree) if isinstance(n, ast.Call) and getattr(n.func, "id", "") == "print"]
        assert [tree.body[-1].value] == prints, f"one print, at the end, in\n{cell.source}"
        assert {output.get("name") for output in cell.outputs} == {"stdout"}, f"no printed line from\n{cell.source}"
        assert "".join(output.text for output in cell.outputs).count("\n") == 1


def test_no_check_is_inside_a_try(cells):
    for cell in code(cells):
        nodes = ast.walk(ast.parse(re.sub(r"(?m)^[%!].*", "", cell.source)))
        tries = [node for node in nodes if isinstance(node, ast.Try)]
        inside = [node for block in tries for node in ast.walk(block) if isinstance(node, ast.Assert)]
        assert not inside and not (tries and "check" in tags(cell)), cell.source


def test_claims_are_made_by_checks_alone(cells):
    claims = [tag for cell in cells for tag in tags(cell) if tag.startswith("claim-")]
    assert [cell.source for cell in cells if set(claims) & set(tags(cell)) and "check" not in tags(cell)] == []
    assert len(claims) == len(set(claims))


def test_outputs_are_stored_in_the_order_of_the_cells(cells):
    assert [cell.execution_count for cell in code(cells)] == list(range(1, len(code(cells)) + 1))
    assert sum(bool(cell.outputs) for cell in code(cells)) >= len(code(cells)) / 2


def test_no_output_is_an_error_or_on_stderr(cells):
    outputs = [output for cell in code(cells) for output in cell.outputs]
    assert [o for o in outputs if o.output_type == "error" or o.get("name") == "stderr"] == []


@pytest.mark.parametrize(
    "what, pattern",
    [
        ("an absolute path", r"(?<![\w.<])/(root|home|Users|tmp|work|private|var|opt|usr|mnt|runner)/|[A-Z]:\\\\"),
        ("a warning", r"\w*Warning\b"),
        ("an object's address", r"\bat 0x[0-9a-f]{6,}"),
        ("a run id", r"\b[0-9a-f]{32}\b|\b[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-"),
        ("a date of the wall clock", r"\b20(2[6-9]|[3-9]\d)-\d\d-\d\d"),
    ],
)
def test_no_output_shows(cells, what, pattern):
    found = [(cell.id, m[0]) for cell in code(cells) for m in re.finditer(pattern, shown(cell))]
    assert found == [], f"{what} in an output"


def test_every_picture_has_a_text_for_those_who_cannot_see_it(cells):
    for cell in code(cells):
        for output in cell.outputs:
            for kind in output.get("data", {}):
                if kind.startswith("image/"):
                    assert len(output.metadata.get(kind, {}).get("alt", "")) >= 30, cell.source
    assert re.findall(r"!\[\s*\]\(|<img(?![^>]*\balt=\"[^\"]+\")[^>]*>", prose(cells)) == []


def test_the_file_is_below_300_kb_with_unique_cell_ids_and_the_plain_kernel(path, cells):
    assert path.stat().st_size < 300_000
    assert len({cell.id for cell in cells}) == len(cells)
    metadata = nbformat.read(path, as_version=4).metadata
    assert metadata.kernelspec.name == "python3"
    assert set(metadata) == {"kernelspec", "language_info"} and set(metadata.language_info) == {"name"}


def test_it_closes_with_what_was_shown_production_and_the_next_notebook(path, cells):
    closing = cells[-1].source
    assert re.findall(r"^## (.+)$", closing, re.M) == ["What you showed", "In production", "Next"]
    assert len(re.findall(r"^- \[x\] .+\.$", closing, re.M)) >= 3
    following = FILES[FILES.index(path) + 1 :]
    assert not following or f"]({following[0].name})" in closing.split("## Next")[1]


def test_its_links_lead_somewhere(path, cells):
    links = re.findall(r"\]\((?!https?://|#|attachment:)([^)#\s]+)", prose(cells))
    assert [link for link in links if not (path.parent / link).exists()] == []


def test_no_cell_reads_the_wall_clock(cells):
    pattern = r"\.(utcnow|now|today)\(|\btime\.time\(|\bctime\("
    compared = [cell.source for cell in code(cells) if "nbval-ignore-output" not in tags(cell)]
    assert [source for source in compared if re.search(pattern, source)] == []


def test_the_readme_is_short_and_names_every_notebook():
    text = README.read_text()
    assert 20 < len(text.splitlines()) < 200
    assert [path.name for path in FILES if path.name not in text] == []


def test_the_commands_in_the_readme_exist():
    text = README.read_text()
    doors = set(re.findall(r"^([a-z]+):.*##", (REPOSITORY / "Makefile").read_text(), re.M))
    commands = "\n".join(re.findall(r"`[^`\n]+`|^ {4}.+|^make .+", text, re.M))
    named = set(re.findall(r"\bmake ([a-z]+)", commands))
    assert named and named <= doors
    modules = re.findall(r"python -m helpers\.(\w+)", text)
    assert [name for name in modules if not (REPOSITORY / "helpers" / f"{name}.py").exists()] == []


@pytest.mark.parametrize("arguments", [["check"], ["format", "--check"]], ids=" ".join)
def test_ruff_finds_nothing_in_modules_and_notebooks(arguments):
    command = [sys.executable, "-m", "ruff", *arguments, "--no-cache", "."]
    done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
