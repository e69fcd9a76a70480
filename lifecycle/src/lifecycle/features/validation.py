"""The validation gate: an expectation suite in the feature registry, and Feast's interface around it.

The suite is stored once, as a tag of a Feast saved dataset (``suite_tag``), beside the rows that it was
written for. Every gate reads it from there: before training, in the pipeline, before materialization.

Feast 0.67 comes with a profiler for Great Expectations 0.18 alone. The classes here are the bridge to the
current one: with them ``to_df(validation_reference=...)`` runs an expectation suite in process, and refuses a
batch with a report that a person can read.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NoReturn

import great_expectations as gx
import numpy as np
import pandas as pd
from feast.dqm.errors import ValidationFailed
from feast.dqm.profilers.profiler import Profile, Profiler, ValidationError, ValidationReport
from great_expectations.core import ExpectationSuiteValidationResult, ExpectationValidationResult
from great_expectations.data_context.types.base import ProgressBarsConfig

if TYPE_CHECKING:
    from feast import FeatureStore
    from feast.saved_dataset import ValidationReference

SUITE_TAG = "expectation_suite"
"""The tag of a saved dataset that holds its suite as JSON."""


class NoSuiteError(ValueError):
    """The registry holds no suite to judge by; the message says how to store one."""


def suite_tag(suite: gx.ExpectationSuite) -> dict[str, str]:
    """The suite as a tag, for ``store.create_saved_dataset(tags=...)``.

    Raises:
        ValueError: an expectation is on no single column. The gates choose rules by column, and would leave
            it out without a word.
    """
    others = [
        rule.configuration.type for rule in suite.expectations if "column" not in rule.configuration.kwargs
    ]
    if others:
        raise ValueError(f"{', '.join(others)}: each expectation of a stored suite must be on one column.")
    return {SUITE_TAG: json.dumps(suite.to_json_dict())}


def stored_suite(store: FeatureStore, saved_dataset: str) -> gx.ExpectationSuite:
    """The suite that was stored with a saved dataset.

    Raises:
        NoSuiteError: the registry has no saved dataset of this name, or it carries no suite.
    """
    from feast.errors import SavedDatasetNotFound

    remedy = f"Store one: store.create_saved_dataset(name={saved_dataset!r}, tags=suite_tag(suite), ...)."
    try:
        tags = store.get_saved_dataset(saved_dataset).tags
    except SavedDatasetNotFound:
        raise NoSuiteError(
            f"the feature registry has no saved dataset {saved_dataset!r}, so there is nothing to validate "
            f"by. {remedy}"
        ) from None
    if SUITE_TAG not in tags:
        raise NoSuiteError(f"the saved dataset {saved_dataset!r} carries no expectation suite. {remedy}")
    return gx.ExpectationSuite(**json.loads(tags[SUITE_TAG]))


def rules_for(suite: gx.ExpectationSuite, columns: Sequence[str]) -> gx.ExpectationSuite:
    """The expectations of ``suite`` that speak of ``columns``, as a suite of its own.

    Args:
        suite: as ``stored_suite`` gives it.
        columns: names; those that no expectation speaks of change nothing.
    """
    kept = [rule for rule in suite.expectations if rule.configuration.kwargs.get("column") in columns]
    return gx.ExpectationSuite(suite.name, expectations=kept)


def judge(suite: gx.ExpectationSuite, table: pd.DataFrame, columns: Sequence[str]) -> SuiteReport:
    """Run the expectations that speak of ``columns`` on ``table``.

    A column without an expectation is judged by nothing: write one for each column that a model may read, the
    computed ones too.

    Args:
        suite: the stored suite; its rules on other columns are left out.
        table: n rows.
        columns: what must be in the table. One that is not fails the rules that speak of it.

    Raises:
        NoSuiteError: no expectation speaks of any of the columns.
        ValueError: a column is not in the table, and no expectation speaks of it.
    """
    rules = rules_for(suite, columns)
    if not rules.expectations:
        raise NoSuiteError(f"the suite {suite.name!r} has no expectation for {', '.join(columns)}.")
    spoken_of = {rule.configuration.kwargs["column"] for rule in rules.expectations}
    missing = [name for name in columns if name not in table and name not in spoken_of]
    if missing:
        raise ValueError(
            f"the table to be judged has no column {', '.join(missing)}; it has {', '.join(table.columns)}."
        )
    return SuiteProfile(rules).validate(table)


def validation_reference(
    store: FeatureStore, saved_dataset: str, columns: Sequence[str]
) -> ValidationReference:
    """The gate for ``job.to_df(validation_reference=...)``: the stored suite's rules on ``columns``.

    A retrieval that is given it returns a frame that passed, or raises ``feast.dqm.errors.ValidationFailed``.
    Feast's registry cannot store such a reference (it knows the profiler of Great Expectations 0.18 alone),
    so it is built anew from the saved dataset each time.

    Args:
        store: the feature store whose registry holds the saved dataset.
        saved_dataset: its name.
        columns: of the retrieval that the gate is for.

    Raises:
        NoSuiteError: as ``stored_suite`` and ``judge``.
    """
    rules = rules_for(stored_suite(store, saved_dataset), columns)
    if not rules.expectations:
        raise NoSuiteError(
            f"the suite of the saved dataset {saved_dataset!r} has no expectation for {', '.join(columns)}."
        )
    profiler = SuiteProfiler(lambda _: rules)
    return store.get_saved_dataset(saved_dataset).as_reference(name=saved_dataset, profiler=profiler)


class SuiteError(ValidationError):
    """An expectation that failed, as Feast describes one.

    ``message`` says why when there was nothing to count, such as a missing column.
    """

    message: str | None = None


class SuiteReport(ValidationReport):
    """What a suite found in one batch.

    ``str()`` gives a line per error, so that a ``ValidationFailed`` that nobody catches explains itself.
    """

    def __init__(self, result: ExpectationSuiteValidationResult) -> None:
        self.result = result

    @property
    def is_success(self) -> bool:
        """Whether every expectation was met. Feast raises ``ValidationFailed`` when not."""
        return bool(self.result.success)

    @property
    def errors(self) -> list[SuiteError]:  # type: ignore[override]  # Feast's list of its own kind
        """The expectations that failed."""
        return [_error(found) for found in self.result.results if not found.success]

    def outcomes(self) -> pd.DataFrame:
        """A row per expectation, passed or not: column, expectation, passed."""
        rows = [(*_rule(found)[:2], bool(found.success)) for found in self.result.results]
        return pd.DataFrame(rows, columns=["column", "expectation", "passed"])

    def table(self) -> pd.DataFrame:
        """A row per expectation that failed: column, expectation, its limits, and what was found."""
        rows = [(e.column_name, e.check_name, _limits(e.check_config or {}), _found(e)) for e in self.errors]
        return pd.DataFrame(rows, columns=["column", "expectation", "allowed", "found"])

    def markdown(self) -> str:
        """Great Expectations' own report as markdown, without its last part, which holds the time of day."""
        from great_expectations.render.renderer import ValidationResultsPageRenderer
        from great_expectations.render.view import DefaultMarkdownPageView

        page = ValidationResultsPageRenderer(run_info_at_end=True).render(self.result)
        text = "".join(DefaultMarkdownPageView().render(page)).partition("### Info")[0]
        # A row of a table has to stay on one line.
        text = re.sub(r"\n\n(?=\*\*\d+\*\* unexpected)", " ", text)
        # Its headings would enter the reader's table of contents.
        text = re.sub(r"(?m)^#+ *(.+?) *$", lambda heading: f"**{heading[1].replace('**', '')}**", text)
        return re.sub(r"\n\s*\n", "\n\n", text).strip()

    def __str__(self) -> str:
        return "\n".join(
            f"{r.column}: {r.expectation} ({r.allowed}), found {r.found}" for r in self.table().itertuples()
        )


