from faults import Answers

ANSWERS = {
    "7.1": Answers(
        right=[
            """
def promote(registry, model_name, number):
    aliases = registry.get_registered_model(model_name).aliases
    for alias, target in {"production": int(number), "previous": int(aliases["production"])}.items():
        registry.set_registered_model_alias(name=model_name, alias=alias, version=target)
""",
        ],
        wrong={
            "both aliases name version 3": """
def promote(client, name, version):
    client.set_registered_model_alias(name, "production", version)
    served = client.get_model_version_by_alias(name, "production")
    client.set_registered_model_alias(name, "previous", served.version)
""",
            "version 1 was in production, and now `previous` names version 2": """
def promote(client, name, version):
    client.set_registered_model_alias(name, "previous", int(version) - 1)
    client.set_registered_model_alias(name, "production", version)
""",
            "version 3 was in production, and now `previous` names version 1": """
def promote(client, name, version):
    client.set_registered_model_alias(name, "previous", 1)
    client.set_registered_model_alias(name, "production", version)
""",
            "no alias `previous` names the version before it. The model's aliases: production.": """
def promote(client, name, version):
    client.set_registered_model_alias(name, "production", version)
""",
            "in a copy": """
def promote(client, name, version):
    served = client.get_model_version_by_alias(MODEL, "production")
    client.set_registered_model_alias(MODEL, "previous", served.version)
    client.set_registered_model_alias(MODEL, "production", 1)
""",
            "production names version 1": """
def promote(client, name, version):
    served = client.get_model_version_by_alias(name, "production")
    client.set_registered_model_alias(name, "previous", served.version)
""",
            "production names none": """
def promote(client, name, version):
    served = client.get_model_version_by_alias(name, "production")
    client.delete_registered_model_alias(name, "production")
    client.set_registered_model_alias(name, "previous", served.version)
""",
            "`promote` failed while version 1 was in production: AttributeError": (
                'def promote(client, name, version):\n    client.transition(name, version, "production")'
            ),
        },
    ),
    "7.2": Answers(
        right=[
            """
def fix(project):
    project.materialize(NOW.to_pydatetime() - timedelta(weeks=1), NOW.to_pydatetime())
""",
        ],
        wrong={
            "An increment begins where": """
def fix(store):
    store.materialize_incremental(NOW, feature_views=["driver_hourly_stats"])
""",
            "older than the start of your period": """
def fix(store):
    store.materialize(NOW - timedelta(days=1), NOW, feature_views=["driver_hourly_stats"])
""",
            "with a value in a training set as of `NOW`: 3 of 150 drivers": (
                "def fix(store):\n    store.materialize(NOW - timedelta(days=4), NOW)"
            ),
            "null in a training set as of `NOW`: 6 of 150 drivers": (
                "def fix(store):\n    store.materialize(NOW - timedelta(days=14), NOW)"
            ),
            "drivers are still null: does your period contain the data of early 2025?": """
def fix(store):
    now = pd.Timestamp.now('UTC')
    store.materialize(now - timedelta(days=7), now)
""",
            "after `fix`, the store doesn't answer": "def fix(store):\n    store.teardown()",
            "starts earlier than the time to live allows": """
def fix(store):
    store.materialize(NOW - timedelta(days=365), NOW, feature_views=["driver_hourly_stats"])
""",
            "later than the end of your period": (
                "def fix(store):\n    store.materialize(NOW - timedelta(days=7), NOW - timedelta(days=1))"
            ),
            "`fix` failed: ": "def fix(store):\n    store.materialize(NOW)",
        },
    ),
    "7.3": Answers(
        right=[
            """
tokyo_hour = old_hour.copy()
tokyo_hour["driver_id"] = [997]
tokyo_hour["event_timestamp"] = NOW + timedelta(hours=9)
""",
            'tokyo_hour = old_hour.assign(event_timestamp=NOW.tz_convert("Asia/Tokyo").tz_localize(None))',
        ],
        wrong={
            "the same moment in every zone": (
                'tokyo_hour = old_hour.assign(driver_id=997, event_timestamp=NOW.tz_convert("Asia/Tokyo"))'
            ),
            "a row from 9 hours before `NOW` is like any other": (
                "tokyo_hour = old_hour.assign(driver_id=997, event_timestamp=NOW - timedelta(hours=9))"
            ),
            "rejects the row for another reason": "tokyo_hour = old_hour.assign(driver_id=997)",
            "the row is 216 hours after `NOW`": (
                "tokyo_hour = old_hour.assign(driver_id=997, event_timestamp=NOW + timedelta(days=9))"
            ),
            "`tokyo_hour` is a Timestamp": "tokyo_hour = NOW + timedelta(hours=9)",
            "`driver_id` isn't a number": "tokyo_hour = old_hour.assign(driver_id='Ada')",
            "the row lacks acc_rate": "tokyo_hour = old_hour.drop(columns='acc_rate')",
        },
    ),
}
