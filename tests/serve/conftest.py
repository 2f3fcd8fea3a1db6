"""A real server on loopback, over a scripted fleet."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import uvicorn
from tests.serve.scripted import ScriptedFleet

from pocketlm.serve.app import make_app
from pocketlm.serve.config import ServeConfig
from pocketlm.serve.guard import hosts
from pocketlm.serve.services import Services
from pocketlm.store import Store


class _Switch:
    """An application that is another one for each test: a server takes long to start and stop."""

    app: Any = None

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        await self.app(scope, receive, send)


@pytest.fixture(scope="session")
def server() -> Iterator[tuple[_Switch, str]]:
    switch = _Switch()
    config = uvicorn.Config(switch, log_level="critical", lifespan="off")
    running = uvicorn.Server(config)
    listening = socket.create_server(("127.0.0.1", 0))
    thread = threading.Thread(target=running.run, kwargs={"sockets": [listening]})
    thread.start()
    while not running.started:
        time.sleep(0.005)
    yield switch, f"http://127.0.0.1:{listening.getsockname()[1]}"
    running.should_exit = True
    thread.join(10)
    listening.close()


@pytest.fixture
def serve(server: tuple[_Switch, str], tmp_path: Path) -> Callable[..., str]:
    """Serves a fleet, with options of ``ServeConfig``, and gives the address."""
    switch, url = server

    def start(fleet: ScriptedFleet, **options: Any) -> str:
        switch.app = make_app(Services(fleet, Store(tmp_path), ServeConfig(**options)))
        return url

    return start


@pytest.fixture(autouse=True, scope="session")
def _the_test_client_is_local() -> None:
    """Starlette's test client calls the server by a name of its own."""
    hosts.LOOPBACK_NAMES |= {"testserver"}