_NOT_STORABLE = (
    "Feast's registry cannot store this profiler. "
    "Store the suite: create_saved_dataset(tags=suite_tag(suite))."
)


class SuiteProfile(Profile):
    """A suite that is ready to look at batches. Feast calls ``validate`` with each retrieved frame."""

    def to_proto(self) -> NoReturn:
        """Feast's interface asks for it; its registry knows one form, that of Great Expectations 0.18."""
        raise NotImplementedError(_NOT_STORABLE)

    @classmethod
    def from_proto(cls, proto: Any) -> SuiteProfile:
        """As ``to_proto``."""
        raise NotImplementedError(_NOT_STORABLE)

    def __init__(self, suite: gx.ExpectationSuite) -> None:
        self.suite = suite

    def validate(self, dataset: pd.DataFrame) -> SuiteReport:
        """Run the suite on a frame of n rows, in process."""
        # A new context: a used one refuses a second source of the same name.
        context = gx.get_context(mode="ephemeral")
        context.variables.progress_bars = ProgressBarsConfig(globally=False)
        asset = context.data_sources.add_pandas("features").add_dataframe_asset("retrieved")
        batch = asset.add_batch_definition_whole_dataframe("all_rows").get_batch({"dataframe": dataset})
        result = batch.validate(
            self.suite, result_format={"result_format": "BASIC", "partial_unexpected_count": 0}
        )
        for found in result.results:  # the renderer of the report cannot read NumPy's numbers
            value = (found.result or {}).get("observed_value")
            if isinstance(value, np.generic):
                found.result["observed_value"] = value.item()
            _say_what_it_holds(found, dataset)
        return SuiteReport(result)


