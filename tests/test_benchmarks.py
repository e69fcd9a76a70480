"""The benchmarks at their smallest size: they run, their contestants agree, and the page says what the data says. No time is asserted."""

import json
import math
import re
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks import __main__ as bench
from benchmarks import render
from helpers.workspace import REPOSITORY

DOCS = REPOSITORY / "docs"


@pytest.fixture(scope="module")
def out(tmp_path_factory) -> Path:
    """What `python -m benchmarks --size small` wrote."""
    folder = tmp_path_factory.mktemp("a benchmark") / "docs"
    command = [sys.executable, "-m", "benchmarks", "--size", "small", "--out", str(folder)]
    done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, timeout=1200)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-4000:]
    return folder


@pytest.fixture(scope="module")
def sections(out) -> dict:
    return {
        name: s["measured"]
        for name, s in json.loads((out / "performance.json").read_text())["sections"].items()
    }


def numbers(value) -> list[float]:
    if isinstance(value, dict):
        return [n for inner in value.values() for n in numbers(inner)]
    if isinstance(value, list):
        return [n for inner in value for n in numbers(inner)]
    return [value] if isinstance(value, float) else []


def of(runs: list[dict], contestant: str, data: str = "drivers") -> dict:
    return next(run for run in runs if run["contestant"] == contestant and run["data"] == data)


def test_every_section_is_measured_and_every_figure_is_a_number(sections):
    assert list(sections) == list(bench.SECTIONS)
    assert all(math.isfinite(number) for number in numbers(sections))


def test_the_joins_give_equal_values_row_by_row(sections):
    by_size = [run for run in sections["join"]["runs"] if run["series"] == "size"]
    assert [run["contestant"] for run in by_size] == bench.JOINERS
    assert len({run["digest"] for run in by_size}) == 1
    assert {(run["questions"], run["rows"], run["answers"]) for run in by_size} == {(1_000, 20_000, 1_000)}
    assert 0 < by_size[0]["nulls"] < by_size[0]["questions"] / 2


def test_a_shorter_time_to_live_gives_other_values_that_are_equal_too(sections):
    week, *_ = (run for run in sections["join"]["runs"] if run["series"] == "size")
    shorter = [run for run in sections["join"]["runs"] if run["series"] == "time to live"]
    assert len({run["digest"] for run in shorter}) == 1
    assert shorter[0]["digest"] != week["digest"] and shorter[0]["nulls"] > week["nulls"]


def test_the_peak_of_a_join_is_that_of_its_own_process(sections):
    for run in sections["join"]["runs"]:
        assert 50 < run["peak_mb"] < 4000


def test_feast_ranks_more_rows_than_there_are_questions(sections):
    plan = sections["join"]["plan"]
    assert plan["ranked_rows"] > 20 * plan["questions"]
    assert abs(sum(plan["share_of_operator_time"].values()) - 1) < 1e-9


def test_the_posts_loop_trains_on_the_same_rows_on_duckdb_and_on_fewer_on_its_own_store(sections):
    seed, seed_duckdb, workshop = (
        of(sections["selection"], name) for name in ("seed", "seed_duckdb", "workshop")
    )
    for name, subset in workshop["subsets"].items():
        assert seed_duckdb["subsets"][name]["digest"] == subset["digest"]
        assert seed_duckdb["subsets"][name]["rows"] == subset["rows"] == workshop["labels"]
        assert seed["subsets"][name]["rows"] < workshop["labels"]
        assert seed["subsets"][name]["digest"] != subset["digest"]
    assert (
        set(seed["parts"]) == set(workshop["parts"]) == {"retrieve", "fit and score", "log the model", "else"}
    )


def test_on_the_flights_both_ways_retrieve_the_same_values_for_the_first_candidate(sections):
    seed, workshop = (of(sections["selection"], name, "flights") for name in ("seed_duckdb", "workshop"))
    assert list(workshop["subsets"]) == ["hour"]
    assert seed["subsets"]["hour"]["digest"] == workshop["subsets"]["hour"]["digest"]
    assert (
        seed["subsets"]["hour"]["rows"] == workshop["subsets"]["hour"]["rows"] == workshop["labels"] > 20_000
    )
    assert 0.6 < workshop["subsets"]["hour"]["auc"] < 0.8


def test_the_flights_are_served_from_three_views_by_two_text_keys_and_a_value_of_the_caller(sections):
    scores = [
        of(sections["online"], name, "flights")["scores"] for name in ("in_process", "logged", "over_http")
    ]
    assert scores[0] == scores[1] == scores[2] and len(scores[0]) > 30
    assert len(set(scores[0])) > 20, "most pairs have features of their own"


def test_the_server_scores_every_driver_as_the_process_does(sections):
    inside, http = of(sections["online"], "in_process"), of(sections["online"], "over_http")
    assert inside["scores"] == http["scores"] and len(inside["scores"]) > 100
    assert all(run["p50_ms"] <= run["p99_ms"] for run in (inside, http))


def test_tracking_changes_no_trial(sections):
    assert len(sections["sweep"]) == 3 and len({run["best"] for run in sections["sweep"]}) == 1


def test_the_pipelines_of_the_step_benchmark_answer_right(sections):
    assert [run["answers"] for run in sections["step"]] == [[2, 64]]


def test_the_course_is_taken_apart_into_parts_that_add_up(sections):
    (run,) = sections["course"]
    (notebook,) = run["notebooks"]
    parts = render.course_parts(notebook)
    assert notebook["checks"] >= 4 and notebook["kernel_processes"] >= 1
    assert notebook["kernel_imports"] > 0.1 and all(seconds >= 0 for seconds in parts.values())
    assert sum(parts.values()) == pytest.approx(notebook["seconds"], rel=0.01)


