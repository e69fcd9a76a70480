"""The benchmarks at their smallest size measure and render; the committed page agrees with its data."""

import json
import re

import pytest

from benchmarks import __main__ as bench
from benchmarks import render
from helpers.workspace import REPOSITORY

DOCS = REPOSITORY / "docs"


@pytest.mark.unit
def test_a_figure_is_the_median_of_its_rounds_and_a_ratio_that_of_one_round():
    runs = [
        {"round": number, "contestant": name, "seconds": seconds}
        for number, pair in enumerate([(4, 2), (9, 3), (2, 2)])
        for name, seconds in zip(["feast", "asof"], pair, strict=True)
    ]
    feast, asof = bench.figures(runs, "asof", ["seconds"], {"ratio": "seconds"})
    assert (feast["seconds"], feast["seconds_range"]) == (4, [2, 9])
    assert (feast["ratio"], feast["ratio_range"]) == (2, [1, 3]) and asof["ratio"] == 1
    assert render.shown(feast, "ratio", 1, " x") == "2.0 x (1.0 to 3.0)"


@pytest.mark.unit
def test_contestants_that_differ_end_the_run():
    runs = [{"contestant": "feast", "digest": "a"}, {"contestant": "pandas", "digest": "b"}]
    with pytest.raises(SystemExit, match="the answers of feast, pandas differ"):
        bench.agree(runs, "digest")


@pytest.mark.unit
def test_figures_of_another_machine_are_not_mixed_with_those_of_this_one(tmp_path, capsys):
    path, other = tmp_path / "performance.json", '{"machine": {"cores": 999}, "join": 1, "course": 1}'
    path.write_text(other)
    with pytest.raises(SystemExit):
        bench.main(["--only", "course", "--size", "small", "--out", str(tmp_path)])
    assert "figures of another machine" in capsys.readouterr().err and path.read_text() == other


@pytest.mark.unit
def test_the_committed_page_is_what_its_data_renders_to():
    text = (DOCS / "performance.json").read_text()
    performance, page = json.loads(text), (DOCS / "performance.md").read_text()
    assert list(performance) == ["machine", *bench.SECTIONS]
    assert page == render.markdown(performance) and text == bench.as_json(performance) + "\n"
    assert [path for path in re.findall(r"\]\((pictures/.+?)\)", page) if not (DOCS / path).exists()] == []
    assert re.findall(r"(?<![\w.<])/(?:root|home|Users|tmp|work|private|var|opt|usr|mnt)/", text) == []
