"""Our own OpenAPI description of these routes: valid, and nothing that it allows gives a 500."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any
from unittest import mock

import schemathesis
from fastapi import FastAPI
from hypothesis import HealthCheck, Phase, settings
from tests.serve.scripted import ScriptedFleet

from pocketlm.serve import app as app_module
from pocketlm.serve import openai
from pocketlm.serve.config import ServeConfig
from pocketlm.serve.services import Services
from pocketlm.store import Store

_OURS = ("/v1/", "/tokenize", "/detokenize", "/tokenizer_info", "/version")


def _app() -> FastAPI:
    config = ServeConfig(models=("tiny",), host="testserver")
    store = Store(Path(tempfile.gettempdir()) / "pocketlm-no-store")
    with mock.patch.object(app_module, "ROUTERS", (openai.router,)):
        return app_module.make_app(Services(ScriptedFleet(), store, config))


SCHEMA = schemathesis.openapi.from_asgi("/openapi.json", _app(), headers={"Host": "localhost"})


@(
    SCHEMA.include(path_regex="^/(v1|tokeni|detok|version)")
    .exclude(path_regex="^/v1/messages")
    .parametrize()
)
@settings(
    max_examples=6,
    deadline=None,
    database=None,
    derandomize=True,
    phases=[Phase.generate],
    suppress_health_check=list(HealthCheck),
)
def test_no_request_gives_a_500(case: Any) -> None:
    answer = case.call(headers={"Host": "localhost"})
    assert answer.status_code < 500, answer.text


def test_the_description_names_what_it_has() -> None:
    description = _app().openapi()
    assert description["openapi"].startswith("3.1")
    operations = [
        operation
        for path, methods in description["paths"].items()
        if path.startswith(_OURS)
        for operation in methods.values()
    ]
    names = [operation["operationId"] for operation in operations]
    assert len(names) == len(set(names)) > 10
    assert {"create_chat_completion", "create_completion", "create_response"} <= set(names)
    assert all(operation["summary"] for operation in operations)
