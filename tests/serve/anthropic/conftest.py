"""A real server on loopback, over a scripted fleet."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
import uvicorn
from tests.serve.scripted import ScriptedFleet

from pocketlm.serve.app import make_app
from pocketlm.serve.config import ServeConfig
from pocketlm.serve.services import Services
from pocketlm.store import Store

Serve = Callable[..., str]


@pytest.fixture
def serve(tmp_path: Path) -> Iterator[Serve]:
    """Serves a fleet and gives the address; ends with the test."""
    with ExitStack() as stack:

        def start(fleet: ScriptedFleet, **options: object) -> str:
            config = ServeConfig(**options)  # type: ignore[arg-type]
            services = Services(fleet, Store(tmp_path), config)
            server = uvicorn.Server(
                uvicorn.Config(make_app(services), log_level="warning", lifespan="off")
            )
            listening = socket.create_server(("127.0.0.1", 0))
            thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]})
            thread.start()

            def stop() -> None:
                server.should_exit = True
                thread.join(10)
                listening.close()

            stack.callback(stop)
            while not server.started:
                time.sleep(0.005)
            return f"http://127.0.0.1:{listening.getsockname()[1]}"

        yield start
