"""The main thread of a worker: takes in what was asked, computes a step, sends what it brought.

All pieces of a step go in one message, and those of steps that follow each other within
milliseconds too: every message wakes the front process, and the client, on the processors that
compute. Where nothing is asked it waits without using the processor.
"""

from __future__ import annotations

import logging
import time
from collections import deque
from collections.abc import Callable, Generator
from dataclasses import dataclass, field
from queue import Empty, SimpleQueue
from typing import Any

from pocketlm.engine.answer import Prompt
from pocketlm.engine.constraint import Constraint
from pocketlm.engine.context import Overflow
from pocketlm.engine.engine import Engine, Output
from pocketlm.engine.request import Request, TokenLogprobs
from pocketlm.engine.runner import Floats
from pocketlm.engine.sampling import SamplingParams
from pocketlm.engine.score import embed_steps
from pocketlm.errors import CapacityError, PocketLMError
from pocketlm.serve.wire import Score, error_record, score_record, vector_record
from pocketlm.serve.worker.port import Port
from pocketlm.text import StreamDecoder

_log = logging.getLogger(__name__)

# Pieces wait at most this long for those of the steps that follow: a quarter of what a screen needs
# to show one.
_GATHER_S = 0.004


@dataclass(frozen=True)
class Asked:
    """A request in tokens, ready for the engine."""

    id: int
    prompt: Prompt
    tail: str
    params: SamplingParams
    decoder: StreamDecoder
    overflow: Overflow
    context: int | None
    constraint: Constraint | None
    prompt_logprobs: int | None


@dataclass
class Texts:
    """Texts in tokens, of which vectors are wanted; those that are there, and the one under way."""

    id: int
    tokens: list[list[int]]
    vectors: list[str] = field(default_factory=list)
    steps: Generator[bool, None, Floats] | None = None


