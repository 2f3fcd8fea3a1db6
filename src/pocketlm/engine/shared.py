"""One engine for several threads, without a thread of its own.

Whoever waits for an output and finds the engine at rest takes the next step, for everybody; the
others find their outputs in their inboxes. So a single caller pays for no hand-over, and many
callers are batched.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from pocketlm.engine.context import Overflow
from pocketlm.engine.engine import Engine, Output
from pocketlm.engine.request import Decoder, FinishReason, Request
from pocketlm.engine.sampling import SamplingParams


class SharedEngine:
    """Thread-safe access to an engine."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._turn = threading.Condition()
        self._taken = False  # somebody is inside the engine
        self._waiting = 0  # threads that wait for a turn or an output
        self._wanting = 0  # threads that wait for something else than a step; they go first
        self._inboxes: dict[int, deque[Output]] = {}

    @contextmanager
    def exclusive(self) -> Iterator[Engine]:
        """The engine, with nobody else inside it and no step under way."""
        with self._turn:
            self._wanting += 1
            try:
                while self._taken:
                    self._wait()
            finally:
                self._wanting -= 1
            self._taken = True
        try:
            yield self._engine
        finally:
            self._leave()

    def submit(
        self,
        prompt: Sequence[int],
        params: SamplingParams,
        *,
        decoder: Decoder | None = None,
        on_overflow: Overflow = "error",
        keep: int = 0,
        context: int | None = None,
    ) -> Request:
        """``Engine.add``. The caller reads ``outputs`` and calls ``release`` in the end."""
        with self.exclusive() as engine:
            request = engine.add(
                prompt,
                params,
                decoder=decoder,
                on_overflow=on_overflow,
                keep=keep,
                context=context,
            )
            self._inboxes[request.id] = deque()
            return request

    def outputs(self, request: Request, cancel: threading.Event | None = None) -> Iterator[Output]:
        """What a submitted request brings, to its end.

        Where ``cancel`` is set, that ends with the finish reason "cancelled", after the step that
        is under way and what it and earlier ones brought. An error of the runner is raised in the
        thread whose step it was, and ends all other requests with "error".
        """
        inbox = self._inboxes[request.id]
        last: FinishReason | None = None
        while last is None:
            if cancel is not None and cancel.is_set():
                self._cancel(request)
                cancel = None
            if not inbox:
                self._step(inbox)
                continue
            output = inbox.popleft()
            last = output.finish_reason
            yield output

    def _cancel(self, request: Request) -> None:
        with self.exclusive() as engine:
            if request.finish_reason is None:
                engine.abort(request)
                ended = Output(request, None, "", finish_reason="cancelled")
                self._inboxes[request.id].append(ended)

    def release(self, request: Request) -> None:
        """The caller has read enough: aborts what is not finished."""
        with self.exclusive() as engine:
            engine.abort(request)
            del self._inboxes[request.id]

    def _step(self, inbox: deque[Output]) -> None:
        """Takes a step, or waits until another thread has taken one."""
        with self._turn:
            if self._taken or self._wanting:
                self._wait()
            if inbox or self._taken or self._wanting:
                return
            self._taken = True
        try:
            for output in self._engine.step():
                self._inboxes[output.request.id].append(output)
        except BaseException as error:
            # Also a keyboard interrupt, which may have struck anywhere in the bookkeeping.
            for request in self._engine.reset():
                failure = RuntimeError(f"a step failed for another request: {error!r}")
                self._inboxes[request.id].append(
                    Output(request, None, "", finish_reason="error", error=failure)
                )
            raise
        finally:
            self._leave()

    def _leave(self) -> None:
        with self._turn:
            self._taken = False
            if self._waiting:
                self._turn.notify_all()

    def _wait(self) -> None:
        self._waiting += 1
        try:
            self._turn.wait()
        finally:
            self._waiting -= 1