def test_the_page_has_a_row_for_each_figure_and_shows_every_plot_with_a_text(out):
    page = (out / "performance.md").read_text()
    for figure in (
        "make run",
        "point-in-time join",
        "feature selection",
        "online prediction",
        "sweep",
        "pipeline step",
    ):
        assert figure in page.split("\n## ")[0]
    shown = re.findall(r"!\[(.+?)\]\((.+?)\)", page)
    assert all(len(text) >= 30 for text, _ in shown)
    assert sorted(path for _, path in shown) == sorted(
        str(p.relative_to(out)) for p in (out / "pictures").glob("performance_*.png")
    )


def test_the_page_shows_drivers_and_flights_side_by_side_and_leaves_out_what_has_no_figures(out):
    performance = json.loads((out / "performance.json").read_text())
    page = render.markdown(performance)
    assert page.count("\n| flights | ") == 2 + 3 == page.count("\n| drivers | ") - 1
    for name in ("selection", "online"):
        section = performance["sections"][name]
        section["measured"] = [run for run in section["measured"] if run.pop("data") == "drivers"]
    assert "flights" not in render.markdown(performance)


def test_renewing_one_section_keeps_the_others(out, tmp_path, monkeypatch):
    (tmp_path / "performance.json").write_text((out / "performance.json").read_text())
    monkeypatch.setitem(bench.SECTIONS, "step", lambda size, folder: [{"renewed": True}])
    monkeypatch.setattr(bench.subprocess, "call", lambda *_, **__: 0)
    assert bench.main(["--only", "step", "--size", "small", "--out", str(tmp_path)]) == 0
    before, after = (
        json.loads((path / "performance.json").read_text())["sections"] for path in (out, tmp_path)
    )
    assert after.pop("step")["measured"] == [{"renewed": True}] and before.pop("step")
    assert after == before


@pytest.fixture
def elsewhere(tmp_path, monkeypatch) -> Path:
    """A file with two sections that another machine measured; measuring takes no time here."""
    other = {"machine": {"cores": 999}, "sections": {"join": {"old": True}, "step": {"old": True}}}
    (tmp_path / "performance.json").write_text(json.dumps(other))
    for name in bench.SECTIONS:
        monkeypatch.setitem(bench.SECTIONS, name, lambda size, folder: [])
    monkeypatch.setattr(bench.subprocess, "call", lambda *_, **__: 0)
    return tmp_path


def test_figures_of_another_machine_are_neither_mixed_in_nor_lost(elsewhere, capsys):
    before = (elsewhere / "performance.json").read_text()
    with pytest.raises(SystemExit):
        bench.main(["--only", "step", "--size", "small", "--out", str(elsewhere)])
    assert "figures of another machine" in capsys.readouterr().err
    assert (elsewhere / "performance.json").read_text() == before


def test_a_run_of_all_sections_replaces_them(elsewhere):
    bench.main(["--size", "small", "--out", str(elsewhere)])
    written = json.loads((elsewhere / "performance.json").read_text())
    assert list(written["sections"]) == list(bench.SECTIONS) and written["machine"]["cores"] != 999
    assert not any("old" in section for section in written["sections"].values())


def test_a_run_that_breaks_off_loses_no_section(elsewhere, monkeypatch):
    def broken(size, folder):
        raise SystemExit("error: the disk is full")

    before = (elsewhere / "performance.json").read_text()
    monkeypatch.setitem(bench.SECTIONS, "step", broken)
    with pytest.raises(SystemExit):
        bench.main(["--size", "small", "--out", str(elsewhere)])
    assert (elsewhere / "performance.json").read_text() == before


def test_a_contestant_that_fails_is_reported_with_what_it_said(capfd):
    with pytest.raises(SystemExit, match=r"benchmarks.join asof .* failed"):
        bench.child("join", "asof", "--folder", "no_such_folder")
    assert "FileNotFoundError" in capfd.readouterr().err


def test_the_committed_page_is_what_its_data_renders_to():
    performance = json.loads((DOCS / "performance.json").read_text())
    assert (DOCS / "performance.md").read_text() == render.markdown(performance)


def test_the_committed_figures_are_complete_and_their_contestants_agree():
    performance = json.loads((DOCS / "performance.json").read_text())
    assert list(performance["sections"]) == list(bench.SECTIONS)
    assert set(performance["machine"]) == {"cores", "memory_gb", "system", "python", "versions"}
    sections = {name: section["measured"] for name, section in performance["sections"].items()}
    assert render.Join(sections["join"]).equal()
    for runs in render.by_data(sections["online"]).values():
        assert len({str(run["scores"]) for run in runs}) == 1
    assert len({run["best"] for run in sections["sweep"]}) == 1
    for runs in render.by_data(sections["selection"]).values():
        rows = {"seed_duckdb": set(), "workshop": set(), "seed": set()}
        for run in runs:
            rows[run["contestant"]] |= {subset["digest"] for subset in run["subsets"].values()}
        assert rows["seed_duckdb"] == rows["workshop"] and len(rows["workshop"]) == len(run["subsets"])
    page = (DOCS / "performance.md").read_text()
    missing = [path for path in re.findall(r"\]\((pictures/.+?)\)", page) if not (DOCS / path).exists()]
    assert missing == []


def test_the_committed_figures_name_no_machine_and_no_folder():
    text = (DOCS / "performance.json").read_text() + (DOCS / "performance.md").read_text()
    assert re.findall(r"(?<![\w.<])/(?:root|home|Users|tmp|work|private|var|opt|usr|mnt|runner)/", text) == []