class EngineLoop:
    """Owns the engine. ``put`` and ``cancel`` may be called by any thread.

    Args:
        token_bytes: what a token says.
    """

    def __init__(self, engine: Engine, port: Port, token_bytes: Callable[[int], bytes]) -> None:
        self._engine = engine
        self._port = port
        self._token_bytes = token_bytes
        self._inbox: SimpleQueue[Callable[[], None]] = SimpleQueue()
        self._wanted: dict[int, bool] = {}  # by id; False once it is cancelled
        self._requests: dict[int, Request] = {}
        self._ids: dict[Request, int] = {}
        self._scoring: dict[Request, Asked] = {}  # begun, but for the scores of their prompts
        self._texts: deque[Texts] = deque()
        self._pieces: dict[int, list[Any]] = {}  # of steps that were not told of yet, by id
        self._step_tokens: list[int] = []  # of those steps
        self._told = 0.0

    # From other threads

    def expect(self, id: int) -> None:
        """A request with this id will be put, unless ``dropped``."""
        self._wanted[id] = True

    def dropped(self, id: int) -> None:
        """It will not be put."""
        self._wanted.pop(id, None)

    def put(self, asked: Asked | Texts) -> None:
        """Begins a request as soon as the step under way is done."""
        if isinstance(asked, Asked):
            self._inbox.put(lambda: self._add(asked))
        else:
            self._inbox.put(lambda: self._texts.append(asked))

    def cancel(self, id: int) -> None:
        """Ends a request as soon as the step under way is done, wherever it is."""
        if id in self._wanted:
            self._wanted[id] = False
            self._inbox.put(lambda: self._abort(id))

    # The main thread

    def run(self) -> None:
        """Never returns; the process ends when its channel does."""
        while True:
            self._take_in()
            if self._engine.busy:
                self._step()
            if self._texts:
                self._embed()

    def _take_in(self) -> None:
        try:
            if not self._engine.busy and not self._texts:
                self._inbox.get()()
            while True:
                self._inbox.get_nowait()()
        except Empty:
            return

    def _add(self, asked: Asked) -> None:
        if not self._wanted[asked.id]:
            del self._wanted[asked.id]
            return
        try:
            request = self._engine.add(
                asked.prompt.tokens,
                asked.params,
                decoder=asked.decoder,
                on_overflow=asked.overflow,
                keep=asked.prompt.keep,
                context=asked.context,
                constraint=asked.constraint,
                prompt_logprobs=asked.prompt_logprobs,
            )
        except PocketLMError as error:
            del self._wanted[asked.id]
            self._port.fail(asked.id, error)
            return
        self._requests[asked.id] = request
        self._ids[request] = asked.id
        if asked.prompt_logprobs is None:
            self._port.send({"started": _started(asked, request)})
        else:
            self._scoring[request] = asked

    def _abort(self, id: int) -> None:
        request = self._requests.get(id)
        if request is not None:
            self._engine.abort(request)
            self._forget(id)

    def _forget(self, id: int) -> None:
        self._wanted.pop(id, None)
        request = self._requests.pop(id, None)
        if request is not None:
            del self._ids[request]
            self._scoring.pop(request, None)

    def _step(self) -> None:
        try:
            outputs = self._engine.step()
        except Exception as error:
            self._recover(error)
            return
        due = not self._engine.busy
        for output in outputs:
            id = self._ids[output.request]
            if output.request in self._scoring:
                self._scored_prompt(output.request)
            piece = self._pieces.setdefault(id, [id, "", [], [], None])
            piece[1] += output.text
            if output.token is not None:
                piece[2].append(output.token)
            if output.logprobs is not None and output.token is not None:
                piece[3].append(self._scored(output.token, output.logprobs))
            if output.finish_reason is not None:
                piece[4] = _ended(output)
                self._forget(id)
                due = True
        self._step_tokens.append(self._engine.stats().step_tokens)
        if due or time.perf_counter() - self._told >= _GATHER_S:
            self._tell()

    def _tell(self) -> None:
        """Sends what the steps since the last time brought."""
        pieces, self._pieces = [*self._pieces.values()], {}
        tokens, self._step_tokens = self._step_tokens, []
        self._port.send({"step": pieces, "tokens": tokens, "load": self._load()})
        self._told = time.perf_counter()

    def _recover(self, error: Exception) -> None:
        """All requests end; the engine begins anew with an empty cache."""
        _log.error("a step of the engine failed", exc_info=error)
        self._tell()
        while self._texts:
            texts = self._texts.popleft()
            self._forget(texts.id)
            self._port.fail(texts.id, PocketLMError(f"the engine failed on a step: {error}"))
        for request in self._engine.reset():
            id = self._ids.get(request)
            if id is not None:
                self._forget(id)
                self._port.fail(id, PocketLMError(f"the engine failed on a step: {error}"))

    def _load(self) -> list[int]:
        """Requests that run, that wait, and positions of the KV cache that are held."""
        scheduler, cache = self._engine.scheduler, self._engine.cache
        used = max(pool.count - pool.free for pool in cache.pools) * cache.block_size
        return [len(scheduler.running), len(scheduler.waiting), used]

    def _scored_prompt(self, request: Request) -> None:
        """A request whose prompt was to be scored begins with its scores."""
        asked = self._scoring.pop(request)
        tokens = request.tokens[1 : request.prompt_tokens]
        pairs = zip(tokens, request.prompt_scores, strict=True)
        scores = [None, *(self._scored(token, found) for token, found in pairs)]
        self._port.send({"started": {**_started(asked, request), "prompt_scores": scores}})

    def _scored(self, token: int, logprobs: TokenLogprobs) -> list[Score]:
        pairs = [(token, logprobs.logprob), *logprobs.best]
        return [score_record(id, value, self._token_bytes(id)) for id, value in pairs]

    def _embed(self) -> None:
        """One step of the texts that came first; between any two the answers have one of theirs."""
        texts = self._texts[0]
        try:
            if self._wanted[texts.id] and not self._advance(texts):
                return
            if self._wanted[texts.id]:
                counts = [len(tokens) for tokens in texts.tokens]
                result = {"vectors": texts.vectors, "tokens": counts}
                self._port.send({"result": {"id": texts.id, "value": result}})
        except PocketLMError as error:
            self._port.fail(texts.id, error)
        if texts.steps is not None:
            texts.steps.close()
        self._texts.popleft()
        self._forget(texts.id)

    def _advance(self, texts: Texts) -> bool:
        """Whether all its vectors are there now."""
        if len(texts.vectors) == len(texts.tokens):
            return True
        if texts.steps is None:
            texts.steps = embed_steps(self._engine, texts.tokens[len(texts.vectors)])
        try:
            advanced = next(texts.steps)
        except StopIteration as done:
            texts.vectors.append(vector_record(done.value.tobytes()))
            texts.steps = None
            return len(texts.vectors) == len(texts.tokens)
        if not advanced and not self._engine.busy:
            raise CapacityError("the text does not fit the free blocks of the KV cache")
        return False


def _started(asked: Asked, request: Request) -> dict[str, Any]:
    """The fields of ``generation.Started``, and the id."""
    return {
        "id": asked.id,
        "prompt_tokens": request.prompt_tokens,
        "prompt_tail": asked.tail,
        "prompt_ids": request.tokens[: request.prompt_tokens],
        "dropped_tokens": asked.prompt.dropped_tokens + request.dropped,
        "dropped_messages": asked.prompt.dropped_messages,
        "seed": asked.params.seed or 0,
    }


def _ended(output: Output) -> dict[str, Any]:
    """The fields of ``generation.Ended``, or the error."""
    request, timing = output.request, output.request.timing
    if output.error is not None:
        error = output.error
        if not isinstance(error, PocketLMError):
            error = PocketLMError(f"the answer could not go on: {error}")
        return {"error": error_record(error)}
    admitted = timing.admitted or timing.arrived
    first = timing.first_token or admitted
    return {
        "reason": output.finish_reason,
        "stop": None if request.decoder is None else request.decoder.stopped,
        "prompt_tokens": request.prompt_tokens,
        "cached_tokens": request.cached,
        "completion_tokens": len(request.tokens) - request.prompt_tokens,
        "drafted_tokens": request.drafted,
        "accepted_tokens": request.accepted,
        "preemptions": request.preemptions,
        "queue_s": admitted - timing.arrived,
        "prefill_s": first - admitted,
        "decode_s": (timing.last_token or first) - first,
    }
