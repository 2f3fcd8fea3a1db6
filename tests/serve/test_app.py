"""The application on a scripted fleet: its own routes, and errors in each API's shape."""

from __future__ import annotations

import signal
from collections.abc import Callable
from pathlib import Path

import pytest
from fastapi import APIRouter
from fastapi.testclient import TestClient
from tests.serve.scripted import ScriptedFleet

from pocketlm.errors import BusyError, NotFoundError
from pocketlm.serve import app as app_module
from pocketlm.serve.app import make_app
from pocketlm.serve.config import ServeConfig
from pocketlm.serve.services import Services
from pocketlm.store import Store


@pytest.fixture
def client(tmp_path: Path) -> TestClient:
    return make_client(ScriptedFleet(), tmp_path)


def make_client(fleet: ScriptedFleet, home: Path, **options: object) -> TestClient:
    config = ServeConfig(**options)  # type: ignore[arg-type]
    services = Services(fleet, Store(home), config)
    return TestClient(make_app(services), raise_server_exceptions=False)


def test_health_says_that_the_process_lives(client: TestClient) -> None:
    assert client.get("/health").json() == {"status": "ok"}


def test_ready_says_why_not(tmp_path: Path) -> None:
    fleet = ScriptedFleet()
    client = make_client(fleet, tmp_path)
    assert client.get("/ready").status_code == 503
    assert client.get("/ready").json()["reason"] == "there is no model in the store"
    fleet.loaded_names["tiny:latest"] = None
    assert client.get("/ready").json() == {"status": "ready", "loaded": ["tiny:latest"]}
    fleet.draining = True
    assert client.get("/ready").json()["reason"] == "the server is shutting down"


def test_not_ready_until_the_models_asked_for_are_loaded(tmp_path: Path) -> None:
    answer = make_client(ScriptedFleet(), tmp_path, models=("tiny",)).get("/ready")
    assert answer.status_code == 503
    assert answer.json()["reason"] == "1 of 1 models are still loading"


def test_admin_loads_lists_and_unloads(client: TestClient) -> None:
    assert client.post("/admin/load", json={"model": "tiny"}).status_code == 200
    (model,) = client.get("/admin/models").json()["models"]
    assert (model["name"], model["context"], model["pid"]) == ("tiny:latest", 4096, 1)
    assert client.post("/admin/unload", json={"model": "tiny"}).json() == {"unloaded": True}
    assert client.post("/admin/unload", json={"model": "tiny"}).json() == {"unloaded": False}
    assert client.get("/admin/models").json() == {"models": []}


def test_admin_stop_ends_the_server_as_a_signal_does(
    client: TestClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    sent: list[int] = []
    monkeypatch.setattr("os.kill", lambda pid, number: sent.append(number))
    assert client.post("/admin/stop", json={}).json() == {"stopping": True}
    assert sent == [signal.SIGTERM]


@pytest.mark.parametrize(
    "body",
    [b"", b"{", b"[]", b'{"model": 3}', b'{"model": "a", "more": 1}', b"\xff\xfe", b'{"model":""}'],
)
def test_malformed_bodies_are_the_callers_fault(client: TestClient, body: bytes) -> None:
    headers = {"Content-Type": "application/json"}
    answer = client.post("/admin/load", content=body, headers=headers)
    assert answer.status_code == 400
    assert answer.json()["error"]["type"] == "invalid_request_error"


def test_errors_have_the_shape_of_the_api(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    errors: dict[str, Callable[[], Exception]] = {
        "missing": lambda: NotFoundError("there is no model x", hint="Pull it."),
        "busy": lambda: BusyError("too many wait", retry_after=2.4),
        "bug": lambda: ValueError("secret"),
    }

    def failing(services: Services) -> APIRouter:
        routes = APIRouter()

        @routes.get("/{api}/raise/{what}")
        async def fail(api: str, what: str) -> None:
            raise errors[what]()

        return routes

    monkeypatch.setattr(app_module, "ROUTERS", (failing,))
    client = make_client(ScriptedFleet(), tmp_path)
    missing = client.get("/v1/raise/missing")
    assert missing.status_code == 404
    assert missing.json()["error"]["message"] == "there is no model x. Pull it."
    assert client.get("/api/raise/missing").json() == {"error": "there is no model x. Pull it."}
    busy = client.get("/v1/raise/busy")
    assert (busy.status_code, busy.headers["Retry-After"]) == (503, "3")
    bug = client.get("/v1/raise/bug")
    assert bug.status_code == 500
    assert "secret" not in bug.text
    assert client.get("/api/nowhere").status_code == 404
    assert client.get("/api/nowhere").json() == {"error": "GET /api/nowhere: Not Found"}
