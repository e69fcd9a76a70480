"""The tools' own pages in a browser: they show what the notebooks made, ask nobody but this machine, and look like the committed pictures.

`STORE_PICTURES=1 pytest tests/test_pictures.py` writes docs/pictures anew; a plain run only compares sizes.
"""

import io
import json
import os
import re
import sys
from pathlib import Path
from urllib.parse import quote, urlencode

import mlflow
import nbformat
import pytest
from browser import chromium, needs_chromium
from PIL import Image

from helpers.services import HOST, Service
from helpers.workspace import REPOSITORY
from workshop import commands, runner

PICTURES = REPOSITORY / "docs" / "pictures"
WIDTH, HEIGHT = 1360, 760
PATIENCE = 120_000  # milliseconds: the first page of a server that has just started

pytestmark = needs_chromium


@pytest.fixture(scope="module")
def workspace(course):
    """The course's home, in which 01 and 04 ran, now or in test_notebooks.py; its path is the working directory, as the servers expect."""
    workspace = course
    for number in ("01", "04"):
        (notebook,) = runner.choose(only=number)
        copy = workspace.path / "executed" / notebook.name
        if not copy.exists():
            assert not runner.execute(notebook, copy, workspace, progress=False).failure
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(workspace.path)
        for name, value in {
            "TZ": "UTC",
            "DO_NOT_TRACK": "true",
            "MLFLOW_DISABLE_TELEMETRY": "true",
            "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
        }.items():
            patch.setenv(name, value)
        patch.setenv("MLFLOW_TRACKING_URI", workspace.tracking_uri)
        yield workspace


@pytest.fixture(scope="module")
def servers(workspace):
    """The pages as `make ui` opens them: MLflow's, Feast's."""
    mlflow, feast = commands.pages(workspace)
    with mlflow, feast:
        yield mlflow.wait(), feast.wait()


@pytest.fixture
def mlflow_url(servers):
    return servers[0].url


@pytest.fixture
def feast_url(servers):
    return servers[1].url


@pytest.fixture(scope="module")
def browser():
    with chromium() as browser:
        yield browser


@pytest.fixture
def page(browser):
    """A page in a profile of its own. Afterwards: it has asked this machine for something, and no other."""
    context = browser.new_context(viewport={"width": WIDTH, "height": HEIGHT}, device_scale_factor=1.5)
    context.set_default_timeout(PATIENCE)
    page, asked = context.new_page(), []
    page.on("request", lambda request: asked.append(request.url))
    yield page
    assert asked
    assert [url for url in asked if not url.startswith((f"http://{HOST}:", "data:", "blob:", "about:"))] == []
    context.close()


def around(page, parts: str, margin: int = 12) -> dict:
    """The rectangle that holds all parts."""
    found = [part.bounding_box() for part in page.locator(parts).all()]
    x, y = (min(box[side] for box in found) - margin for side in ("x", "y"))
    right = max(box["x"] + box["width"] for box in found) + margin
    bottom = max(box["y"] + box["height"] for box in found) + margin
    return {"x": x, "y": y, "width": right - x, "height": bottom - y}


def take(page, name: str, parts: str = "body") -> None:
    """A small picture of the page or of parts of it: it shows something, and the committed one has its size."""
    page.wait_for_timeout(3000)  # charts grow into place
    clip, before = around(page, parts), None
    while parts != "body" and clip != before:  # and a graph moves until it has found its form
        page.wait_for_timeout(1500)
        clip, before = around(page, parts), clip
    shot = page.screenshot() if parts == "body" else page.screenshot(clip=clip)
    picture = Image.open(io.BytesIO(shot)).convert("RGB")
    colors = picture.quantize(256, dither=Image.Dither.NONE)
    counts = sorted((count for count, _ in colors.getcolors()), reverse=True)
    assert len(counts) > 16 and counts[0] < 0.97 * sum(counts), "the page is blank, or nearly"
    stored = PICTURES / f"{name}.png"
    if os.environ.get("STORE_PICTURES"):
        PICTURES.mkdir(exist_ok=True)
        colors.save(stored, optimize=True)
    # A graph is as wide as the machine's fonts make its names.
    near = 0 if parts == "body" else 0.2
    for side, stored_side in zip(picture.size, Image.open(stored).size, strict=True):
        assert abs(side - stored_side) <= near * stored_side, "take the pictures again: STORE_PICTURES=1"
    assert stored.stat().st_size < 150_000


def text(page) -> str:
    return page.locator("body").inner_text()


@pytest.fixture(scope="module")
def candidates(workspace):
    """The candidates' runs: name and metrics as MLflow stores them."""
    client = mlflow.MlflowClient(workspace.tracking_uri)
    experiment = client.get_experiment_by_name("feature_selection").experiment_id
    runs = client.search_runs([experiment], "tags.stage = 'candidate'")
    assert len(runs) == 8
    return experiment, {run.data.tags["mlflow.runName"]: run for run in runs}


