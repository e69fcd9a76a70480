"""Prints the dashboard of the model server for Grafana, built by Grafana's SDK of the group `dev`:

python cluster/monitoring/dashboard.py > cluster/monitoring/dashboard.json
"""

from grafana_foundation_sdk.builders import prometheus, statetimeline, timeseries
from grafana_foundation_sdk.builders.common import VizLegendOptions
from grafana_foundation_sdk.builders.dashboard import Dashboard, DatasourceVariable
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.models import units
from grafana_foundation_sdk.models.common import LegendDisplayMode, LegendPlacement, TimeZoneBrowser
from grafana_foundation_sdk.models.dashboard import DataSourceRef

SOURCE = DataSourceRef(type_val="prometheus", uid="${source}")
LEGEND = (
    VizLegendOptions()
    .show_legend(True)
    .display_mode(LegendDisplayMode.LIST)
    .placement(LegendPlacement.BOTTOM)
)
LATENCY = "histogram_quantile({}, sum by (model_name, le) (rate(request_predict_seconds_bucket[1m])))"


def panel(
    title: str,
    queries: dict[str, str],
    says: str,
    unit: str = units.NoUnit,
    kind: type = timeseries.Panel,
) -> timeseries.Panel | statetimeline.Panel:
    """Half a row. ``queries``: PromQL by legend, in which ``{{name}}`` stands for a label's value."""
    made = kind().title(title).description(says).unit(unit).datasource(SOURCE).legend(LEGEND)
    made.line_width(1).min(0).span(12).height(8)
    for number, (legend, expression) in enumerate(queries.items()):
        query = prometheus.Dataquery().expr(expression).legend_format(legend).ref_id("ABC"[number])
        made.with_target(query.datasource(SOURCE).range())
    return made


PANELS = [
    panel(
        "Answered",
        {"{{model_name}}": "sum by (model_name) (rate(request_postprocess_seconds_count[1m]))"},
        "Requests that got a score: KServe's postprocessing sees no other.",
        units.RequestsPerSecond,
    ),
    panel(
        "Refused, by reason",
        {"{{reason}}": "sum by (reason) (rate(lifecycle_refused_requests_total[1m]))"},
        "Alert: RequestsRefused.",
        units.RequestsPerSecond,
    ),
    panel(
        "Seconds to an answer",
        {"p50 {{model_name}}": LATENCY.format("0.5"), "p99 {{model_name}}": LATENCY.format("0.99")},
        "KServe's histogram; its first bound is 5 ms, so a p50 below that is a guess. Alert: AnswersSlow.",
        units.Seconds,
    ),
    panel(
        "Served version",
        {"version {{version}}": "count by (version) (lifecycle_served_version_info)"},
        "Servers by the version that they serve: when the alias moves, one row ends and another begins.",
        kind=statetimeline.Panel,
    ),
    panel(
        "Age of features",
        {
            "{{feature}}": "max by (feature) (lifecycle_feature_age_seconds)",
            "{{feature}}: limit": "min by (feature) (lifecycle_feature_age_limit_seconds)",
        },
        "The oldest value of the last request, and the age at which it is refused. Alert: FeaturesGrowOld.",
        units.Seconds,
    ),
    panel(
        "Ready, and following the registries",
        {
            "ready {{instance}}": "lifecycle_ready",
            "follows {{instance}}": "lifecycle_follows",
            "up {{instance}}": 'up{job="model_server"}',
        },
        "1 is yes. Alerts: NotReady, DoesNotFollow, ServerGone.",
        kind=statetimeline.Panel,
    ),
    panel(
        "Predictions that were not kept",
        {"{{reason}}": "sum by (reason) (increase(lifecycle_unlogged_predictions_total[5m]))"},
        "Within 5 minutes. Alert: PredictionsUnlogged.",
    ),
    panel(
        "Versions kept out",
        {"{{model_name}}": "sum by (model_name) (lifecycle_refused_versions_total)"},
        "Versions that the alias named and that must not serve, since the server's start.",
    ),
]
dashboard = (
    Dashboard("Model server")
    .uid("model-server")
    .description(
        "Built by Grafana's SDK from cluster/monitoring/dashboard.py. "
        "A test runs each query on a real Prometheus; no Grafana has shown this file yet."
    )
    .readonly()
    .refresh("30s")
    .time("now-1h", "now")
    .timezone(TimeZoneBrowser)
    .with_variable(DatasourceVariable("source").label("Prometheus").type("prometheus"))
)
for made in PANELS:
    dashboard.with_panel(made)

if __name__ == "__main__":
    print(JSONEncoder(sort_keys=True, indent=2).encode(dashboard.build()))
