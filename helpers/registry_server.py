"""``feast serve_registry`` on loopback alone: Feast's own gRPC server listens on every address of the
machine, and its option ``--host`` does not reach it."""

from __future__ import annotations

import logging
import sys
from typing import Any

import feast.registry_server
import grpc
from feast import FeatureStore

from helpers.services import HOST

_new_server = grpc.server


def _on_loopback(*arguments: Any, **options: Any) -> grpc.Server:
    """A gRPC server whose port is opened on ``HOST``, whatever address is asked for."""
    server = _new_server(*arguments, **options)
    open_port = server.add_insecure_port
    server.add_insecure_port = lambda address: open_port(f"{HOST}:{address.rpartition(':')[2]}")
    return server


def main(feature_repo: str, port: str) -> None:
    """Serve the registry of a feature repository, without TLS, until the process is ended."""
    logging.basicConfig(level=logging.WARNING)  # why a token was refused stands in the log, and nowhere else
    grpc.server = _on_loopback
    feast.registry_server.start_server(FeatureStore(repo_path=feature_repo), int(port))


if __name__ == "__main__":
    main(*sys.argv[1:])
