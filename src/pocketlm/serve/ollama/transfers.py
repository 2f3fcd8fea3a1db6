"""``/api/pull``, ``push`` and ``create``: long work in a thread, told in lines of progress."""

from __future__ import annotations

import asyncio
import threading
import time
from collections import deque
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from typing import Any

from fastapi import APIRouter, Request
from fastapi.responses import JSONResponse, Response

from pocketlm.creation import Creation, make
from pocketlm.errors import Cancelled, NotFoundError, RequestError, UnsupportedError
from pocketlm.progress import Progress
from pocketlm.serve.ollama.asked import ignored_header, unknown_fields
from pocketlm.serve.ollama.bodies import CreateBody, TransferBody
from pocketlm.serve.ollama.names import find_stored, ref_of, source_of, stored
from pocketlm.serve.ollama.options import read_options
from pocketlm.serve.ollama.streams import Line, stream_lines
from pocketlm.serve.replies import unless_gone
from pocketlm.serve.services import Services
from pocketlm.store.creating import Additions

_REPORT_S = 0.1  # between two lines of one status
_MOST_WAITING = 256  # lines for a client that reads slowly; the oldest go

Tell = Callable[[Line], None]
Work = Callable[[Tell], None]


def add_routes(routes: APIRouter, services: Services) -> None:
    """The three routes."""
    store = services.store

    @routes.post("/pull")
    async def pull(body: TransferBody, request: Request) -> Response:
        """Brings a model into the store."""
        ref = await asyncio.to_thread(source_of, body.called, services)

        def work(tell: Tell) -> None:
            tell({"status": "pulling manifest"})
            try:
                store.pull(ref, _reporter(tell, "pulling"))
            except NotFoundError as error:
                raise NotFoundError(f"pull model manifest: file does not exist: {error}") from error
            tell({"status": "verifying sha256 digest"})
            tell({"status": "writing manifest"})

        return await _respond(request, body, work)

    @routes.post("/push")
    async def push(body: TransferBody, request: Request) -> Response:
        """Puts a model onto the registry that its name says."""
        target = ref_of(body.called)
        model, _ = await asyncio.to_thread(stored, services, body.called)

        def work(tell: Tell) -> None:
            tell({"status": "retrieving manifest"})
            store.push(model.name, target, _reporter(tell, "pushing"))
            tell({"status": "pushing manifest"})

        return await _respond(request, body, work)

    @routes.post("/create")
    async def create(body: CreateBody, request: Request) -> Response:
        """Makes a model from one that is here or from blobs."""
        wanted = await asyncio.to_thread(_creation, services, body)

        def work(tell: Tell) -> None:
            if wanted.base is not None:
                tell({"status": f"using existing layer {wanted.base}"})
            make(store, wanted, _reporter(tell, "creating"))
            tell({"status": "writing manifest"})

        return await _respond(request, body, work)


def _creation(services: Services, body: CreateBody) -> Creation:
    if body.adapters:
        raise UnsupportedError("adapters (LoRA) are not applied; merge them into the weights first")
    base = None
    if body.from_ is not None:
        found = find_stored(services, body.from_)
        base = ref_of(body.from_) if found is None else found.name
    read_options(body.parameters)
    licences = [body.license] if isinstance(body.license, str) else body.license
    messages = [one.model_dump(exclude_none=True) for one in body.messages or ()]
    for message in messages:
        if message["role"] not in ("system", "user", "assistant"):
            raise RequestError(
                f"messages: the role is {message['role'][:40]!r}, "
                "expected system, user or assistant"
            )
    return Creation(
        name=ref_of(body.called),
        base=base,
        blobs=body.files or None,
        additions=Additions(
            template=body.template,
            system=body.system,
            params=body.parameters or {},
            messages=messages or None,
            licences=licences,
        ),
        quantize=body.quantize or None,
    )


async def _respond(request: Request, body: TransferBody | CreateBody, work: Work) -> Response:
    headers = ignored_header(unknown_fields(body))
    if body.stream is None or body.stream:
        return await stream_lines(request, _lines(work), headers)
    return JSONResponse(await unless_gone(request, _last(work)), headers=headers)


async def _last(work: Work) -> Line:
    async with aclosing(_lines(work)) as lines:
        return [line async for line in lines][-1]


async def _lines(work: Work) -> AsyncGenerator[Line, None]:
    """What ``work`` tells, then "success". Closing this stops it at its next word."""
    loop = asyncio.get_running_loop()
    waiting: deque[Line] = deque(maxlen=_MOST_WAITING)
    news = asyncio.Event()
    stopped = threading.Event()

    def arrived(line: Line) -> None:
        waiting.append(line)
        news.set()

    def tell(line: Line) -> None:
        if stopped.is_set():
            raise Cancelled("the client has gone")
        loop.call_soon_threadsafe(arrived, line)

    task = asyncio.ensure_future(asyncio.to_thread(work, tell))
    task.add_done_callback(lambda _: news.set())
    try:
        while not task.done() or waiting:
            while waiting:
                yield waiting.popleft()
            if not task.done():
                news.clear()
                await news.wait()
        await task
    finally:
        stopped.set()
        if not task.done():
            task.add_done_callback(_forget)
    yield {"status": "success"}


def _forget(task: asyncio.Future[Any]) -> None:
    """The thread has ended, and nobody wants to know how."""
    if not task.cancelled():
        task.exception()


def _reporter(tell: Tell, verb: str) -> Callable[[Progress], None]:
    """Progress as lines, a few a second for each status."""
    last: dict[str, float] = {}

    def report(progress: Progress) -> None:
        line = _line(progress, verb)
        now, status = time.monotonic(), str(line["status"])
        whole = progress.total is not None and progress.done >= progress.total
        if status not in last or whole or now - last[status] >= _REPORT_S:
            last[status] = now
            tell(line)

    return report


def _line(progress: Progress, verb: str) -> Line:
    moves = progress.task.startswith(("download ", "push "))
    if progress.sha256 is not None and moves:
        line: Line = {
            "status": f"{verb} {progress.sha256[:12]}",
            "digest": f"sha256:{progress.sha256}",
        }
    elif progress.task.startswith("check "):
        line = {"status": "verifying sha256 digest"}
    else:
        return {"status": progress.task, **_counted(progress)}
    return line | (_counted(progress) if moves else {})


def _counted(progress: Progress) -> Line:
    total = {} if progress.total is None else {"total": progress.total}
    return {**total, "completed": progress.done}
