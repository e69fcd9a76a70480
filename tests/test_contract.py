"""What each notebook promises its reader, as far as it can be counted. One test per promise and notebook."""

import ast
import builtins
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


def lessons(cells) -> list:
    """The code that teaches: without imports, checks, exercises and the list at the end, which is prose."""
    others = {"imports", "check", "parameters", "exercise", "exercise-check", "showed"}
    return [cell for cell in code(cells) if not others & set(tags(cell))]


def statements(cell) -> int:
    return sum(isinstance(node, ast.stmt) for node in ast.walk(ast.parse(cell.source)))


def prose(cells) -> str:
    return "\n\n".join(cell.source for cell in cells if cell.cell_type == "markdown")


def checks(cells) -> list:
    return [cell for cell in code(cells) if "check" in tags(cell)]


def shown(cell) -> str:
    """All text that a cell's outputs show."""
    texts = [output.get("text", "") for output in cell.outputs]
    texts += [
        value
        for o in cell.outputs
        for kind, value in o.get("data", {}).items()
        if not kind.startswith("image/")
    ]
    return re.sub(r'src="data:image/png;base64,[^"]*"', "", "\n".join(map(str, texts)))


def test_there_are_notebooks_and_each_number_is_used_once():
    numbers = [path.name[:2] for path in FILES]
    assert numbers == [f"{n:02d}" for n in range(len(FILES))] and len(FILES) >= 9


def test_the_header_says_what_you_do_learn_need_and_should_know(path, cells):
    title, sentence, learn, bullets, needs, know, strip, table = cells[0].source.split("\n\n")
    named = path.stem[3:].replace("_", " ")  # a file's name may leave an article out
    assert re.sub(r"\b(the|an?) ", "", title.lower()) == "# " + re.sub(r"\b(the|an?) ", "", named)
    assert sentence.startswith("You will ") and sentence.endswith(".") and ". " not in sentence
    assert learn == "**You will learn**"
    assert 3 <= len(re.findall(r"^- ", bullets, re.M)) <= 5
    time = r"\*\*Time\*\*: about \d+ minutes to read, \d+ for the exercises, \d+ seconds to run\.\s\*\*Needs\*\*: .+\."
    assert re.fullmatch(time, needs, re.S)
    assert know.startswith("**You should know**: ") and know.endswith(".") and "](http" in know
    assert strip.replace("*", "") == " → ".join(STEPS)
    assert table.startswith("| Before | After |\n|---|---|\n| ")


def test_the_lifecycle_strip_marks_the_place(path, cells):
    strip = next(line for line in cells[0].source.splitlines() if " → " in line)
    number = int(path.name[:2])
    assert (
        re.findall(r"\*\*(\w+)\*\*", strip) == STEPS[max(number - 1, 0) : number]
    )  # 00 stands before the first


def test_parameters_come_first_then_begin_then_the_imports(path, cells):
    first, second, third = code(cells)[:3]
    assert tags(first) == ["parameters"] and first.source.startswith("seed = 2025")
    assert tags(second) == ["imports"] and f'workspace = begin("{path.name[:2]}", seed=seed)' in second.source
    assert tags(third) == ["imports"] and re.match("import |from ", third.source)
    assert [cell for cell in code(cells)[1:] if "parameters" in tags(cell)] == []


def test_there_are_at_least_20_cells(cells):
    assert len(cells) >= 20


def test_a_markdown_cell_has_at_most_one_heading_and_it_stands_first(cells):
    for cell in cells:
        if cell.cell_type == "markdown":
            text = re.sub(r"(?ms)^```.*?^```", "", cell.source)
            headings = [number for number, line in enumerate(text.splitlines()) if re.match(r"#{1,6} ", line)]
            assert headings in ([], [0]), cell.source


def test_code_cells_are_short(cells):
    # Statements, not lines: keyword arguments that are written out take a line each, and are easier to read for it.
    assert statistics.median(statements(cell) for cell in lessons(cells)) <= 6
    assert (
        max(
            len(cell.source.splitlines())
            for cell in code(cells)
            if not {"imports", "showed"} & set(tags(cell))
        )
        <= 25
    )


def test_code_is_written_to_be_copied(cells):
    """One statement a line, no walrus, no comprehension in a comprehension, keyword arguments written out."""
    loops = (ast.ListComp, ast.SetComp, ast.DictComp, ast.GeneratorExp)
    for cell in code(cells):
        tree = ast.parse(cell.source)
        assert not re.search(r"(?m)^[^#'\"]*;", cell.source), cell.source
        for node in ast.walk(tree):
            assert not isinstance(node, ast.NamedExpr), f"a walrus in\n{cell.source}"
            if isinstance(node, ast.Call):
                assert all(keyword.arg for keyword in node.keywords), f"a call with ** in\n{cell.source}"
            if isinstance(node, loops):
                inner = [child for child in ast.walk(node) if child is not node and isinstance(child, loops)]
                assert not inner, f"a comprehension in a comprehension in\n{cell.source}"


