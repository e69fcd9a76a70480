"""Which features belong together. Training reads all at once; one candidate will be served."""

from feast import FeatureService
from feature_views import driver_daily_profile, driver_hourly_stats
from on_demand import driver_ratios, driver_target

hourly, daily = driver_hourly_stats, driver_daily_profile
candidate = {"stage": "candidate"}

all_features = [
    hourly[["conv_rate", "acc_rate", "avg_daily_trips"]],
    daily[["rating", "tenure_days"]],
    driver_ratios,
]

driver_training = FeatureService(
    name="driver_training",
    features=all_features,
    description="Every feature a model may use: one retrieval gives all candidates their data.",
    tags={"stage": "training"},
)

conv_only = FeatureService(name="conv_only", features=[hourly[["conv_rate"]]], tags=candidate)
acc_only = FeatureService(name="acc_only", features=[hourly[["acc_rate"]]], tags=candidate)
acc_and_trips = FeatureService(
    name="acc_and_trips",
    features=[hourly[["acc_rate", "avg_daily_trips"]]],
    tags=candidate,
)
rates = FeatureService(name="rates", features=[hourly[["conv_rate", "acc_rate"]]], tags=candidate)
rates_and_trips = FeatureService(
    name="rates_and_trips",
    features=[hourly[["conv_rate", "acc_rate", "avg_daily_trips"]]],
    tags=candidate,
)
rates_and_rating = FeatureService(
    name="rates_and_rating",
    features=[hourly[["conv_rate", "acc_rate"]], daily[["rating"]]],
    tags=candidate,
)
log_odds_and_rating = FeatureService(
    name="log_odds_and_rating",
    features=[hourly[["acc_rate"]], daily[["rating"]], driver_ratios[["conv_log_odds"]]],
    tags=candidate,
)
everything = FeatureService(name="everything", features=all_features, tags=candidate)

driver_campaign = FeatureService(
    name="driver_campaign",
    features=[hourly[["conv_rate"]], driver_target],
    description="Needs target_rate from the caller: in the request, or in the entity table.",
    tags={"stage": "serving"},
)