class SuiteProfiler(Profiler):
    """Makes the profile from the reference: ``build`` turns the reference frame into a suite.

    The reference must meet its own suite. Great Expectations 0.18 left out, without a word, each expectation
    that the reference broke. Rules on columns that the reference lacks cannot be tried on it: Feast saves
    neither the label nor what on-demand views compute.
    """

    def to_proto(self) -> NoReturn:
        """Feast's interface asks for it; its registry knows one form, that of Great Expectations 0.18."""
        raise NotImplementedError(_NOT_STORABLE)

    @classmethod
    def from_proto(cls, proto: Any) -> SuiteProfiler:
        """As ``to_proto``."""
        raise NotImplementedError(_NOT_STORABLE)

    def __init__(self, build: Callable[[pd.DataFrame], gx.ExpectationSuite]) -> None:
        self.build = build

    def analyze_dataset(self, dataset: pd.DataFrame) -> SuiteProfile:
        """The profile of the reference.

        Raises:
            ValidationFailed: the reference breaks its own suite; the report says where.
        """
        suite = self.build(dataset)
        report = SuiteProfile(rules_for(suite, list(dataset.columns))).validate(dataset)
        if not report.is_success:
            raise ValidationFailed(report)
        return SuiteProfile(suite)


def _rule(found: ExpectationValidationResult) -> tuple[str, str, dict[str, Any]]:
    """Column, expectation and settings of one result."""
    rule = found.expectation_config
    if rule is None:
        raise ValueError("a result without its expectation cannot be reported.")
    settings = {name: value for name, value in rule.kwargs.items() if name not in ("batch_id", "column")}
    return rule.kwargs.get("column", "<table>"), rule.type, settings


def _error(found: ExpectationValidationResult) -> SuiteError:
    column, expectation, settings = _rule(found)
    result = found.result or {}
    error = SuiteError(
        expectation,
        column,
        check_config=settings,
        observed_value=result.get("observed_value"),
        unexpected_count=result.get("unexpected_count"),
        unexpected_percent=result.get("unexpected_percent"),
    )
    # A missing column has no result, only this.
    crash = next(iter((found.exception_info or {}).values()), None)
    error.message = crash.get("exception_message") if isinstance(crash, dict) else None
    return error


def _say_what_it_holds(found: ExpectationValidationResult, dataset: pd.DataFrame) -> None:
    """Begin the message of a rule that crashed with what its column holds.

    Text among numbers is what crashes most, and the message can be the whole column.
    """
    column, crash = _rule(found)[0], next(iter((found.exception_info or {}).values()), None)
    if isinstance(crash, dict) and column in dataset:
        kind = pd.api.types.infer_dtype(dataset[column], skipna=True)
        crash["exception_message"] = f"the column holds {kind} values; {crash.get('exception_message')}"[:200]


def _limits(settings: Mapping[str, object]) -> str:
    return ", ".join(
        f"{name} {round(value, 3)}" for name, value in settings.items() if isinstance(value, int | float)
    )


def _found(error: SuiteError) -> str:
    if error.unexpected_count:
        share = error.unexpected_percent  # of rows; a rule on the different values of a column has none
        if share is None:
            return f"{error.unexpected_count} unexpected"
        return f"{error.unexpected_count} rows ({share:.1f} %)"
    observed = error.observed_value
    if isinstance(observed, int | float):
        return f"{observed:.3f}"
    if isinstance(observed, list):  # of values, such as the most common ones
        return ", ".join(map(str, observed))
    if observed is not None:  # of quantiles: a mapping
        return str(observed)
    return error.message or "no result"


def common_bins(
    first: Mapping, second: Mapping, *, whole_numbers: bool = False, bins: int = 10
) -> tuple[np.ndarray, np.ndarray]:
    """Two of Feast's histograms as shares on the same bins, so that they can be compared.

    Feast's monitoring cuts each histogram between the least and the greatest value of its own window, so no
    two have the same edges.

    Args:
        first: ``{"bins": n + 1 edges, "counts": n numbers}``; the counts are spread evenly in each bin.
        second: the same, of another window.
        whole_numbers: the feature is an integer. An edge between two integers then counts as half-way, as no
            value lies between them.
        bins: number of common bins, from the least to the greatest value of both.

    Returns:
        Two arrays of ``bins`` shares; each adds up to 1.
    """

    def edges(histogram: Mapping) -> np.ndarray:
        cuts = np.array(histogram["bins"], dtype=float)
        if whole_numbers:
            cuts = np.ceil(cuts.round(6)) - 0.5
            cuts[-1] += 1
        return cuts

    cuts = [edges(first), edges(second)]
    span = max(c[-1] for c in cuts) - min(c[0] for c in cuts)
    for c in cuts:
        if c[0] == c[-1]:  # of a constant feature: a bin without width would hold nothing
            c[-1] += 1e-9 * max(span, abs(c[0]), 1)
    common = np.linspace(min(c[0] for c in cuts), max(c[-1] for c in cuts), bins + 1)
    totals = [np.concatenate([[0], np.cumsum(h["counts"])]) / np.sum(h["counts"]) for h in (first, second)]
    return tuple(np.diff(np.interp(common, c, t)) for c, t in zip(cuts, totals, strict=True))
