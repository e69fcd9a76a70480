from faults import Answers

ANSWERS = {
    "8.1": Answers(
        right=[
            """
from evidently.metrics import ValueDrift

steady_report = Report([ValueDrift(column="acc_rate", method="jensenshannon", threshold=0.12)])
""",
        ],
        wrong={
            "That is a p-value": ('steady_report = Report([DataDriftPreset(method="ks", threshold=1e-12)])'),
            "you leave the method to Evidently": "steady_report = Report([DataDriftPreset(threshold=1e-12)])",
            "That is a distance, and good weeks reach your threshold": (
                'steady_report = Report([DataDriftPreset(method="wasserstein", threshold=0.01)])'
            ),
            "it finds no drift in week 2": """
steady_report = Report([DataDriftPreset(columns=["rating"], method="wasserstein", threshold=0.3)])
""",
            "Evidently cannot run your report": (
                'steady_report = Report([DataDriftPreset(method="distance")])'
            ),
            "tests no column for drift": """
from evidently.metrics import MeanValue

steady_report = Report([MeanValue(column="acc_rate")])
""",
            "your answer has the type Snapshot": "steady_report = snapshot",
        },
    ),
    "8.2": Answers(
        right=[
            """
def worth_retraining(week):
    skill_now, skill_before = week.auc - 0.5, week.auc_before - 0.5
    if pd.isna(week.auc):
        return False
    return skill_now < 0.85 * skill_before
""",
        ],
        wrong={
            "it retrains in week 2": """
def worth_retraining(week):
    fell = week.auc < week.auc_before - 0.05
    return week.stored_drift > 0.1 or week.p_value < 0.05 or week.score_distance > 0.15 or fell
""",
            "How much is there to win back": (
                "def worth_retraining(week):\n    return week.stored_drift > 0.1"
            ),
            "it does nothing in week 4": """
def worth_retraining(week):
    return week.stored_drift > 0.1 and week.auc < week.auc_before - 0.05
""",
            "that much is chance": "def worth_retraining(week):\n    return week.auc < week.auc_before",
            "another model had an AUC of 0.95 before": (
                "def worth_retraining(week):\n    return week.auc < 0.72"
            ),
            "raised an alarm in this week?": (
                "def worth_retraining(week):\n    return week.auc > week.auc_before + 0.05"
            ),
            "a week whose labels haven't arrived yet": (
                "def worth_retraining(week):\n    return not week.auc >= week.auc_before - 0.05"
            ),
            "the features drifted *and* the AUC fell": """
def worth_retraining(week):
    return week.score_distance < 0.15 and week.auc < week.auc_before - 0.05
""",
            "a week whose AUC rose": (
                "def worth_retraining(week):\n    return abs(week.auc - week.auc_before) > 0.05"
            ),
            "for week 1 your function returns None": """
def worth_retraining(week):
    if week.auc < week.auc_before - 0.05:
        return True
""",
            "your function failed for week 1": (
                "def worth_retraining(week):\n    return week.AUC < week.before"
            ),
            "your answer has the type bool": "worth_retraining = True",
        },
    ),
    "8.3": Answers(
        right=[
            """
def more_evidence(table):
    asked_hourly = table.loc[table.index.repeat(4)].reset_index(drop=True)
    asked_hourly["driver_id"] = [f"request {number}" for number in asked_hourly.index]
    return asked_hourly
""",
        ],
        wrong={
            "Each copy belongs to the driver of its original": (
                "def more_evidence(rows):\n    return pd.concat([rows] * 5)"
            ),
            "with one row each": (
                "def more_evidence(rows):\n    return rows.assign(driver_id=range(len(rows)))"
            ),
            "choosing rows by their outcome": """
def more_evidence(rows):
    return rows[(rows.challenger > rows.champion) == (rows.label == 1)]
""",
            "Don't invent any": ("def more_evidence(rows):\n    return rows.assign(challenger=rows.label)"),
            "the gate opens with fewer": """
def more_evidence(rows):
    copies = pd.concat([rows] * 20, ignore_index=True)
    return copies.assign(driver_id=range(len(copies)))
""",
            "`compare` rejects your table": "def more_evidence(rows):\n    return rows.assign(driver_id=1)",
            "every row needs one": "def more_evidence(rows):\n    return rows.assign(driver_id=None)",
            "no column driver_id": "def more_evidence(rows):\n    return rows.drop(columns='driver_id')",
            "a value of type int": "def more_evidence(rows):\n    return len(rows)",
            "`more_evidence` failed: AttributeError": "def more_evidence(rows):\n    return rows.driver",
            "your answer has the type DataFrame": "more_evidence = everything",
        },
    ),
}
