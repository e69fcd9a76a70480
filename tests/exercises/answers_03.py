from faults import Answers

SPOIL = "def spoiled(rows):\n    return {}\n"
ALARM = "def all_measured(run, store):\n    return {}\n"

ANSWERS = {
    "3.1": Answers(
        right=[
            'frozen_rule = gxe.ExpectColumnUniqueValueCountToBeBetween(column="acc_rate", min_value=100)',
            """
frozen_rule = gxe.ExpectColumnProportionOfUniqueValuesToBeBetween(column="acc_rate", min_value=0.3)
""",
            """
frozen_rule = gxe.ExpectColumnQuantileValuesToBeBetween(
    column="acc_rate",
    quantile_ranges={"quantiles": [0.1, 0.9], "value_ranges": [[0, 0.45], [0.7, 1]]},
)
""",
        ],
        wrong={
            "a legal rate": (
                'frozen_rule = gxe.ExpectColumnValuesToBeBetween(column="acc_rate", min_value=0, max_value=1)'
            ),
            "a rule on the mean finds nothing": """
near = reference_rows.acc_rate.mean()
frozen_rule = gxe.ExpectColumnMeanToBeBetween(column="acc_rate", min_value=near - 0.05, max_value=near + 0.05)
""",
            "The next accident brings another value": """
frozen_rule = gxe.ExpectColumnValuesToNotBeInSet(
    column="acc_rate", value_set=[reference_rows.acc_rate.mean()]
)
""",
            "but also the reference period: acc_rate: expect_column_values_to_be_unique, found": (
                'frozen_rule = gxe.ExpectColumnValuesToBeUnique(column="acc_rate")'
            ),
            "the rule is on `conv_rate`": (
                'frozen_rule = gxe.ExpectColumnStdevToBeBetween(column="conv_rate", min_value=0.1)'
            ),
            "call it with a column": "frozen_rule = gxe.ExpectColumnStdevToBeBetween",
            "rounding can make it slightly larger": """
frozen_rule = gxe.ExpectColumnStdevToBeBetween(column="acc_rate", min_value=0, strict_min=True)
""",
            "sets no lower limit": (
                'frozen_rule = gxe.ExpectColumnStdevToBeBetween(column="acc_rate", max_value=0.1)'
            ),
            "your answer is of type str": 'frozen_rule = "acc_rate"',
        },
    ),
    "3.2": Answers(
        right=[
            """
def all_measured(run, store):
    views = store.list_feature_views()
    names = [field.name for view in views for field in view.features]
    return (run["computed_feature_views"], run["computed_features"]) == (len(views), len(names))
""",
            ALARM.format('run["computed_feature_views"] == len(store.list_feature_views())'),
        ],
        wrong={
            "The `status` makes the same mistake": ALARM.format('run["status"] == "completed"'),
            "How many should there be?": ALARM.format('run["computed_features"] > 0'),
            "a staged batch has one view": ALARM.format('run["computed_features"] == 5'),
            "and your function returns False": ALARM.format("not run"),
            "returned None; return True or False": "def all_measured(run, store):\n    print(run, store)",
            "returned a value of type list": ALARM.format('[name for name in run if name == "errors"]'),
            "your function failed: AssertionError (": "def all_measured(run, store):\n    assert not run",
        },
    ),
    "3.3": Answers(
        right=[
            SPOIL.format("rows.assign(driver_id=rows.driver_id + 1)"),
            SPOIL.format("rows.assign(conv_rate=rows.conv_rate.sort_values().to_numpy())"),
        ],
        wrong={
            "Nothing is spoiled yet": SPOIL.format("rows"),
            "a correlation of 1.00. A model could still": SPOIL.format(
                "rows.assign(conv_rate=rows.conv_rate * 0.98)"
            ),
            "the rules reject the batch. conv_rate: expect": SPOIL.format(
                "rows.assign(conv_rate=rows.conv_rate * 100)"
            ),
            "the score holds the batch: conv_rate": SPOIL.format(
                "rows.assign(conv_rate=rows.conv_rate.mean())"
            ),
            "Whose value does a driver get?": (
                SPOIL.format(
                    'rows.assign(conv_rate=rows.groupby("driver_id").conv_rate.shift(3).fillna(0.5))'
                )
            ),
            "pandas aligns it by index": SPOIL.format("rows.assign(conv_rate=rows.conv_rate.sample(frac=1))"),
            "the rules reject the batch. conv_rate: expect_column_values_to_not_be_null": SPOIL.format(
                "rows.assign(conv_rate=np.nan)"
            ),
            "return the batch as a table": SPOIL.format("rows.conv_rate.mean()"),
        },
    ),
}
