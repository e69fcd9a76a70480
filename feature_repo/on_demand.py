"""Transformations that run at retrieval: one function for training rows and an online request.

Feast stores each function as text in the registry and rebuilds it from there,
so a function imports and defines all it needs in its own body.
"""

from typing import Any

from feast import Field
from feast.on_demand_feature_view import on_demand_feature_view
from feast.types import Float64
from feature_views import driver_hourly_stats
from sources import ranking_request


@on_demand_feature_view(
    sources=[driver_hourly_stats[["conv_rate", "acc_rate"]]],
    schema=[
        Field(name="conv_acc_ratio", dtype=Float64),
        Field(name="conv_log_odds", dtype=Float64),
    ],
    mode="python",
    description="Ratio of conversion to acceptance, and the conversion rate on the log-odds scale.",
)
def driver_ratios(inputs: dict[str, Any]) -> dict[str, Any]:
    import math

    ratios, log_odds = [], []
    for conv, acc in zip(inputs["conv_rate"], inputs["acc_rate"], strict=True):
        # Missing is None, or NaN where the file holds one.
        valid = all(rate is not None and 0 <= rate <= 1 for rate in (conv, acc))
        ratios.append(conv / (acc + 1e-6) if valid else None)
        log_odds.append(math.log((conv + 1e-3) / (1 - conv + 1e-3)) if valid else None)
    return {"conv_acc_ratio": ratios, "conv_log_odds": log_odds}


@on_demand_feature_view(
    sources=[driver_hourly_stats[["conv_rate"]], ranking_request],
    schema=[Field(name="rate_above_target", dtype=Float64)],
    mode="python",
    description="How far a driver's conversion rate is above the rate that the request asks for.",
)
def driver_target(inputs: dict[str, Any]) -> dict[str, Any]:
    above = []
    for conv, target in zip(inputs["conv_rate"], inputs["target_rate"], strict=True):
        missing = conv is None or conv != conv  # NaN is the one value that differs from itself
        above.append(None if missing else conv - target)
    return {"rate_above_target": above}