METRICS = ["auc", "accuracy", "precision", "recall", "f1"]


def open_runs(page, url, experiment, **options):
    """The experiment's page in the mode for training, without the assistant, the candidates alone and the best one first."""
    page.goto(url)
    page.evaluate("""() => {
        localStorage.setItem('mlflow.workflowType_v1', '"machine_learning"');
        localStorage.setItem('mlflow.assistant.panelOpen_v1', 'false');
        localStorage.setItem('mlflow.assistant.fab.autoOpenedOnFirstLoad_v1', 'true');
    }""")
    find = {"searchFilter": "tags.stage = 'candidate'", "orderByKey": "metrics.`auc`", "orderByAsc": "false"}
    page.goto("about:blank")
    page.goto(f"{url}/#/experiments/{experiment}/runs?{urlencode(find | options)}")
    page.get_by_text("8 matching runs").wait_for()


def test_mlflows_table_lists_the_candidates_with_their_metrics_best_first(page, mlflow_url, candidates):
    experiment, runs = candidates
    columns = ["params.`num_features`", *(f"metrics.`{metric}`" for metric in METRICS)]
    key = f'MLflowLocalStorage-1.1-ExperimentPage-["{experiment}"]-ReactComponentState'
    open_runs(
        page, mlflow_url, experiment
    )  # the page keeps its columns in the browser, from the second time on
    page.add_init_script(f"""
        const state = JSON.parse(localStorage.getItem({json.dumps(key)}));
        if (state) {{
            state.selectedColumns = {json.dumps(columns)};
            localStorage.setItem({json.dumps(key)}, JSON.stringify(state));
        }}
    """)
    open_runs(page, mlflow_url, experiment)
    for metric in METRICS:
        page.get_by_text(metric, exact=True).first.wait_for()
    shown = text(page)
    take(page, "mlflow_runs")
    best_first = sorted(runs, key=lambda name: -runs[name].data.metrics["auc"])
    assert [line for line in shown.splitlines() if line in runs] == best_first
    for run in runs.values():
        assert [metric for metric in METRICS if str(run.data.metrics[metric])[:6] not in shown] == []


def test_mlflows_charts_show_all_five_metrics_of_the_candidates(page, mlflow_url, candidates):
    experiment, runs = candidates
    open_runs(page, mlflow_url, experiment, compareRunsMode="CHART")
    page.get_by_text("block_auc", exact=True).first.wait_for()
    page.locator(".js-plotly-plot .bars").first.wait_for()
    shown = text(page)
    take(page, "mlflow_charts")
    assert {name for name in runs if name in shown} == set(runs)
    assert (
        "Model metrics" in shown and [metric for metric in METRICS if metric not in shown.splitlines()] == []
    )
    assert f"{runs['acc_only'].data.metrics['auc']:.2f}" in shown


def test_mlflows_comparison_puts_three_feature_sets_side_by_side(page, mlflow_url, candidates):
    experiment, runs = candidates
    three = ["acc_only", "rates", "rates_and_trips"]
    page.set_viewport_size({"width": WIDTH, "height": 1150})  # the names above, the metrics below
    chosen = quote(json.dumps([runs[name].info.run_id for name in three]))
    open_runs(page, mlflow_url, experiment)
    page.goto(f"{mlflow_url}/#/compare-runs?runs={chosen}&experiments={quote(json.dumps([experiment]))}")
    page.get_by_text("Comparing 3 Runs from 1 Experiment").first.wait_for()
    page.get_by_text("Run details").first.wait_for()
    page.get_by_text("Visualizations").first.click()  # fold it: the numbers below are the comparison
    for switch in page.get_by_text("Show diff only").all()[:1]:
        switch.click()
    shown = text(page)
    take(page, "mlflow_comparison")
    assert [name for name in three if name not in shown] == []
    for name in three:
        values = [f"{runs[name].data.metrics[metric]:.3f}".rstrip("0") for metric in METRICS]
        assert [value for value in values if value not in shown] == []
    assert "avg_daily_trips" in shown


def test_feasts_page_lists_the_feature_views_of_the_project(page, feast_url):
    page.goto(f"{feast_url}/p/driver_ranking/feature-view")
    for name in ("driver_hourly_stats", "driver_daily_profile", "driver_ratios", "driver_target"):
        page.get_by_role("table").get_by_text(name).first.wait_for()
    take(page, "feast_feature_views")
    assert "Feature Views" in text(page)


def test_feasts_page_draws_the_lineage_from_source_to_service(page, feast_url):
    page.set_viewport_size({"width": 1700, "height": 1400})
    page.goto(f"{feast_url}/p/driver_ranking/lineage")
    for name in ("driver_stats", "driver_hourly_stats", "driver_training"):
        page.get_by_text(name, exact=True).first.wait_for()
    take(
        page, "feast_lineage", parts=".react-flow__node"
    )  # without the legend: its names would be too small to read
    assert "Lineage" in text(page)


