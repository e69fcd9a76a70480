"""What the checks of notebook 13 must notice."""

import contextlib
from datetime import timedelta

from faults import fault, rerun


@contextlib.contextmanager
def time_to_live(view, hours):
    """A store like the course's, in which a view has another time to live."""
    from exercises.core import scratch

    with scratch() as store:
        changed = store.get_feature_view(view)
        changed.ttl = timedelta(hours=hours)
        store.apply(changed)
        yield store


@fault("13", "claim-asof-store-equal", says="lost or repeated labels")
def the_join_drops_labels_without_features(ns):
    ns["nearest"] = ns["nearest"].dropna()


@fault("13", "claim-asof-store-equal", says="compares nothing")
def neither_store_finds_a_rating(ns):
    for name in ["nearest", "ranked"]:
        ns[name]["rating"] = float("nan")


@fault("13", "claim-asof-store-equal", says="different values")
def one_store_has_another_time_to_live(ns):
    with time_to_live("driver_hourly_stats", hours=2) as ns["store"]:
        rerun(ns, "ranked = historical_features")
        yield


@fault("13", "claim-asof-store-equal", says="makes no ASOF join")
def the_line_in_the_settings_has_no_effect(ns):
    ns["asof_store"] = ns["store"]
    rerun(ns, "jobs = {name")


@fault("13", "claim-asof-store-equal", says="makes the same plan")
def both_stores_make_an_asof_join(ns):
    ns["store"] = ns["asof_store"]
    rerun(ns, "jobs = {name")


@fault("13", "claim-asof-store-faster", says="has its plan changed")
def feast_makes_the_same_plan(ns):
    ns["store"] = ns["asof_store"]
    rerun(ns, "def processor_seconds")


@fault("13", "claim-asof-store-faster", says="too small to show growth")
def all_sizes_are_the_same(ns):
    rerun(ns, "def processor_seconds", change=("sizes = [8, 128]", "sizes = [64, 64]"))


@fault("13", "claim-engine-equal", says="compares nothing")
def nobody_has_a_rating(ns):
    ns["duckdb_answer"]["rating"] = float("nan")


@fault("13", "claim-engine-equal", says="lost or repeated labels")
def the_engine_drops_a_row(ns):
    ns["left_out"], ns["spark_answer"] = "", ns["duckdb_answer"].iloc[1:]


@fault("13", "claim-engine-equal", says="returned other values")
def the_engine_reads_yesterdays_rows(ns):
    questions = ns["questions"]
    earlier = questions.assign(event_timestamp=questions.event_timestamp - timedelta(days=1))
    answer = ns["historical_features"](ns["store"], earlier, ns["service"])
    ns["left_out"] = ""
    ns["spark_answer"] = answer.assign(event_timestamp=questions.event_timestamp)


GRAPH = "def made_from"


@fault("13", "claim-lineage-to-model", says="ends before the features")
def the_training_reads_from_another_namespace(ns):
    ns["edges"] = [
        (("elsewhere", source[1]) if target == ns["model"] else source, target)
        for source, target in ns["edges"]
    ]
    rerun(ns, GRAPH)


@fault("13", "claim-lineage-to-model", says="files behind the model")
def a_feature_view_forgets_its_source(ns):
    ns["edges"] = [edge for edge in ns["edges"] if edge[0][1] != "driver_profile"]
    rerun(ns, GRAPH)


@fault("13", "claim-lineage-to-model", says="files behind the model")
def apply_links_every_source_with_every_view(ns):
    sources = {source.name for source in ns["store"].list_data_sources()}
    views = {view.name for view in ns["store"].list_feature_views()}
    namespace = f"workshop/{ns['store'].project}"
    ns["edges"] += [((namespace, source), (namespace, view)) for source in sources for view in views]
    ns["edges"] += [((namespace, view), (namespace, ns["service"].name)) for view in views]
    rerun(ns, GRAPH)


@fault("13", "claim-lineage-to-model", says="other views")
def a_service_forgets_a_view(ns):
    namespace = f"workshop/{ns['store'].project}"
    view, source = (namespace, "driver_hourly_stats"), (namespace, "driver_stats")
    ns["edges"] = [edge for edge in ns["edges"] if edge[0] != view]
    ns["edges"].append((source, (namespace, ns["service"].name)))
    rerun(ns, GRAPH)
