"""A server with the page on a scripted fleet, and as much of the APIs as the page uses.

What the APIs themselves do is held by their own tests; here they say what the test wants said.
"""

from __future__ import annotations

import asyncio
import shutil
import threading
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import uvicorn
from fastapi import FastAPI, Request
from fastapi.responses import Response, StreamingResponse

from pocketlm.errors import PocketLMError
from pocketlm.serve.app import make_app
from pocketlm.serve.config import ServeConfig
from pocketlm.serve.failures import failure
from pocketlm.serve.generation import ChatPrompt, Generation, LoadedModel
from pocketlm.serve.replies import event_stream, json_line, sse_event
from pocketlm.serve.services import Services
from pocketlm.size_classes import size_class
from pocketlm.store import Store
from pocketlm.store.manifest import Facts, FileRecord, Manifest, Source
from serve.scripted import FACTS, Script, ScriptedFleet

REASONING = "\x00"  # a piece that begins so is a thought
KEY = "sesame"


@dataclass
class PinningFleet(ScriptedFleet):
    """A scripted fleet that knows what is pinned, and how busy it is."""

    pinned: set[str] = field(default_factory=set)
    running: int = 0
    waiting: int = 0
    read: int = 0
    written: int = 0

    async def load(
        self, name: str, *, keep_alive: float | None = None, pin: bool | None = None
    ) -> None:
        await super().load(name, keep_alive=keep_alive, pin=pin)
        if pin is not None:
            (self.pinned.add if pin else self.pinned.discard)(name)

    def loaded(self) -> Sequence[LoadedModel]:
        return [
            replace(
                one,
                pinned=one.facts.name in self.pinned,
                expires=None if one.facts.name in self.pinned else one.expires,
                running=self.running,
                waiting=self.waiting,
                kv_tokens=4096,
                kv_used=1024,
                prompt_tokens=self.read,
                output_tokens=self.written,
            )
            for one in super().loaded()
        ]


@dataclass
class Site:
    """A running server and what it was asked.

    Attributes:
        bodies: of every request for an answer.
        pulls: the lines of the next pull; at a None it waits until ``go`` is set.
        locked: whether a key is wanted.
        deleted: names. stopped: streams whose client has gone.
    """

    url: str
    fleet: PinningFleet
    store: Store
    bodies: list[dict[str, Any]] = field(default_factory=list)
    pulls: Sequence[dict[str, Any] | None] = ()
    go: threading.Event = field(default_factory=threading.Event)
    locked: bool = False
    deleted: list[str] = field(default_factory=list)
    stopped: list[str] = field(default_factory=list)

    def reset(self) -> None:
        """As it was when it started: two models on disk, none in memory, no key wanted."""
        self.fleet.script_or_function = Script()
        self.fleet.loaded_names.clear()
        self.fleet.pinned.clear()
        self.fleet.running = self.fleet.waiting = self.fleet.read = self.fleet.written = 0
        for seen in (self.bodies, self.deleted, self.stopped):
            seen.clear()
        self.pulls, self.locked = (), False
        self.go.clear()
        shutil.rmtree(self.store.shelf.manifests, ignore_errors=True)
        put_model(self.store, "tiny:latest", 134_515_008, "Q4_1")
        put_model(self.store, "gemma3:270m", 268_098_176, "Q4_K_M", licence="gemma", context=32768)

    def says(self, *pieces: str, **more: Any) -> None:
        self.fleet.script_or_function = Script(pieces, **more)

    def answers(self, function: Callable[[Generation], Script]) -> None:
        self.fleet.script_or_function = function


def put_model(store: Store, name: str, parameters: int, quantization: str, **more: Any) -> None:
    """A model in the store, by its manifest alone."""
    bits = {"Q4_1": 5.8, "Q4_K_M": 4.9, "Q8_0": 8.5}[quantization]
    size = int(parameters * bits / 8)
    manifest = Manifest(
        name=name,
        created=datetime(2026, 1, 2, tzinfo=UTC),
        source=Source(ref=f"hf:example/{name.partition(':')[0]}"),
        facts=Facts(
            format="gguf",
            parameters=parameters,
            size_class=size_class(parameters),
            quantization=quantization,
            **{"family": "llama", "context": 8192, "licence": "apache-2.0", **more},
        ),
        files=(FileRecord(name="w.gguf", role="weights", size=size, sha256="ab" * 32),),
    )
    base, _, tag = name.partition(":")
    path = store.home / "manifests" / base / tag / "manifest.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(manifest.to_json())