def test_feasts_page_draws_one_graph_from_the_files_to_the_model(page, workspace):
    """In the collector's repository, which notebook 10 leaves behind."""
    (notebook,) = runner.choose(only="10")
    if not (workspace.path / "lineage" / "lineage.db").exists():
        copy = workspace.path / "executed" / notebook.name
        assert not runner.execute(notebook, copy, workspace, progress=False).failure
    feast = [Path(sys.executable).with_name("feast"), "-c", workspace.path / "lineage", "ui", "--host", HOST]
    log = workspace.path / "logs" / "feast_ui.log"
    with Service("Feast", [*feast, "--port", "{port}"], health="/", log=log) as server:
        page.set_viewport_size({"width": 1700, "height": 1400})
        page.goto(f"{server.url}/p/driver_ranking/lineage")
        focus = page.get_by_label("Focus on object")
        focus.locator("option", has_text="models:/driver_conversion/").first.wait_for(state="attached")
        names = [name for name in focus.locator("option").all_inner_texts() if name.startswith("models:/")]
        focus.select_option(label=names[-1])
        for name in ("driver_stats", "driver_hourly_stats", names[-1]):
            page.locator(".react-flow__node", has_text=name).first.wait_for()
        page.get_by_label("fit view").click()
        take(page, "feast_model_lineage", parts=".react-flow__node")


@pytest.fixture(scope="module")
def addresses(workspace, servers):
    """What `make ui` prints, both tools' pages together."""
    shown = commands.addresses(workspace, *(server.url for server in servers))
    return shown["MLflow"] | shown["Feast"]


SHOWS = {
    "runs of feature_selection": ["feature_selection", "by autolog", "12 matching runs"],
    "its candidates, best first": ["8 matching runs", "rates_and_rating", "conv_only"],
    "their metrics in charts": ["8 matching runs", "Model metrics", "block_auc"],
    "versions of driver_conversion": ["driver_conversion", "Versions", "Version 1"],
    "versions of late_departure": ["late_departure", "Versions", "Version 1"],
    "lineage": ["driver_hourly_stats", "driver_training", "Lineage"],
    "feature views": ["driver_hourly_stats", "driver_ratios", "Feature Views"],
    "feature services": ["driver_training", "rates_and_rating", "Feature Services"],
}


def in_front(page, text: str) -> bool:
    """Whether nothing lies over the first visible place with this text."""
    place = page.get_by_text(text).locator("visible=true").first
    place.wait_for()
    place.scroll_into_view_if_needed()
    return place.evaluate("""e => {
        const box = e.getBoundingClientRect();
        const top = document.elementFromPoint(box.x + Math.min(box.width, 20) / 2, box.y + box.height / 2);
        return Boolean(top) && (e.contains(top) || top.contains(e));
    }""")


@pytest.mark.parametrize("what", SHOWS)
def test_an_address_that_make_ui_prints_lands_on_its_page_in_a_new_browser(page, addresses, what):
    page.goto(addresses[what])
    for text in SHOWS[what]:
        if not in_front(page, text):  # perhaps in the middle of being drawn
            page.wait_for_timeout(3000)
            assert in_front(page, text), text
    page.wait_for_timeout(3000)  # a dialog comes after the page
    assert page.locator("[role=dialog]:visible").count() == 0


def test_make_ui_prints_no_address_that_is_not_tried(addresses):
    known = set(SHOWS) | {name for name in addresses if name.startswith("runs of ")}
    assert set(SHOWS) <= set(addresses) <= known


def test_mlflows_assistant_stands_beside_the_page_and_stays_closed_once_it_was_closed(page, addresses):
    page.goto(addresses["runs of feature_selection"])
    cross = page.locator("[data-component-id='mlflow.assistant.chat_panel.close']")
    cross.click()
    cross.wait_for(state="hidden")
    page.goto("about:blank")
    page.goto(addresses["versions of driver_conversion"])
    page.get_by_text("Versions").first.wait_for()
    page.wait_for_timeout(3000)
    assert not cross.is_visible()


def test_every_stored_picture_is_shown_in_a_notebook_with_a_text():
    shown = {}
    for path in (REPOSITORY / "notebooks").glob("*.ipynb"):
        for cell in nbformat.read(path, as_version=4).cells:
            for alt, name in re.findall(r"!\[([^\]]*)\]\(\.\./docs/pictures/([^)]+)\)", cell.source):
                shown[name] = alt
    taken = {path.name for path in PICTURES.iterdir() if not path.name.startswith("performance_")}
    assert set(shown) == taken
    assert [name for name, alt in shown.items() if len(alt) < 40] == []
