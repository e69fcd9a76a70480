"""What the checks of notebook 10 must notice."""

import subprocess
import tempfile
from pathlib import Path

import numpy as np
import pandas as pd
from faults import fault


@fault("10", "claim-manifests-rendered", says="has other files than were rendered")
def a_manifest_was_not_committed(ns):
    del ns["in_git"]["base/redis.yaml"]


@fault("10", "claim-manifests-rendered", says="does not depend on the data differs")
def the_committed_redis_is_of_yesterday(ns):
    ns["differing"] = [*ns["differing"], "base/redis.yaml"]


@fault("10", "claim-manifests-rendered", says="would search another space")
def katib_gets_a_narrower_range(ns):
    ns["experiment"]["spec"]["parameters"][0]["feasibleSpace"]["max"] = "1.0"


@fault("10", "claim-manifests-rendered", says="serves another model")
def the_service_names_another_model(ns):
    ns["served"][ns["served"].index(ns["MODEL"])] = "somebody_elses"


@fault("10", "claim-manifests-rendered", says="a secret's value")
def somebody_writes_a_password_down(ns):
    ns["files"]["base/config.yaml"][0]["data"]["password"] = "open sesame"


@fault("10", "claim-manifests-checked", says="a manifest has a mistake")
def a_manifest_is_misspelled(ns):
    ns["wrong"]["Deployment redis"] = ["spec.replica is not known"]


@fault("10", "claim-manifests-checked", says="misspelled field went unnoticed")
def the_comparison_is_left_out(ns):
    ns["found"]["misspelled"] = ""


@fault("10", "claim-manifests-checked", says="a text for a number went unnoticed")
def types_are_not_looked_at(ns):
    ns["found"]["wrong type"] = ""


@fault("10", "claim-manifests-checked", says="a missing field went unnoticed")
def nobody_misses_the_selector(ns):
    ns["found"]["incomplete"] = ""


@fault("10", "claim-image-holds-what-it-needs", says="that the course lacks")
def the_image_holds_another_version(ns):
    ns["of_the_image"] = ns["of_the_image"] | {"feast==0.66.0"}


@fault("10", "claim-image-holds-what-it-needs", says="imports what the image lacks")
def the_image_lacks_the_feature_store(ns):
    ns["held"] = ns["held"] - {"feast"}


@fault("10", "claim-image-holds-what-it-needs", says="the image holds")
def jupyterlab_comes_along(ns):
    ns["held"] = ns["held"] | {"jupyterlab"}


@fault("10", "claim-image-holds-what-it-needs", says="would run as root")
def the_dockerfile_names_no_user(ns):
    ns["dockerfile"] = ns["dockerfile"].replace("USER 10001", "USER root")


def another_file(ns, old: str, new: str) -> None:
    changed = Path(tempfile.mkdtemp()) / "changed.yaml"
    changed.write_text(ns["compiled"].read_text().replace(old, new))
    ns["compiled"] = changed


@fault("10", "claim-same-file-in-containers", says="the steps name")
def one_step_names_another_image(ns):
    another_file(ns, ns["IMAGE"], "python:3.11")


@fault("10", "claim-same-file-in-containers", says="installs packages when it starts")
def a_step_installs_packages(ns):
    another_file(ns, "program_path=$(mktemp -d)", "python3 -m pip install feast; program_path=$(mktemp -d)")


@fault("10", "claim-same-file-in-containers", says="should give one version")
def a_version_too_many(ns):
    ns["differences"] = {"98": 0.0, "99": 0.0}


@fault("10", "claim-same-file-in-containers", says="the model is another one")
def the_model_of_the_containers_scores_otherwise(ns):
    ns["in_the_way"] = ""
    ns["differences"] = {"99": 0.01}


@fault("10", "claim-remote-history", says="rows were lost")
def the_offline_server_drops_a_row(ns):
    ns["history_there"] = ns["history_there"].iloc[1:]


@fault("10", "claim-remote-history", says="the columns differ")
def the_offline_server_swaps_two_columns(ns):
    ns["history_there"] = ns["history_there"][ns["history_there"].columns[::-1]]


@fault("10", "claim-remote-history", says="nothing was computed on demand")
def the_offline_server_computes_nothing(ns):
    ns["history_there"]["conv_log_odds"] = float("nan")


@fault("10", "claim-remote-history", says="gave other values")
def the_offline_server_joins_one_value_of_another_hour(ns):
    ns["history_there"].loc[ns["history_there"].index[17], "acc_rate"] = 0.123


@fault("10", "claim-remote-online", says="a driver was lost")
def the_online_server_drops_a_driver(ns):
    ns["online_there"] = ns["online_there"].iloc[1:]


@fault("10", "claim-remote-online", says="null for everybody")
def a_view_was_not_materialized(ns):
    ns["online_here"]["rating"] = None


