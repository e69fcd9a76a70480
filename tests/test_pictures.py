"""The tools' own pages show what the notebooks made, ask only this machine, and have the pictures' size.

`STORE_PICTURES=1 pytest tests/test_pictures.py` stores them; a plain run compares sizes.
"""

import io
import json
import os
import re
import sys
from pathlib import Path
from urllib.parse import quote

import mlflow
import nbformat
import pytest
from browser import PATIENCE, browser, needs_chromium  # noqa: F401  a fixture
from PIL import Image

from helpers.services import HOST, Service
from helpers.workspace import REPOSITORY
from workshop import commands, runner

PICTURES = REPOSITORY / "docs" / "pictures"
WIDTH, HEIGHT = 1360, 760
METRICS = ["auc", "accuracy", "precision", "recall", "f1"]

pytestmark = [pytest.mark.course, pytest.mark.xdist_group("course"), needs_chromium]


def execute_unless(made: str, number: str, workspace) -> None:
    """Run a notebook in the course's home, unless it left this behind."""
    (notebook,) = runner.choose(only=number)
    copy = workspace.path / "executed" / notebook.name
    made_it = (workspace.path / made).exists()
    assert made_it or not runner.execute(notebook, copy, workspace, progress=False).failure


@pytest.fixture(scope="module")
def workspace(course):
    """The course's home after notebook 04; its path is the working directory, as the servers expect."""
    execute_unless("mlflow.db", "04", course)
    settings = {"TZ": "UTC", "DO_NOT_TRACK": "true", "MLFLOW_DISABLE_TELEMETRY": "true"}
    settings |= {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false", "MLFLOW_TRACKING_URI": course.tracking_uri}
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(course.path)
        for name, value in settings.items():
            patch.setenv(name, value)
        yield course


@pytest.fixture(scope="module")
def addresses(workspace):
    """What `make ui` prints, while its servers run, and the address of MLflow itself."""
    mlflow_server, feast_server = commands.pages(workspace)
    with mlflow_server, feast_server:
        urls = mlflow_server.wait().url, feast_server.wait().url
        shown = commands.addresses(workspace, *urls)
        yield {"MLflow": urls[0], **shown["MLflow"], **shown["Feast"]}


@pytest.fixture
def page(browser):  # noqa: F811
    """A page in a profile of its own. Afterwards: it has asked this machine for something, and no other."""
    context = browser.new_context(viewport={"width": WIDTH, "height": HEIGHT}, device_scale_factor=1.5)
    context.set_default_timeout(PATIENCE)
    page, asked = context.new_page(), []
    page.on("request", lambda request: asked.append(request.url))
    yield page
    assert asked
    assert [url for url in asked if not url.startswith((f"http://{HOST}:", "data:", "blob:", "about:"))] == []
    context.close()


def shows(page, *texts: str | re.Pattern) -> None:
    """Wait until the page shows all of these."""
    from playwright.sync_api import expect

    for text in texts:
        expect(page.locator("body")).to_contain_text(text, use_inner_text=True)


def rectangle(page, parts: str, margin: int = 12) -> dict:
    """What holds all parts, asked in one go: the page may draw them anew at any time."""
    left, top, right, bottom = page.locator(parts).evaluate_all("""parts => {
        const boxes = parts.map(part => part.getBoundingClientRect());
        const of = (choose, side) => choose(...boxes.map(box => box[side]));
        return [of(Math.min, "left"), of(Math.min, "top"), of(Math.max, "right"), of(Math.max, "bottom")];
    }""")
    width, height = right - left + 2 * margin, bottom - top + 2 * margin
    return {"x": left - margin, "y": top - margin, "width": width, "height": height}


def take(page, name: str, parts: str | None = None) -> None:
    """A small picture of the page or its parts: it isn't blank, and the committed one has its size."""
    shot, before = b"", None
    for _ in range(120):  # charts grow into place, and a graph moves until it has found its form
        page.wait_for_timeout(1000)
        clip = {"clip": rectangle(page, parts)} if parts else {}
        before, shot = shot, page.screenshot(animations="disabled", **clip)  # the edges of a graph run on
        if shot == before:
            break
    assert shot == before, "the page does not come to rest"
    picture = Image.open(io.BytesIO(shot)).convert("RGB")
    colors = picture.quantize(256, dither=Image.Dither.NONE)
    counts = sorted((count for count, _ in colors.getcolors()), reverse=True)
    assert len(counts) > 16 and counts[0] < 0.97 * sum(counts), "the page is blank, or nearly"
    stored = PICTURES / f"{name}.png"
    if os.environ.get("STORE_PICTURES"):
        colors.save(stored, optimize=True)
    near = 0.2 if parts else 0  # a graph is as wide as the machine's fonts make its names
    for side, stored_side in zip(picture.size, Image.open(stored).size, strict=True):
        assert abs(side - stored_side) <= near * stored_side, "take the pictures again: STORE_PICTURES=1"
    assert stored.stat().st_size < 150_000


@pytest.fixture
def candidates(workspace, page):
    """The experiment, and the candidates' runs as MLflow stores them, best first; its assistant is closed."""
    keep = {"workflowType_v1": '"machine_learning"', "assistant.panelOpen_v1": "false"}
    keep["assistant.fab.autoOpenedOnFirstLoad_v1"] = "true"
    for key, value in keep.items():
        page.add_init_script(f"localStorage.setItem('mlflow.{key}', {value!r})")
    client = mlflow.MlflowClient(workspace.tracking_uri)
    experiment = client.get_experiment_by_name("feature_selection").experiment_id
    runs = client.search_runs([experiment], "tags.stage = 'candidate'", order_by=["metrics.auc DESC"])
    assert len(runs) == 8
    return experiment, {run.data.tags["mlflow.runName"]: run for run in runs}


def test_mlflow_lists_the_candidates_best_first_and_draws_their_metrics(page, addresses, candidates):
    experiment, runs = candidates
    page.goto(addresses["its candidates, best first"])
    shows(page, "8 matching runs")
    # The page keeps its columns in the browser, from the second visit on.
    key = f'MLflowLocalStorage-1.1-ExperimentPage-["{experiment}"]-ReactComponentState'
    columns = ["params.`num_features`", *(f"metrics.`{metric}`" for metric in METRICS)]
    change = """([key, selectedColumns]) => localStorage.setItem(
        key, JSON.stringify({...JSON.parse(localStorage.getItem(key)), selectedColumns}))"""
    page.evaluate(change, [key, columns])
    page.reload()
    shows(page, "8 matching runs", re.compile(".*".join(rf"\b{re.escape(name)}\b" for name in runs), re.S))
    shows(page, *(str(run.data.metrics[metric])[:6] for run in runs.values() for metric in METRICS))
    take(page, "mlflow_runs")
    page.goto("about:blank")
    page.goto(addresses["their metrics in charts"])
    shows(page, "8 matching runs", "Model metrics", "block_auc", *METRICS, *runs)
    page.locator(".js-plotly-plot .bars").first.wait_for()
    shows(page, f"{runs['acc_only'].data.metrics['auc']:.2f}")
    take(page, "mlflow_charts")


def test_mlflow_puts_three_feature_sets_side_by_side(page, addresses, candidates):
    experiment, runs = candidates
    page.set_viewport_size({"width": WIDTH, "height": 1150})  # the names above, the metrics below
    three = ["acc_only", "rates", "rates_and_trips"]
    chosen = quote(json.dumps([runs[name].info.run_id for name in three]))
    compare = f"compare-runs?runs={chosen}&experiments={quote(json.dumps([experiment]))}"
    page.goto(f"{addresses['MLflow']}/#/{compare}")
    shows(page, "Comparing 3 Runs from 1 Experiment", "Run details", *three)
    page.get_by_text("Visualizations").first.click()  # fold it: the numbers below are the comparison
    page.get_by_text("Show diff only").first.click()
    metrics = [runs[name].data.metrics[metric] for name in three for metric in METRICS]
    shows(page, "avg_daily_trips", *(f"{value:.3f}".rstrip("0") for value in metrics))
    take(page, "mlflow_comparison")


def test_feast_lists_the_feature_views_and_draws_their_lineage(page, addresses):
    page.goto(addresses["feature views"])
    for name in ("driver_hourly_stats", "driver_daily_profile", "driver_ratios", "driver_target"):
        page.get_by_role("table").get_by_text(name).first.wait_for()
    shows(page, "Feature Views")
    take(page, "feast_feature_views")
    page.set_viewport_size({"width": 1700, "height": 1400})
    page.goto(addresses["lineage"])
    for name in ("driver_stats", "driver_hourly_stats", "driver_training"):
        page.get_by_text(name, exact=True).first.wait_for()
    shows(page, "Lineage")
    take(page, "feast_lineage", parts=".react-flow__node")  # the legend's names would be too small to read


def test_feast_draws_one_graph_from_the_files_to_the_model(page, workspace):
    """In the collector's repository, which notebook 13 leaves behind."""
    execute_unless("lineage/lineage.db", "13", workspace)
    feast = [Path(sys.executable).with_name("feast"), "-c", workspace.path / "lineage", "ui", "--host", HOST]
    log = workspace.path / "logs" / "feast_ui.log"
    with Service("Feast", [*feast, "--port", "{port}"], health="/", log=log) as server:
        page.set_viewport_size({"width": 1700, "height": 1400})
        page.goto(f"{server.url}/p/driver_ranking/lineage")
        focus = page.get_by_label("Focus on object")
        focus.locator("option", has_text="models:/driver_conversion/").last.wait_for(state="attached")
        names = [name for name in focus.locator("option").all_inner_texts() if name.startswith("models:/")]
        focus.select_option(label=names[-1])
        for name in ("driver_stats", "driver_hourly_stats", names[-1]):
            page.locator(".react-flow__node", has_text=name).first.wait_for()
        page.get_by_label("fit view").click()
        take(page, "feast_model_lineage", parts=".react-flow__node")


SHOWS = {
    "runs of feature_selection": ["feature_selection", "by autolog", "12 matching runs"],
    "its candidates, best first": ["8 matching runs", "rates_and_rating", "conv_only"],
    "their metrics in charts": ["8 matching runs", "Model metrics", "block_auc"],
    "versions of driver_conversion": ["driver_conversion", "Versions", "Version 1"],
    "versions of first_look": ["first_look", "Versions", "Version 1"],
    "versions of late_departure": ["late_departure", "Versions", "Version 1"],
    "lineage": ["driver_hourly_stats", "driver_training", "Lineage"],
    "feature views": ["driver_hourly_stats", "driver_ratios", "Feature Views"],
    "feature services": ["driver_training", "rates_and_rating", "Feature Services"],
}


IN_FRONT = """text => {
    const has = part => part.textContent.toLowerCase().includes(text.toLowerCase());
    const smallest = part => has(part) && ![...part.children].some(has) && part.checkVisibility();
    return [...document.querySelectorAll("body *")].filter(smallest).some(part => {
        part.scrollIntoView({block: "nearest"});
        const box = part.getBoundingClientRect();
        const top = document.elementFromPoint(box.x + Math.min(box.width, 20) / 2, box.y + box.height / 2);
        return Boolean(top) && (part.contains(top) || top.contains(part));
    });
}"""
"""Whether a text is on the page, and nothing lies over it."""


def test_each_address_that_make_ui_prints_lands_on_its_page_in_a_new_browser(page, addresses):
    """MLflow's assistant opens beside the first page, and stays closed once it was closed."""
    assert {name for name in addresses if not name.startswith("runs of ")} <= {*SHOWS, "MLflow"}
    close = page.locator("[data-component-id='mlflow.assistant.chat_panel.close']")
    first = "runs of feature_selection"
    for name in [first, *(name for name in SHOWS if name in addresses and name != first)]:
        page.goto("about:blank")
        page.goto(addresses[name])
        for text in SHOWS[name]:
            page.wait_for_function(IN_FRONT, arg=text)  # asks again while the page is drawn
        if name == first:
            close.click()
            close.wait_for(state="hidden")
        assert not close.is_visible(), name
        assert page.locator("[role=dialog]:visible").count() == 0, name


def test_every_stored_picture_is_shown_in_a_notebook_with_a_text():
    shown = {}
    for path in (REPOSITORY / "notebooks").glob("*.ipynb"):
        for cell in nbformat.read(path, as_version=4).cells:
            for alt, name in re.findall(r"!\[([^\]]*)\]\(\.\./docs/pictures/([^)]+)\)", cell.source):
                shown[name] = alt
    taken = {path.name for path in PICTURES.iterdir() if not path.name.startswith("performance_")}
    assert set(shown) == taken and [name for name, alt in shown.items() if len(alt) < 40] == []
