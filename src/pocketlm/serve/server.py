"""The server: uvicorn over the application, from the first request to the last one's end."""

from __future__ import annotations

import asyncio
import logging
import signal
import socket
import sys
from collections.abc import Awaitable, Callable, Coroutine, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import uvicorn

from pocketlm.errors import RequestError
from pocketlm.serve.app import make_app
from pocketlm.serve.config import ServeConfig
from pocketlm.serve.fleet import WorkerFleet
from pocketlm.serve.fleet.process import COMMAND
from pocketlm.serve.guard.connections import bounded_http
from pocketlm.serve.guard.exposure import check_exposure
from pocketlm.serve.guard.keys import KeyFile
from pocketlm.serve.observe.logs import log_to
from pocketlm.serve.observe.metrics import Metrics
from pocketlm.serve.services import Services
from pocketlm.store import Store

_BACKLOG = 2048
_KEEP_ALIVE_S = 75  # an idle connection of a client
_LAST_WORDS_S = 3  # for responses to be written once their answers have ended
_SIGNALS = (signal.SIGTERM, signal.SIGINT)

_log = logging.getLogger(__name__)


def serve(
    config: ServeConfig,
    store: Store,
    *,
    command: Sequence[str] = COMMAND,
    ready: Callable[[str], None] = lambda url: None,
) -> None:
    """Serves until SIGTERM or SIGINT: then it begins nothing new, lets answers under way end, for
    ``config.drain`` seconds at most, and returns. A second signal ends them at once.

    Args:
        command: starts a worker.
        ready: told the server's URL once it takes connections.

    Raises RequestError where the address cannot be had or others could use it without a key, and
    what keeps a model of ``config.models`` from loading.
    """
    log_to(as_json=config.log_json)
    check_exposure(config, KeyFile(store.home, store.shelf.locks))
    with _listening(config) as listener:
        ready(_url(config, listener))
        _run(_serve(config, store, command, listener))


async def _serve(
    config: ServeConfig, store: Store, command: Sequence[str], listener: socket.socket
) -> None:
    metrics = Metrics()
    fleet = WorkerFleet(store, config, command=command, watcher=metrics)
    server = _server(config, Services(fleet, store, config, metrics))
    first, second = _stop_signals()
    serving = asyncio.create_task(server.serve(sockets=[listener]))
    loading = asyncio.create_task(_load(fleet, config.models))
    loading.add_done_callback(lambda task: first.set() if _failed(task) else None)
    await _either(first.wait(), asyncio.shield(serving))
    if not _failed(loading) and not serving.done():
        _log.info("shutting down: answers under way have %g s to end", config.drain)
        await _either(fleet.drain(config.drain), second.wait())
    server.should_exit = True
    loading.cancel()
    await fleet.close()
    await serving
    if _failed(loading):
        await loading


def _server(config: ServeConfig, services: Services) -> uvicorn.Server:
    """uvicorn, with signals and logs left to us."""

    class Server(uvicorn.Server):
        @contextmanager
        def capture_signals(self) -> Iterator[None]:
            yield

    return Server(
        uvicorn.Config(
            make_app(services),
            http=bounded_http(services.metrics),
            log_config=None,
            access_log=False,
            ws="none",
            server_header=False,
            timeout_keep_alive=_KEEP_ALIVE_S,
            timeout_graceful_shutdown=_LAST_WORDS_S,
            ssl_certfile=config.tls_cert,
            ssl_keyfile=config.tls_key,
        )
    )


def _stop_signals() -> tuple[asyncio.Event, asyncio.Event]:
    """Set by the first and by the second signal that asks for the end."""
    first, second = asyncio.Event(), asyncio.Event()

    def told() -> None:
        (second if first.is_set() else first).set()

    for number in _SIGNALS:
        asyncio.get_running_loop().add_signal_handler(number, told)
    return first, second


async def _load(fleet: WorkerFleet, models: Sequence[str]) -> None:
    """Loads what the server was started with; all of it stays."""
    for name in models:
        await fleet.load(name, keep_alive=-1, pin=True)
        _log.info("loaded %s", name)


def _failed(task: asyncio.Task[None]) -> bool:
    return task.done() and not task.cancelled() and task.exception() is not None


async def _either(*works: Awaitable[object]) -> None:
    """Until one of them is done; the others are cancelled."""
    tasks = [asyncio.ensure_future(work) for work in works]
    await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


def _run(main: Coroutine[Any, Any, None]) -> None:
    """In uvloop where it is installed: it takes less of the processor for each message."""
    try:
        import uvloop
    except ImportError:
        asyncio.run(main)
    else:
        uvloop.run(main)


@contextmanager
def _listening(config: ServeConfig) -> Iterator[socket.socket]:
    """A socket that takes connections; raises RequestError where the address cannot be had."""
    family = socket.AF_INET6 if ":" in config.host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as listener:
        try:
            if sys.platform != "win32":
                listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listener.bind((config.host, config.port))
            listener.listen(_BACKLOG)
        except OSError as error:
            raise RequestError(
                f"cannot listen on {config.host} port {config.port}: {error.strerror or error}",
                hint="If another server runs there, choose another --port.",
            ) from error
        listener.setblocking(False)
        yield listener


def _url(config: ServeConfig, listener: socket.socket) -> str:
    host = f"[{config.host}]" if ":" in config.host else config.host
    scheme = "https" if config.tls_cert else "http"
    return f"{scheme}://{host}:{listener.getsockname()[1]}"