@fault("10", "claim-remote-online", says="gave other values")
def the_online_server_gives_an_older_value(ns):
    ns["online_there"].loc[3, "conv_rate"] += 0.01


@fault("10", "claim-remote-model", says="no such server")
def the_publishing_program_fails(ns):
    ns["published"] = subprocess.CompletedProcess([], 1, "", "no such server")


@fault("10", "claim-remote-model", says="wrote files of its own")
def the_client_keeps_a_database_of_its_own(ns):
    ns["left_there"] = ["feature_store.yaml", "mlflow.db"]


@fault("10", "claim-remote-model", says="do not go through the server")
def the_files_go_past_the_server(ns):
    ns["files_at"] = "file"


@fault("10", "claim-remote-model", says="did not come along")
def the_metadata_stays_behind(ns):
    ns["contract_there"] = None


@fault("10", "claim-remote-model", says="hardly a driver has all features")
def nothing_was_materialized(ns):
    ns["complete"] = ns["complete"] & False


@fault("10", "claim-remote-model", says="the scores over the network differ")
def another_model_is_published(ns):
    ns["scores_there"] = ns["scores_there"][::-1]


@fault("10", "claim-asof-store-equal", says="lost or repeated labels")
def the_join_dropped_labels_without_features(ns):
    ns["nearest"] = ns["nearest"].dropna()


@fault("10", "claim-asof-store-equal", says="answer differently")
def one_label_got_the_row_of_the_hour_before(ns):
    ns["nearest"] = ns["nearest"].copy()
    column = ns["feature_columns"][0]
    row = ns["nearest"][column].first_valid_index()
    ns["nearest"].loc[row, column] += 0.01


@fault("10", "claim-asof-store-equal", says="compares nothing")
def neither_store_found_a_value(ns):
    for name in ["nearest", "ranked"]:
        ns[name] = ns[name].copy()
        ns[name][ns["feature_columns"][0]] = np.nan


@fault("10", "claim-asof-store-equal", says="the same plan")
def the_line_in_the_settings_had_no_effect(ns):
    ns["queries"] = {**ns["queries"], "ASOF store": ns["queries"]["Feast's DuckDB store"]}


@fault("10", "claim-asof-store-faster", says="has its plan changed")
def feast_took_the_same_plan(ns):
    ns["growth"] = ns["growth"].assign(Feast=ns["growth"]["ASOF"])


@fault("10", "claim-asof-store-faster", says="too small to show growth")
def all_sizes_cost_the_same(ns):
    growth = ns["growth"]
    ns["growth"] = pd.DataFrame(
        {"Feast": growth["Feast"].max(), "ASOF": growth["ASOF"].min()}, index=growth.index
    )


@fault("10", "claim-engine-equal", says="other values for the labels")
def the_engine_gives_a_label_another_value(ns):
    answer = ns["duckdb_answer"].copy()
    answer.loc[answer.index[7], "conv_rate"] = 0.123
    ns["spark_answer"] = answer


@fault("10", "claim-engine-equal", says="compares nothing")
def the_benchmark_ran_one_engine_alone(ns):
    ns["runs"] = ns["runs"][ns["runs"].contestant == "duckdb"]


@fault("10", "claim-engine-equal", says="lost rows")
def an_engine_drops_rows_in_the_benchmark(ns):
    ns["runs"].loc[0, "answers"] -= 1


@fault("10", "claim-engine-equal", says="other values on the engine")
def the_benchmarks_answers_differ(ns):
    ns["same_values"] = ns["same_values"] + 1


@fault("10", "claim-engine-pays", says="no longer the larger one")
def the_engine_starts_for_nothing(ns):
    ns["costs"].loc["spark", "fixed_seconds"] = 0.0


@fault("10", "claim-engine-pays", says="no memory was measured")
def nobody_watched_the_memory(ns):
    ns["costs"]["GB at the largest table"] = 0.0


@fault("10", "claim-engine-pays", says="needs less memory")
def the_engine_needs_less_memory(ns):
    column = "GB at the largest table"
    ns["costs"].loc["spark", column] = ns["costs"].loc["duckdb", column] / 2


@fault("10", "claim-engine-pays", says="the two lines cross")
def the_engine_pays_from_somewhere(ns):
    ns["measured"]["pays_from_million_rows"] = 12.0


@fault("10", "claim-lineage-to-model", says="ends before the features")
def the_training_told_nobody(ns):
    ns["behind"] = set()


@fault("10", "claim-lineage-to-model", says="files behind the model")
def a_feature_view_forgot_its_source(ns):
    ns["behind"] = ns["behind"] - {"driver_profile"}


@fault("10", "claim-lineage-to-model", says="a view that the model does not read")
def every_source_is_linked_with_every_view(ns):
    ns["behind"] = ns["behind"] | {"driver_target"}