def names(tree: ast.AST, kind: type) -> set[str]:
    bound = {node.id for node in ast.walk(tree) if isinstance(node, ast.Name) and isinstance(node.ctx, kind)}
    if kind is ast.Store:
        bound |= {node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.ClassDef)}
    return bound


def test_no_name_that_a_check_binds_is_used_later(cells):
    bound: dict[str, str] = {}
    for cell in code(cells):
        tree = ast.parse(cell.source)
        used = (names(tree, ast.Load) - names(tree, ast.Store)) & set(bound)
        assert not used, (
            f"{used} is bound in the check\n{bound.get(min(used, default=''))}\nand used in\n{cell.source}"
        )
        for name in names(tree, ast.Store):
            if "check" in tags(cell):
                bound[name] = cell.source
            else:
                bound.pop(name, None)


def test_a_check_calls_nothing_that_the_reader_has_not_seen(cells):
    """Beside plain Python and pandas' methods: a function by its bare name was defined or imported, and called or shown, before."""
    seen = set(dir(builtins))
    for cell in code(cells):
        tree = ast.parse(cell.source)
        called = {
            node.func.id
            for node in ast.walk(tree)
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name)
        }
        if "check" in tags(cell):
            assert called <= seen, f"{called - seen} is new in the check\n{cell.source}"
            assert not names(tree, ast.Store) & called, cell.source
        seen |= called | names(tree, ast.Load)


def test_there_is_at_least_as_much_prose_as_code(cells):
    assert len(prose(cells)) >= sum(len(cell.source) for cell in lessons(cells))


def test_there_are_at_least_four_checks(cells):
    assert len(checks(cells)) >= 4


def test_each_check_asserts_with_a_message_and_ends_in_one_line_with_the_figure(cells):
    for cell in checks(cells):
        tree = ast.parse(cell.source)
        asserts = [node for node in ast.walk(tree) if isinstance(node, ast.Assert)]
        assert asserts, f"no assert in\n{cell.source}"
        assert all(node.msg for node in asserts), f"an assert without a message in\n{cell.source}"
        prints = [
            n for n in ast.walk(tree) if isinstance(n, ast.Call) and getattr(n.func, "id", "") == "print"
        ]
        assert [tree.body[-1].value] == prints, f"one print, at the end, in\n{cell.source}"
        assert {output.get("name") for output in cell.outputs} == {"stdout"}, (
            f"no printed line from\n{cell.source}"
        )
        assert "".join(output.text for output in cell.outputs).count("\n") == 1


def test_no_check_is_inside_a_try(cells):
    for cell in code(cells):
        nodes = ast.walk(ast.parse(re.sub(r"(?m)^[%!].*", "", cell.source)))
        tries = [node for node in nodes if isinstance(node, ast.Try)]
        inside = [node for block in tries for node in ast.walk(block) if isinstance(node, ast.Assert)]
        assert not inside and not (tries and "check" in tags(cell)), cell.source


def test_each_check_has_a_tag_of_its_own(cells):
    found = [[tag for tag in tags(cell) if tag.startswith(("claim-", "check-"))] for cell in checks(cells)]
    assert all(len(own) == 1 for own in found), (
        "a check cell has one tag claim-<id>, or check-<name> when it shows no claim"
    )
    flat = [tag for own in found for tag in own]
    assert len(flat) == len(set(flat))
    assert [cell.source.splitlines()[0] for cell in checks(cells)] == [f"# Check: {tag}" for tag in flat]
    assert [
        cell.source for cell in cells if cell.source.startswith("# Check") and "check" not in tags(cell)
    ] == []


def test_claims_are_made_by_checks_alone(cells):
    claims = [tag for cell in cells for tag in tags(cell) if tag.startswith("claim-")]
    assert [
        cell.source for cell in cells if set(claims) & set(tags(cell)) and "check" not in tags(cell)
    ] == []
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
        (
            "an absolute path",
            r"(?<![\w.<])/(root|home|Users|tmp|work|private|var|opt|usr|mnt|runner)/|[A-Z]:\\\\",
        ),
        ("a warning", r"\w*Warning\b"),
        ("an object's address", r"\bat 0x[0-9a-f]{6,}"),
        ("a run id", r"\b[0-9a-f]{32}\b|\b[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-"),
        ("a color code", "\x1b\\["),
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
            pictures = re.findall(r"<img[^>]*>", output.get("data", {}).get("text/html", ""))
            assert [picture for picture in pictures if not re.search(r'\balt="[^"]{30,}"', picture)] == [], (
                cell.source
            )
    assert re.findall(r"!\[\s*\]\(|<img(?![^>]*\balt=\"[^\"]+\")[^>]*>", prose(cells)) == []


def test_the_file_is_below_300_kb_with_unique_cell_ids_and_the_plain_kernel(path, cells):
    assert path.stat().st_size < 300_000
    assert len({cell.id for cell in cells}) == len(cells)
    metadata = nbformat.read(path, as_version=4).metadata
    assert metadata.kernelspec.name == "python3"
    assert set(metadata) == {"kernelspec", "language_info"} and set(metadata.language_info) == {"name"}


