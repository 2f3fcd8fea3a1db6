"""A model in a worker process, as the APIs ask it: ``generation.ServedModel``."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

from pocketlm.errors import BusyError, PocketLMError
from pocketlm.serve.fleet.process import Worker
from pocketlm.serve.generation import (
    Embeddings,
    Ended,
    Generation,
    ModelFacts,
    Piece,
    Prompt,
    Started,
)
from pocketlm.serve.wire import (
    generation_record,
    prompt_record,
    read_error,
    read_scored,
    read_vector,
)


@dataclass
class RemoteModel:
    """``most``: requests that may be open at once, running and waiting."""

    facts: ModelFacts
    load_s: float
    worker: Worker
    most: int

    @asynccontextmanager
    async def answer(self, generation: Generation) -> AsyncIterator[RemoteAnswer]:
        self._admit()
        answer = RemoteAnswer()
        id = self.worker.begin("answer", answer, generation=generation_record(generation))
        try:
            await answer.start()
            yield answer
        finally:
            self.worker.forget(id)

    async def embed(
        self, inputs: Sequence[str | Sequence[int]], *, truncate: bool = False
    ) -> Embeddings:
        found = await self._call("embed", inputs=inputs, truncate=truncate)
        vectors = [read_vector(vector) for vector in found["vectors"]]
        return Embeddings(vectors=vectors, tokens=found["tokens"])

    async def tokenize(self, prompt: Prompt) -> tuple[list[int], list[bytes]]:
        tokens, texts = await self._call("tokenize", prompt=prompt_record(prompt))
        return tokens, [text.encode("latin-1") for text in texts]

    async def detokenize(self, tokens: Sequence[int]) -> str:
        text: str = await self._call("detokenize", tokens=tokens)
        return text

    async def _call(self, op: str, **fields: Any) -> Any:
        self._admit()
        call = _Call()
        id = self.worker.begin(op, call, **fields)
        try:
            return await call.done
        finally:
            self.worker.forget(id)

    def _admit(self) -> None:
        """Raises BusyError where too many wait already."""
        waiting = self.worker.open_requests
        if waiting >= self.most:
            raise BusyError(
                f"{waiting:,} requests of {self.facts.name} are open, more cannot wait",
                retry_after=2.0,
            )


class _Call:
    """A request with one result."""

    def __init__(self) -> None:
        self.done: asyncio.Future[Any] = asyncio.get_running_loop().create_future()

    def result(self, value: Any) -> None:
        if not self.done.done():
            self.done.set_result(value)

    def failed(self, error: PocketLMError) -> None:
        if not self.done.done():
            self.done.set_exception(error)

    def begun(self, started: Mapping[str, Any]) -> None:
        raise ValueError("a result was expected")

    def piece(self, record: Sequence[Any]) -> None:
        raise ValueError("a result was expected")


class RemoteAnswer:
    """An answer under way: ``generation.Answer``.

    Pieces that come while the last ones are still being written leave as one: a client that reads
    slowly costs no more than its text.
    """

    started: Started
    ended: Ended | None = None

    def __init__(self) -> None:
        self._records: list[Sequence[Any]] = []
        self._error: PocketLMError | None = None
        self._awaited: asyncio.Future[None] | None = None
        self._begun = False

    # What the worker says

    def begun(self, started: Mapping[str, Any]) -> None:
        fields = {name: value for name, value in started.items() if name != "id"}
        scores = fields.get("prompt_scores")
        if scores is not None:
            fields["prompt_scores"] = [None if s is None else read_scored(s) for s in scores]
        self.started = Started(**fields)
        self._begun = True
        self._wake()

    def piece(self, record: Sequence[Any]) -> None:
        self._records.append(record)
        self._wake()

    def failed(self, error: PocketLMError) -> None:
        self._error = error
        self._wake()

    def result(self, value: Any) -> None:
        raise ValueError("pieces were expected")

    def _wake(self) -> None:
        if self._awaited is not None and not self._awaited.done():
            self._awaited.set_result(None)

    # What an API asks

    async def start(self) -> None:
        """Returns once ``started`` is set; raises why there is no answer."""
        while not self._begun:
            if self._error is not None:
                raise self._error
            await self._news()

    async def __aiter__(self) -> AsyncIterator[Piece]:
        while self.ended is None:
            while not self._records:
                if self._error is not None:
                    raise self._error
                await self._news()
            records, self._records = self._records, []
            piece = _piece(records)
            end = records[-1][4]
            if end is not None and "error" in end:
                if piece.text or piece.tokens:
                    yield piece
                raise read_error(end["error"])
            yield piece
            if end is not None:
                self.ended = Ended(**end)

    async def _news(self) -> None:
        self._awaited = asyncio.get_running_loop().create_future()
        try:
            await self._awaited
        finally:
            self._awaited = None


def _piece(records: Sequence[Sequence[Any]]) -> Piece:
    """One piece of all records: [id, text, tokens, scores, end]."""
    scores = [read_scored(score) for record in records for score in record[3]]
    return Piece(
        "".join(record[1] for record in records),
        tuple(token for record in records for token in record[2]),
        tuple(scores) if scores else None,
    )
