"""Judging features before they are used: an expectation suite as a Feast profiler, common bins for histograms, a staging store.

Feast 0.67 comes with a profiler for Great Expectations 0.18 alone. These classes are the bridge to the current one: with them
``to_df(validation_reference=...)`` runs an expectation suite in process, and refuses a batch with a report that a person can read.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping

import great_expectations as gx
import numpy as np
import pandas as pd
from feast import FeatureStore, FeatureView, FileSource, RepoConfig
from feast.dqm.errors import ValidationFailed
from feast.dqm.profilers.profiler import Profile, Profiler, ValidationError, ValidationReport
from great_expectations.core import ExpectationSuiteValidationResult
from great_expectations.data_context.types.base import ProgressBarsConfig

from helpers.workspace import Workspace


class SuiteReport(ValidationReport):
    """What a suite found in one batch. ``str()`` gives a line per error, so that a ``ValidationFailed`` that nobody catches explains itself."""

    def __init__(self, result: ExpectationSuiteValidationResult) -> None:
        self.result = result

    @property
    def is_success(self) -> bool:
        return bool(self.result.success)

    @property
    def errors(self) -> list[ValidationError]:
        return [_error(found) for found in self.result.results if not found.success]

    def table(self) -> pd.DataFrame:
        """A row per expectation that failed: column, expectation, its limits, and what was found."""
        rows = [(e.column_name, e.check_name, _limits(e.check_config), _found(e)) for e in self.errors]
        return pd.DataFrame(rows, columns=["column", "expectation", "allowed", "found"])

    def markdown(self) -> str:
        """Great Expectations' own report on every expectation, as markdown; without its last part, which holds the time of day."""
        from great_expectations.render.renderer import ValidationResultsPageRenderer
        from great_expectations.render.view import DefaultMarkdownPageView

        page = ValidationResultsPageRenderer(run_info_at_end=True).render(self.result)
        text = "".join(DefaultMarkdownPageView().render(page)).partition("### Info")[0]
        text = re.sub(r"\n\n(?=\*\*\d+\*\* unexpected)", " ", text)  # a row of a table has to stay on one line
        return re.sub(r"\n\s*\n", "\n\n", text).strip()

    def __str__(self) -> str:
        return "\n".join(
            f"{r.column}: {r.expectation} ({r.allowed}), found {r.found}" for r in self.table().itertuples()
        )


class SuiteProfile(Profile):
    """A suite that is ready to look at batches. Feast calls ``validate`` with each retrieved frame."""

    def __init__(self, suite: gx.ExpectationSuite) -> None:
        self.suite = suite

    def validate(self, dataset: pd.DataFrame) -> SuiteReport:
        context = gx.get_context(
            mode="ephemeral"
        )  # a fresh one: a used one refuses a second data source of the same name
        context.variables.progress_bars = ProgressBarsConfig(globally=False)
        asset = context.data_sources.add_pandas("features").add_dataframe_asset("retrieved")
        batch = asset.add_batch_definition_whole_dataframe("all_rows").get_batch({"dataframe": dataset})
        result = batch.validate(self.suite, result_format={"result_format": "BASIC", "partial_unexpected_count": 0})
        for found in result.results:  # the renderer of the report cannot read NumPy's numbers
            value = (found.result or {}).get("observed_value")
            if isinstance(value, np.generic):
                found.result["observed_value"] = value.item()
        return SuiteReport(result)


class SuiteProfiler(Profiler):
    """Makes the profile from the reference: ``build`` turns the reference frame into a suite.

    The reference must meet its own suite. Great Expectations 0.18 left out, without a word, each expectation that the reference broke.
    """

    def __init__(self, build: Callable[[pd.DataFrame], gx.ExpectationSuite]) -> None:
        self.build = build

    def analyze_dataset(self, dataset: pd.DataFrame) -> SuiteProfile:
        """The profile of the reference.

        Raises:
            ValidationFailed: the reference breaks its own suite; the report says where.
        """
        profile = SuiteProfile(self.build(dataset))
        report = profile.validate(dataset)
        if not report.is_success:
            raise ValidationFailed(report)
        return profile