def test_it_closes_with_what_was_shown_production_reading_and_the_next_notebook(path, cells):
    heading, shown, production, reading, following = (cell.source for cell in cells[-5:])
    assert heading.startswith("## What you showed\n")
    [call] = ast.parse(shown).body
    assert call.value.func.id == "showed"
    sentences = ast.literal_eval(call.value.args[0])
    assert len(sentences) >= 3 and all(re.fullmatch(r".+\.", sentence) for sentence in sentences)
    named = [name for names in sentences.values() for name in names]
    own = [tag for cell in checks(cells) for tag in tags(cell) if tag.startswith(("claim-", "check-"))]
    assert set(named) <= set(own) and {tag for tag in own if tag.startswith("claim-")} <= set(named)
    assert tags(cells[-4]) == ["showed"]
    [output] = cells[-4].outputs
    assert output.data["text/markdown"].splitlines() == [f"- ✓ {sentence}" for sentence in sentences]
    assert production.startswith("## In production\n")
    assert reading.startswith("## Read on\n") and "](http" in reading
    assert following.startswith("## Next\n")
    later = FILES[FILES.index(path) + 1 :]
    assert not later or f"]({later[0].name})" in following


@pytest.mark.parametrize(
    "title, who",
    [
        ("Feast + MLflow + Kubeflow: A Unified AI/ML Lifecycle", "Francisco Javier Arceo and Nikhil Kathole"),
        ("Modern MLOps in 2025", ""),
    ],
)
def test_the_texts_that_the_course_follows_are_named_where_they_are_first_used(path, cells, title, who):
    text = " ".join(prose(cells).split())
    word = "post" if who else "guide"
    uses = re.search(rf"\b(the|this) {word}('s)?\b", text, re.I)
    if uses:
        assert title in text and text.index(title) <= uses.start() + 200, (
            f"name the {word} by its title at its first use"
        )
        assert who in text


def test_its_links_lead_somewhere(path, cells):
    links = re.findall(r"\]\((?!https?://|#|attachment:)([^)#\s]+)", prose(cells))
    assert [link for link in links if not (path.parent / link).exists()] == []


def test_no_cell_reads_the_wall_clock(cells):
    pattern = r"\.(utcnow|now|today)\(|\btime\.time\(|\bctime\("
    compared = [cell.source for cell in code(cells) if "nbval-ignore-output" not in tags(cell)]
    assert [source for source in compared if re.search(pattern, source)] == []


def test_the_readme_gives_the_minutes_and_seconds_of_each_header(path, cells):
    told = re.search(
        r"(\d+) minutes to read, (\d+) for the exercises, (\d+) seconds to run", cells[0].source
    ).groups()
    row = next(line for line in README.read_text().splitlines() if line.startswith(f"| [{path.name}]"))
    assert tuple(row.strip(" |").split(" | ")[-3:]) == told


def test_the_readme_is_short_and_names_every_notebook():
    text = README.read_text()
    assert 20 < len(text.splitlines()) < 200
    assert [path.name for path in FILES if path.name not in text] == []


@pytest.mark.parametrize("page", ["README.md", "docs/instructor-guide.md"])
def test_the_commands_in_a_page_exist(page):
    text = (REPOSITORY / page).read_text()
    makefile = (REPOSITORY / "Makefile").read_text()
    doors = set(re.findall(r"^([a-z]+):.*##", makefile, re.M))
    commands = "\n".join(re.findall(r"`[^`\n]+`|^ {4}.+|^make .+", text, re.M))
    named = set(re.findall(r"\bmake ([a-z]+)", commands))
    assert named and named <= doors
    options = set(re.findall(r"\bmake [a-z]+.*? ([A-Z]+)=", commands))
    assert options and [name for name in options if not re.search(rf"\$[({{]?\$?{name}\b", makefile)] == []
    modules = re.findall(r"python -m (helpers|lifecycle|workshop|benchmarks)\.(\w+)", text)
    assert [name for name in modules if not (REPOSITORY.joinpath(*name).with_suffix(".py")).exists()] == []


def test_the_types_of_lifecycle_and_helpers_hold():
    command = [sys.executable, "-m", "mypy", "--no-error-summary", "lifecycle", "helpers", "exercises"]
    done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


def public(tree: ast.AST, within: str) -> list[tuple[str, ast.AST]]:
    """Functions, classes and, of public classes, methods."""
    found = []
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.FunctionDef | ast.ClassDef) and not node.name.startswith("_"):
            found.append((f"{within}.{node.name}", node))
            if isinstance(node, ast.ClassDef):
                found += public(node, f"{within}.{node.name}")
    return found


def test_every_public_part_of_lifecycle_has_a_docstring():
    found = []
    for path in sorted((REPOSITORY / "lifecycle").glob("*.py")):
        tree = ast.parse(path.read_text())
        found += [(path.stem, tree), *public(tree, path.stem)]
    assert len(found) > 60
    assert [name for name, node in found if not ast.get_docstring(node)] == []


@pytest.mark.parametrize("arguments", [["check"], ["format", "--check"]], ids=" ".join)
def test_ruff_finds_nothing_in_modules_and_notebooks(arguments):
    command = [sys.executable, "-m", "ruff", *arguments, "--no-cache", "."]
    done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
