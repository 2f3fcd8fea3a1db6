"""A worker process seen from the front: started, spoken to, ended; and what happens if it dies."""

from __future__ import annotations

import asyncio
import os
import socket
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from typing import Any, Protocol, cast

from pocketlm.errors import PocketLMError, WorkerError
from pocketlm.serve.channel import Frames, frame
from pocketlm.serve.wire import read_error
from pocketlm.serve.worker.order import Order

COMMAND = (sys.executable, "-m", "pocketlm.serve.worker")

_ENDING_S = 5.0  # from the close of the channel to a SIGKILL


class Listener(Protocol):
    """Whoever waits for what a worker says about one request."""

    def begun(self, started: Mapping[str, Any]) -> None: ...
    def piece(self, record: Sequence[Any]) -> None: ...
    def result(self, value: Any) -> None: ...
    def failed(self, error: PocketLMError) -> None: ...


class Worker(asyncio.Protocol):
    """One process and its channel.

    Attributes:
        pid: of the process.
        load: requests that run, that wait, positions held of the KV cache; as of the last step.
        stepped: told how many tokens each step had, of prompts and of answers.
        gone: done once the process has ended and its memory is back.
        prompt_tokens, output_tokens: of all requests so far.
        expected: whether it was told to end.
        code: its exit status, negative for a signal; None while it lives.
    """

    def __init__(self, name: str) -> None:
        self.name = name
        self.pid = 0
        self.load: Sequence[int] = (0, 0, 0)
        self.stepped: Callable[[int], None] = lambda tokens: None
        self.prompt_tokens = self.output_tokens = 0
        self.expected = False
        self.code: int | None = None
        self.gone: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._frames = Frames()
        self._listeners: dict[int, Listener] = {}
        self._next = 0
        self._reply: asyncio.Future[Any] | None = None  # to open and load
        self._transport: asyncio.Transport | None = None
        self._watch: asyncio.Task[None] | None = None

    @classmethod
    async def start(cls, name: str, command: Sequence[str] = COMMAND) -> Worker:
        """A new process; ``name`` is for messages."""
        loop = asyncio.get_running_loop()
        worker = cls(name)
        ours, its = socket.socketpair()
        try:
            process = await asyncio.create_subprocess_exec(
                *command,
                str(its.fileno()),
                pass_fds=(its.fileno(),),
                stdin=asyncio.subprocess.DEVNULL,
                env={**os.environ, "OPENBLAS_NUM_THREADS": "1"},
            )
        except BaseException:
            ours.close()
            raise
        finally:
            its.close()
        worker.pid = process.pid
        worker._watch = loop.create_task(worker._until_gone(process))
        await loop.create_unix_connection(lambda: worker, sock=ours)
        return worker

    # What it is told

    async def open(self, order: Order) -> int:
        """Has it read the model's header; the bytes that the model will take.

        Raises the error that it finds, WorkerError if it dies of the file.
        """
        reply = await self._ask({"open": asdict(order)})
        return int(reply["plan"])

    async def ready(self) -> dict[str, Any]:
        """Has it load what it has opened; the model's facts. Raises as ``open``."""
        reply = await self._ask({"load": True})
        ready: dict[str, Any] = reply["ready"]
        return ready

    async def _ask(self, message: dict[str, Any]) -> dict[str, Any]:
        if self.code is not None or self._transport is None:
            raise self._death()
        self._reply = asyncio.get_running_loop().create_future()
        self._transport.write(frame(message))
        reply: dict[str, Any] = await self._reply
        if "failed" in reply:
            raise read_error(reply["failed"])
        return reply

    def begin(self, op: str, listener: Listener, **fields: Any) -> int:
        """Sends a request; the listener hears of it until ``forget``. Its id.

        Raises WorkerError where the process is dead, RequestError for what is too long to send.
        """
        if self._transport is None or self._transport.is_closing():
            raise self._death()
        self._next += 1
        data = frame({op: {"id": self._next, **fields}})
        self._listeners[self._next] = listener
        self._transport.write(data)
        return self._next

    def forget(self, id: int) -> None:
        """Nobody listens any more: what has not ended is cancelled."""
        if self._listeners.pop(id, None) is None:
            return
        if self._transport is not None and not self._transport.is_closing():
            self._transport.write(frame({"cancel": {"id": id}}))

    @property
    def open_requests(self) -> int:
        return len(self._listeners)

    async def end(self) -> None:
        """Ends the process and waits until its memory is back."""
        self.expected = True
        self._close()
        await asyncio.shield(self.gone)

    def _close(self) -> None:
        if self._transport is not None:
            self._transport.close()

    # What it says

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)  # uvloop's are no subclass

    def data_received(self, data: bytes) -> None:
        try:
            for message in self._frames.feed(data):
                self._hear(message)
        except (ValueError, TypeError, KeyError, IndexError, AttributeError):
            self._close()  # not one of our messages: whatever it is now, it is no worker

    def _hear(self, message: dict[str, Any]) -> None:
        if "step" in message:
            self.load = message["load"]
            for tokens in message["tokens"]:
                self.stepped(tokens)
            for piece in message["step"]:
                self.output_tokens += len(piece[2])
                listener = self._listeners.get(piece[0])
                if listener is None:
                    continue
                if piece[4] is not None:
                    del self._listeners[piece[0]]
                listener.piece(piece)
            return
        ((kind, value),) = message.items()
        if kind in ("plan", "ready", "failed"):
            if self._reply is not None and not self._reply.done():
                self._reply.set_result(message)
            return
        if kind == "started":
            self.prompt_tokens += value["prompt_tokens"]
            listener = self._listeners.get(value["id"])
            if listener is not None:
                listener.begun(value)
            return
        listener = self._listeners.pop(value["id"], None)
        if listener is None:
            return
        if kind == "error":
            listener.failed(read_error(value))
        else:
            listener.result(value["value"])

    def connection_lost(self, error: Exception | None) -> None:
        """The channel is closed, by us or because the process has died."""

    async def _until_gone(self, process: asyncio.subprocess.Process) -> None:
        """Waits for the process's end; one whose channel is closed has a few seconds for it."""
        ended = asyncio.ensure_future(process.wait())
        while not ended.done():
            await asyncio.wait({ended}, timeout=_ENDING_S)
            closing = self._transport is not None and self._transport.is_closing()
            if not ended.done() and closing:
                process.kill()
        self.code = ended.result()
        self._close()
        listeners, self._listeners = self._listeners, {}
        for listener in listeners.values():
            listener.failed(self._death())
        if self._reply is not None and not self._reply.done():
            self._reply.set_exception(self._death())
        self.gone.set_result(None)

    def _death(self) -> PocketLMError:
        how = "has ended"
        if self.code is not None and self.code < 0:
            how = f"was ended by signal {-self.code}"
        if self.expected:
            return WorkerError(f"the model {self.name} was unloaded before it had answered")
        return WorkerError(
            f"the process of the model {self.name} {how} before it had answered",
            hint="Ask again: the model is loaded anew.",
        )