@contextmanager
def running_site(home: Path, *, real: bool = False) -> Iterator[Site]:
    """A server on a free port of this machine; ``real`` has no routes but its own."""
    names = {
        name: replace(FACTS, name=name) for name in ("tiny:latest", "gemma3:270m", "qwen3:0.6b")
    }
    site = Site("", PinningFleet(names=names), Store(home))
    site.reset()
    app = make_app(_services(site)) if real else _app(site)
    config = uvicorn.Config(app, port=0, log_level="error", lifespan="off")
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    while not server.started:
        thread.join(0.01)
        assert thread.is_alive(), "the server has not started"
    site.url = f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"
    try:
        yield site
    finally:
        server.should_exit = server.force_exit = True
        thread.join(10)


def _app(site: Site) -> FastAPI:
    """The server as it is, behind the few routes that say what the test wants."""
    app = FastAPI()

    @app.middleware("http")
    async def keys(request: Request, call_next: Any) -> Response:
        path = request.url.path
        free = path == "/" or path.startswith("/page/static/")
        if site.locked and not free and request.headers.get("authorization") != f"Bearer {KEY}":
            return failure(path, 401, "this server wants an API key")
        response: Response = await call_next(request)
        return response

    @app.post("/v1/chat/completions")
    async def chat(request: Request) -> Response:
        body = await request.json()
        site.bodies.append(body)
        options = {"max_tokens": body["max_tokens"]} if "max_tokens" in body else {}
        generation = Generation(prompt=ChatPrompt(messages=body["messages"]), options=options)
        error = site.fleet.script(generation).refuses
        if error is not None:
            return failure(request.url.path, error.http_status, str(error))
        return event_stream(_events(site, body["model"], generation))

    @app.post("/api/pull")
    async def pull(request: Request) -> Response:
        lines = _pulled(site, (await request.json())["model"])
        return StreamingResponse(lines, media_type="application/x-ndjson")

    @app.delete("/api/delete")
    async def delete(request: Request) -> Response:
        name = (await request.json())["model"]
        site.store.shelf.manifest_path(site.store._stored(name)).unlink()
        site.deleted.append(name)
        return Response()

    app.mount("/", make_app(_services(site)))
    return app


def _services(site: Site) -> Services:
    return Services(site.fleet, site.store, ServeConfig())


async def _events(site: Site, model: str, generation: Generation) -> AsyncIterator[bytes]:
    def chunk(delta: dict[str, Any], reason: str | None = None) -> bytes:
        return sse_event({"choices": [{"index": 0, "delta": delta, "finish_reason": reason}]})

    try:
        async with (
            site.fleet.use(model) as served,
            served.answer(generation) as answer,
        ):
            yield chunk({"role": "assistant", "content": ""})
            async for piece in answer:
                thought = piece.text.startswith(REASONING)
                name = "reasoning_content" if thought else "content"
                yield chunk({name: piece.text.removeprefix(REASONING)})
            ended = answer.ended
            assert ended is not None
            yield chunk({}, ended.reason)
            usage = {
                "prompt_tokens": ended.prompt_tokens,
                "completion_tokens": ended.completion_tokens,
            }
            yield sse_event({"choices": [], "usage": usage})
            yield b"data: [DONE]\n\n"
    except PocketLMError as error:
        yield sse_event({"error": {"message": str(error)}})
    except (asyncio.CancelledError, GeneratorExit):
        site.stopped.append("chat")
        raise


async def _pulled(site: Site, name: str) -> AsyncIterator[bytes]:
    try:
        for line in site.pulls:
            while line is None and not site.go.is_set():
                await asyncio.sleep(0.01)
            if line is not None:
                yield json_line(line)
    except (asyncio.CancelledError, GeneratorExit):
        site.stopped.append("pull")
        raise
    if site.pulls[-1] == {"status": "success"}:
        put_model(site.store, name, 596_049_920, "Q8_0")
