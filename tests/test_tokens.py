"""Feast's three servers check a token: of OpenID Connect, from an issuer that this file runs. No cluster takes part.

The issuer is a web server with the two documents that Feast fetches: where the keys are, and the keys. The key is made when the test starts."""

import base64
import json
import threading
import time
from contextlib import ExitStack
from datetime import timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import SimpleNamespace

import jwt
import pandas as pd
import pytest
import requests
import yaml
from conftest import HARD_TO_QUOTE
from cryptography.hazmat.primitives.asymmetric import rsa
from test_machines import client_of, client_settings, feast_servers

from helpers.data import NOW
from helpers.services import HOST
from helpers.workspace import configure, create_home

AUDIENCE, KEY_NAME, READER = "feature-store", "of this test", "feature_reader"
REFERENCES = ["driver_hourly_stats:conv_rate", "driver_ratios:conv_log_odds"]
REFUSED = ("no token", "another key", "another audience", "expired", "unsigned", "without the role")


def number(value: int) -> str:
    return (
        base64.urlsafe_b64encode(value.to_bytes((value.bit_length() + 7) // 8, "big")).rstrip(b"=").decode()
    )


@pytest.fixture(scope="module")
def issuer():
    """An issuer of tokens on loopback: its address, and its key, which only the issuer has."""
    key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    public = key.public_key().public_numbers()
    parts = {
        "kty": "RSA",
        "use": "sig",
        "alg": "RS256",
        "kid": KEY_NAME,
        "n": number(public.n),
        "e": number(public.e),
    }

    class Documents(BaseHTTPRequestHandler):
        def do_GET(self):
            here = f"http://{HOST}:{self.server.server_port}"
            places = {"issuer": here, "jwks_uri": f"{here}/keys"}
            places |= {"authorization_endpoint": f"{here}/authorize", "token_endpoint": f"{here}/token"}
            body = json.dumps({"keys": [parts]} if self.path == "/keys" else places).encode()
            self.send_response(200)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_):
            pass

    with ThreadingHTTPServer((HOST, 0), Documents) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield SimpleNamespace(url=f"http://{HOST}:{server.server_port}", key=key)
        server.shutdown()


def token(issuer, kind: str = "right") -> str:
    """A signed statement of who asks: right, or wrong in one way."""
    claims = {"iss": issuer.url, "aud": AUDIENCE, "exp": int(time.time()) + 600, "preferred_username": "ana"}
    claims["roles"] = [] if kind == "without the role" else [READER]
    if kind == "another audience":
        claims["aud"] = "payroll"
    if kind == "expired":
        claims["exp"] = int(time.time()) - 600
    if kind == "unsigned":
        return jwt.encode(claims, None, algorithm="none", headers={"kid": KEY_NAME})
    key = (
        rsa.generate_private_key(public_exponent=65537, key_size=2048)
        if kind == "another key"
        else issuer.key
    )
    return jwt.encode(claims, key, algorithm="RS256", headers={"kid": KEY_NAME})


def auth(issuer, kind: str) -> dict[str, object]:
    """A client's block ``auth``; empty without a token."""
    return {} if kind == "no token" else {"auth": {"type": "oidc", "token": token(issuer, kind)}}


@pytest.fixture(scope="module")
def guarded(tmp_path_factory, issuer):
    """A home whose servers ask for a token, and let those read who have the role ``READER``; with its servers."""
    from feast import FeatureStore
    from feast.permissions.action import AuthzedAction
    from feast.permissions.permission import Permission
    from feast.permissions.policy import RoleBasedPolicy

    from helpers import registry

    with pytest.MonkeyPatch.context() as patch, ExitStack() as stack:
        for name in ("MLFLOW_TRACKING_URI", "TZ"):
            patch.setenv(name, "")
        home = create_home(tmp_path_factory.mktemp("guarded") / HARD_TO_QUOTE)
        configure(home)
        settings = yaml.safe_load((home.feature_repo / "feature_store.yaml").read_text())
        settings.pop("mlflow")
        (home.feature_repo / "feature_store.yaml").write_text(yaml.safe_dump(settings))
        store = FeatureStore(repo_path=str(home.feature_repo))
        registry.apply(store, home.feature_repo)
        reads = [AuthzedAction.DESCRIBE, AuthzedAction.READ_ONLINE, AuthzedAction.READ_OFFLINE]
        store.apply(Permission(name="readers", actions=reads, policy=RoleBasedPolicy(roles=[READER])))
        store.materialize(NOW - timedelta(days=30), NOW)
        guard = {"type": "oidc", "auth_discovery_url": f"{issuer.url}/.well-known/openid-configuration"}
        settings["auth"] = guard | {"audience": AUDIENCE, "issuer": issuer.url}
        (home.feature_repo / "feature_store.yaml").write_text(yaml.safe_dump(settings))
        servers = feast_servers(home.feature_repo, home.path / "logs")
        for server in servers.values():
            stack.enter_context(server)
        yield SimpleNamespace(home=home, store=store, servers=servers)


@pytest.fixture
def labels(guarded):
    return pd.read_parquet(guarded.home.data / "driver_labels.parquet").head(50)


def asked_online(guarded, headers) -> requests.Response:
    body = {"features": REFERENCES, "entities": {"driver_id": [1001, 1002]}}
    url = guarded.servers["online"].url
    return requests.post(f"{url}/get-online-features", json=body, headers=headers, timeout=30)


def of_the_offline_server(guarded, issuer, folder, kind):
    """A client that reads the registry's file itself, so that it is the offline server that refuses."""
    settings = client_settings(guarded.servers, **auth(issuer, kind))
    return client_of(folder, settings | {"registry": str(guarded.home.path / "registry.db")})


def test_a_right_token_is_served_by_all_three_servers_with_equal_values(guarded, issuer, labels, tmp_path):
    client = client_of(tmp_path / "client", client_settings(guarded.servers, **auth(issuer, "right")))
    assert {view.name for view in client.list_feature_views()} == {
        "driver_hourly_stats",
        "driver_daily_profile",
    }
    rows = [{"driver_id": driver} for driver in (1001, 1002)]
    local = guarded.store.get_online_features(REFERENCES, rows).to_df()
    pd.testing.assert_frame_equal(client.get_online_features(REFERENCES, rows).to_df()[local.columns], local)
    here = guarded.store.get_historical_features(labels, REFERENCES).to_df()
    there = client.get_historical_features(labels, REFERENCES).to_df()
    keys = ["driver_id", "event_timestamp"]
    pd.testing.assert_frame_equal(
        there.sort_values(keys, ignore_index=True), here.sort_values(keys, ignore_index=True)
    )


@pytest.mark.parametrize("kind", REFUSED)
def test_the_registry_server_gives_a_wrong_token_no_definition(guarded, issuer, tmp_path, kind):
    client = client_of(tmp_path / "client", client_settings(guarded.servers, **auth(issuer, kind)))
    # Who has no valid token gets no reason from this server: it stands in its log.
    says = "denied execution" if kind == "without the role" else "Error in service handler"
    with pytest.raises(Exception, match=says):
        client.list_feature_views()
    assert kind == "without the role" or "AuthenticationError" in guarded.servers["registry"].tail(100)


@pytest.mark.parametrize("kind", REFUSED)
def test_the_online_server_gives_a_wrong_token_no_value(guarded, issuer, kind):
    headers = {} if kind == "no token" else {"Authorization": f"Bearer {token(issuer, kind)}"}
    answer = asked_online(guarded, headers)
    assert answer.status_code == (403 if kind == "without the role" else 401), answer.text
    assert "values" not in answer.text


@pytest.mark.parametrize("kind", REFUSED)
def test_the_offline_server_gives_a_wrong_token_no_row(guarded, issuer, labels, tmp_path, kind):
    client = of_the_offline_server(guarded, issuer, tmp_path / "client", kind)
    with pytest.raises(Exception, match=r"(?i)authenti|token|permission|bearer|authorization"):
        client.get_historical_features(labels, REFERENCES).to_df()


def test_the_same_offline_client_is_served_with_a_right_token(guarded, issuer, labels, tmp_path):
    client = of_the_offline_server(guarded, issuer, tmp_path / "client", "right")
    assert len(client.get_historical_features(labels, REFERENCES).to_df()) == len(labels)


def test_who_may_read_may_not_write(guarded, issuer, tmp_path):
    from feast import FeatureService

    client = client_of(tmp_path / "client", client_settings(guarded.servers, **auth(issuer, "right")))
    with pytest.raises(Exception, match=r"(?i)permission"):
        client.apply(FeatureService(name="mine", features=[client.get_feature_view("driver_hourly_stats")]))
    written = {"driver_id": [997], "event_timestamp": [NOW.isoformat()], "created": [NOW.isoformat()]}
    written |= {"conv_rate": [0.5], "acc_rate": [0.25], "avg_daily_trips": [3]}
    url = guarded.servers["online"].url
    body = {"feature_view_name": "driver_hourly_stats", "df": written}
    headers = {"Authorization": f"Bearer {token(issuer)}"}
    answer = requests.post(f"{url}/write-to-online-store", json=body, headers=headers, timeout=30)
    assert answer.status_code == 403, answer.text
    assert guarded.store.get_online_features(REFERENCES[:1], [{"driver_id": 997}]).to_dict()["conv_rate"] == [
        None
    ]
