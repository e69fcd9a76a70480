"""What the checks of notebook 00 must notice."""

import re

import pandas as pd
from faults import fault


@fault("00", "check-answer-in-the-next-hours", says="after a label of 1 the rate should rise")
def each_label_belongs_to_another_question(ns):
    pairs = ns["pairs"].assign(label=ns["pairs"].label.sample(frac=1, random_state=0).to_numpy())
    ns["moves"] = pairs.groupby("label")[list(ns["moves"])].mean()


@fault("00", "check-answer-in-the-next-hours", says="after a label of 0 the rate should fall")
def a_missed_conversion_leaves_no_trace_in_the_next_hours(ns):
    ns["moves"].iloc[0, 1] = ns["moves"].iloc[0, 0]


@fault("00", "claim-synthetic-data", says="conv_rate should say most, acc_rate some")
def the_two_rates_are_swapped(ns):
    known = ns["known"].rename(columns={"conv_rate": "acc_rate", "acc_rate": "conv_rate"})
    ns["signal"] = known[list(ns["columns"])].corrwith(known.label).abs()


@fault("00", "claim-synthetic-data", says="rating some")
def the_rating_belongs_to_another_driver(ns):
    known = ns["known"].assign(rating=ns["known"].rating.sample(frac=1, random_state=0).to_numpy())
    ns["signal"] = known[list(ns["columns"])].corrwith(known.label).abs()


@fault("00", "claim-synthetic-data", says="planted as noise")
def the_number_of_trips_knows_the_label(ns):
    known = ns["known"].assign(avg_daily_trips=ns["known"].avg_daily_trips + 3 * ns["known"].label)
    ns["signal"] = known[list(ns["columns"])].corrwith(known.label).abs()


@fault("00", "claim-planted-faults", says="corrected later")
def no_hour_is_written_twice(ns):
    ns["planted"]["late corrections"] = 0


@fault("00", "claim-planted-faults", says="written later than what it corrects")
def a_correction_has_the_time_of_what_it_corrects(ns):
    ns["stats"]["created"] = ns["stats"].event_timestamp


@fault("00", "claim-planted-faults", says="should stop sending")
def every_driver_sends_to_the_end(ns):
    ns["planted"]["drivers who stopped sending"] = 0


@fault("00", "claim-planted-faults", says="should end")
def every_profile_goes_on_to_the_end(ns):
    ns["planted"]["profiles that ended"] = 0


@fault("00", "claim-planted-faults", says="share their driver and hour")
def no_label_is_asked_twice(ns):
    ns["planted"]["duplicate label keys"] = 0


@fault("00", "claim-planted-faults", says="should have labels")
def nobody_asks_about_the_unknown_driver(ns):
    ns["planted"]["labels of an unknown driver"] = 0


@fault("00", "claim-planted-faults", says="should have no features")
def the_unknown_driver_has_a_profile(ns):
    row = ns["profile"].iloc[[0]].assign(driver_id=ns["UNKNOWN_DRIVER"])
    ns["profile"] = pd.concat([ns["profile"], row])


@fault("00", "claim-one-environment", says="no direct dependency")
def kserve_is_not_named_by_the_course(ns):
    del ns["versions"]["kserve"]


@fault("00", "claim-one-environment", says="kfp")
def a_protobuf_is_installed_that_kubeflow_pipelines_refuses(ns):
    ns["needs"].loc[(ns["needs"].package == "kfp") & (ns["needs"]["asks for"] == "protobuf"), "fits"] = False


@fault("00", "claim-capability-table", says="no such name is left")
def feast_has_no_point_in_time_retrieval(ns):
    ns["counts"].loc["Point-in-time-correct feature retrieval", "Feast"] = 0


@fault("00", "claim-capability-table", says="find everything")
def the_words_match_every_name(ns):
    ns["counts"][:] = [[len(ns["names"][tool]) for tool in ns["MODULES"]]] * len(ns["counts"])


@fault("00", "claim-capability-table", says="differ from the post in three fields")
def the_search_does_not_look_inside_kubeflows_classes(ns):
    outer = [name for name in ns["names"]["Kubeflow"] if not re.search(r"\.[A-Z]\w*\.", name)]
    ns["names"]["Kubeflow"] = outer
    for row, words in ns["WORDS"].items():
        found = len(ns["hits"]("Kubeflow", words))
        ns["counts"].loc[row, "Kubeflow"] = max(found, int(ns["post"].loc[row, "Kubeflow"]))
    ns["differs"] = (ns["counts"] > 0) != ns["post"]


@fault("00", "claim-tools-are-complementary", says="no name is left")
def kubeflow_does_not_log_metrics_any_more(ns):
    ns["near"]["Kubeflow logs metrics"] = []


@fault("00", "claim-tools-are-complementary", says="has aliases now")
def kubeflows_registry_has_learned_aliases(ns):
    ns["near"]["Kubeflow gives a model an alias"] = ["kubeflow.hub.ModelRegistryClient.set_alias"]


@fault("00", "claim-tools-are-complementary", says="no such name")
def mlflow_has_no_aliases_any_more(ns):
    ns["names"]["MLflow"] = [name for name in ns["names"]["MLflow"] if "model_alias" not in name]
    ns["names"]["MLflow"] = [name for name in ns["names"]["MLflow"] if not name.endswith("_alias")]


@fault("00", "claim-tools-are-complementary", says="Feast's alone")
def mlflow_serves_online_features(ns):
    ns["counts"].loc["Store and serve features (online + offline)", "MLflow"] = 1


@fault("00", "claim-building-blocks", says="should be in this environment")
def redis_is_not_installed(ns):
    ns["here_too"] = ns["here_too"][ns["here_too"].package != "redis"]


@fault("00", "claim-building-blocks", says="no tool for serving")
def a_stage_has_no_installed_tool(ns):
    ns["blocks"].loc[ns["blocks"].package == "kserve", "block"] = "DuckDB"
    ns["here_too"] = ns["here_too"][ns["here_too"].package != "kserve"]


@fault("00", "claim-open-source", says="no open-source licence is known of DuckDB")
def a_package_has_a_licence_of_its_own(ns):
    ns["here_too"].loc[ns["here_too"].package == "duckdb", "licence"] = "Business Source License 1.1"
