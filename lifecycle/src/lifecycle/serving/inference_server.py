"""KServe's server, with refusals of 4xx in the form of the Open Inference Protocol.

KServe answers some unreadable bodies with 500 and what it does not offer with 501, tells callers the text of
any exception, lets every caller load and unload models, logs each request, and binds all interfaces.
``Server`` mends these.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection, Mapping
from typing import Any

from fastapi import FastAPI, HTTPException, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from kserve import Model, ModelServer
from kserve.errors import InvalidInput, ModelNotFound, UnsupportedProtocol
from kserve.model_server import app
from kserve.protocol.dataplane import DataPlane
from kserve.protocol.model_repository_extension import ModelRepositoryExtension
from starlette.exceptions import HTTPException as AnyHTTPException
from starlette.middleware.trustedhost import TrustedHostMiddleware

from lifecycle.serving.limits import (
    LOOPBACK,
    MOST_BYTES,
    REFUSED,
    SECONDS,
    Impatient,
    Limits,
    OneLine,
    Seldom,
    connections,
)


class _DataPlane(DataPlane):
    """KServe's, but an unreadable body gets 400, not 500, and a model says why it isn't ready."""

    def decode(self, body: Any, headers: dict, *arguments: Any, **named: Any) -> tuple:
        kind = headers.get("content-type", "").split(";")[0].strip()
        if kind:  # "; charset=utf-8" is no other kind of JSON
            headers = {**headers, "content-type": kind}
        try:
            return super().decode(body, headers, *arguments, **named)
        except InvalidInput:
            raise
        except Exception as error:
            raise InvalidInput(f"the request cannot be read: {type(error).__name__}: {error}") from error

    def metadata(self) -> dict:
        return {**super().metadata(), "extensions": []}

    async def model_ready(self, model_name: str, disable_predictor_health_check: bool = False) -> bool:
        # KServe asks for the health of a predictor when somebody asks whether the model is ready, and not
        # before a prediction.
        self._insist(
            self.model_registry.get_model(model_name), of_a_prediction=disable_predictor_health_check
        )
        return await super().model_ready(model_name, disable_predictor_health_check)

    async def ready(self) -> bool:
        for model in self.model_registry.get_models().values():
            self._insist(model, of_a_prediction=False)
        return await super().ready()

    @staticmethod
    def _insist(model: Any, of_a_prediction: bool) -> None:
        if why := getattr(model, "not_ready", ""):
            if of_a_prediction:
                REFUSED.labels("changed").inc()
            raise HTTPException(503, why)


class _Repository(ModelRepositoryExtension):
    """KServe lets every caller load and unload models. Here the alias decides, and nobody else."""

    async def load(self, model_name: str) -> None:
        raise HTTPException(403, "the alias in the model registry decides what is served")

    unload = load


def _answer(status: int, said: object, headers: Mapping[str, str] | None = None) -> JSONResponse:
    return JSONResponse({"error": str(said)[:500]}, status, headers=headers)


async def _not_of_this_form(_: Request, error: RequestValidationError) -> JSONResponse:
    first = error.errors()[0]
    return _answer(400, f"{'.'.join(str(part) for part in first['loc'])}: {first['msg']}")


async def _unreadable(_: Request, error: Exception) -> JSONResponse:
    REFUSED.labels("unreadable").inc()
    return _answer(400, error)


async def _refused(_: Request, error: AnyHTTPException) -> JSONResponse:
    return _answer(error.status_code, error.detail, error.headers)


async def _unknown(_: Request, error: Exception) -> JSONResponse:
    return _answer(404, error)


async def _not_offered(_: Request, error: Exception) -> JSONResponse:
    return _answer(404, f"this server does not offer that: {error}")


async def _failed(_: Request, error: Exception) -> JSONResponse:
    # The text of an exception is for the log (uvicorn writes it there): it may name files of this machine.
    return _answer(500, "the server failed on this request; its log says why")


_HANDLERS: dict[type[Exception], Callable] = {
    RequestValidationError: _not_of_this_form,
    AnyHTTPException: _refused,
    InvalidInput: _unreadable,
    UnsupportedProtocol: _unreadable,
    ModelNotFound: _unknown,
    NotImplementedError: _not_offered,
    Exception: _failed,
}


class Server(ModelServer):
    """KServe's server on a chosen interface (its own takes all), within the limits of
    ``lifecycle.serving.limits``.

    The Open Inference Protocol wants a status of 4xx and ``{"error": text}`` for what is the caller's
    mistake. KServe leaves some of it to FastAPI, which answers in another form, and with 500 to a body with
    NaN in the wrong place.

    Args:
        host: address of the interface, such as ``127.0.0.1``.
        port: of the REST interface.
        hosts: names by which callers may call the server, without a port; ``*`` for any.
        most_bytes: of a request's body.
    """

    def __init__(self, host: str, port: int, hosts: Collection[str] = LOOPBACK, most_bytes: int = MOST_BYTES):
        super().__init__(http_port=port, enable_grpc=False, workers=1)
        self.host, self.hosts, self.most_bytes = host, [host, *hosts], most_bytes
        self.dataplane = _DataPlane(self.registered_models)
        self.model_repository_extension = _Repository(self.registered_models)
        # A line a request fills a disk, and says nothing that the metrics do not say.
        for name in ("uvicorn.access", "kserve.trace"):
            logging.getLogger(name).setLevel(logging.WARNING)
        # Whatever else logs, asyncio among it, reaches the root.
        if not logging.getLogger().handlers:
            logging.getLogger().addHandler(logging.StreamHandler())
        seldom = Seldom()
        for name in ("", "kserve", "kserve.trace", "uvicorn", "uvicorn.access"):
            for handler in logging.getLogger(name).handlers:
                handler.setFormatter(OneLine("%(asctime)s %(levelname)s %(message)s"))
                handler.addFilter(seldom)

    def start(self, models: list[Model]) -> None:
        """Serve until the process is ended. ``/status`` shows what each model says of itself."""

        async def status() -> dict:
            return {model.name: model.status() for model in models}

        async def ready(model_name: str) -> JSONResponse:
            await self.dataplane.model_ready(model_name)
            model = self.registered_models.get_model(model_name)
            # The protocol's two fields, and what a look at readiness should not miss.
            return JSONResponse({"name": model_name, "ready": True, "follows": model.status()["follows"]})

        app.add_api_route("/status", status)
        app.add_api_route("/v2/models/{model_name}/ready", ready)
        super().start(models)

    async def _serve(self) -> None:
        def handlers(app: FastAPI) -> None:
            for kind, handler in _HANDLERS.items():
                app.add_exception_handler(kind, handler)

        def middlewares(app: FastAPI) -> None:
            app.add_middleware(Limits, most_bytes=self.most_bytes)
            # Added last, it comes first. A page in a browser can make other names point at this machine.
            app.add_middleware(TrustedHostMiddleware, allowed_hosts=self.hosts, www_redirect=False)

        rest = self._rest_server
        rest.config.host, rest.config.http, rest.config.ws = self.host, Impatient, "none"
        rest.config.timeout_keep_alive, rest.config.backlog = int(SECONDS), connections()[1]
        # In place of KServe's own: they log each request with its timing, and each refusal with a traceback.
        rest._add_middlewares = middlewares
        rest._add_exception_handlers = handlers
        await super()._serve()