def _error(found: object) -> ValidationError:
    settings = {k: v for k, v in found.expectation_config.kwargs.items() if k not in ("batch_id", "column")}
    result = found.result or {}
    error = ValidationError(
        found.expectation_config.type,
        found.expectation_config.kwargs.get("column", "<table>"),
        check_config=settings,
        observed_value=result.get("observed_value"),
        unexpected_count=result.get("unexpected_count"),
        unexpected_percent=result.get("unexpected_percent"),
    )
    crash = next(iter((found.exception_info or {}).values()), None)  # a column that is not there: no result, only this
    error.message = crash.get("exception_message") if isinstance(crash, dict) else None
    return error


def _limits(settings: Mapping[str, object]) -> str:
    return ", ".join(f"{name} {round(value, 3)}" for name, value in settings.items() if isinstance(value, int | float))


def _found(error: ValidationError) -> str:
    if error.unexpected_count:
        return f"{error.unexpected_count} rows ({error.unexpected_percent:.1f} %)"
    if error.observed_value is not None:
        return f"{error.observed_value:.3f}"
    return error.message or "no result"


def common_bins(
    first: Mapping, second: Mapping, *, whole_numbers: bool = False, bins: int = 10
) -> tuple[np.ndarray, np.ndarray]:
    """Two of Feast's histograms as shares on the same bins, so that they can be compared.

    Feast's monitoring cuts each histogram between the least and the greatest value of its own window, so no two have the same edges.

    Args:
        first: ``{"bins": n + 1 edges, "counts": n numbers}``; the counts are spread evenly in each bin.
        second: the same, of another window.
        whole_numbers: the feature is an integer. An edge between two integers then counts as half-way, as no value lies between them.
        bins: number of common bins, from the least to the greatest value of both.

    Returns:
        Two arrays of ``bins`` shares; each adds up to 1.
    """

    def edges(histogram: Mapping) -> np.ndarray:
        cuts = np.asarray(histogram["bins"], dtype=float)
        if whole_numbers:
            cuts = np.ceil(cuts.round(6)) - 0.5
            cuts[-1] += 1
        return cuts

    cuts = [edges(first), edges(second)]
    common = np.linspace(min(c[0] for c in cuts), max(c[-1] for c in cuts), bins + 1)
    totals = [np.concatenate([[0], np.cumsum(h["counts"])]) / np.sum(h["counts"]) for h in (first, second)]
    return tuple(np.diff(np.interp(common, c, t)) for c, t in zip(cuts, totals, strict=True))


def staging(workspace: Workspace, store: FeatureStore, name: str, rows: pd.DataFrame) -> FeatureStore:
    """A feature store of its own for hourly rows that have just arrived, so that they can be judged before anybody reads them.

    It is a Feast project in ``workspace/staging/<name>/`` with its own registry and online store; ``store``'s registry is only read.

    Args:
        store: the project whose ``driver_hourly_stats`` is taken over: name, keys, schema and time to live.
        rows: hourly rows with the columns of ``driver_stats.parquet``; written there as the view's source.
    """
    folder = workspace.path / "staging" / name
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "driver_stats.parquet"
    rows.to_parquet(path, index=False)

    view, driver = store.get_feature_view("driver_hourly_stats"), store.get_entity("driver")
    times = {"timestamp_field": "event_timestamp", "created_timestamp_column": "created"}
    source = FileSource(name="driver_stats", path=str(path), **times)
    config = RepoConfig(
        project="staging",
        provider="local",
        registry=str(folder / "registry.db"),
        online_store={"type": "sqlite", "path": str(folder / "online_store.db")},
        offline_store={"type": "duckdb"},
        repo_path=folder,
        entity_key_serialization_version=3,
    )
    arrived = FeatureStore(config=config)
    arrived.apply(
        [driver, FeatureView(name=view.name, entities=[driver], ttl=view.ttl, schema=view.schema, source=source)]
    )
    return arrived
