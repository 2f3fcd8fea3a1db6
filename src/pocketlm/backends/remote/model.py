"""A remote model that answers conversations, piece by piece, as a local one does.

A thread reads the endpoint and the caller reads the thread, so that a caller who stops waiting
stops at once, whatever the endpoint does.
"""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pocketlm.backends.remote.connection import Connection, RefusedError
from pocketlm.backends.remote.events import events
from pocketlm.errors import BusyError, RequestError, SourceError
from pocketlm.store.remote_refs import RemoteRef, parse_remote

# Sampling options that the chat-completions API has; its ranges are the endpoint's to check.
HONOURED = (
    "max_tokens", "temperature", "top_p", "frequency_penalty", "presence_penalty", "seed", "stop",
)  # fmt: skip
_MAX_STOPS = 4
_POLL_S = 0.05
# Fields that some endpoints refuse, and what is sent instead: newer models of OpenAI want another
# name, older servers cannot count tokens in a stream.
_INSTEAD = {"max_tokens": "max_completion_tokens", "stream_options": None}


@dataclass(frozen=True, slots=True)
class RemoteStats:
    """What an answer cost, as far as the endpoint tells; the times are ours and hold the network's.

    Attributes:
        model: what the endpoint calls the model that answered.
        prompt_tokens, cached_tokens, completion_tokens: by the endpoint's count.
        reasoning_tokens: of the completion's, those that are not shown.
        ttft_s: seconds from the call to the first piece.
        decode_tps: tokens after the first in a second.
        total_s: seconds from the call to the end.
        seed: that was sent.
    """

    model: str | None
    prompt_tokens: int | None
    cached_tokens: int | None
    completion_tokens: int | None
    reasoning_tokens: int | None
    ttft_s: float | None
    decode_tps: float | None
    total_s: float
    seed: int | None


@dataclass(frozen=True, slots=True)
class Piece:
    """A piece of an answer. ``finish_reason`` and ``stats`` come with the last one."""

    text: str
    finish_reason: str | None = None
    stats: RemoteStats | None = None


@dataclass(frozen=True, slots=True)
class Reply:
    """A whole answer. ``finish_reason``: stop, length, content_filter, cancelled or another word of
    the endpoint's."""

    text: str
    finish_reason: str
    stats: RemoteStats


def collect(pieces: Iterable[Piece]) -> Reply:
    """The whole answer."""
    texts = []
    for piece in pieces:
        texts.append(piece.text)
    assert piece.finish_reason is not None, "an answer without an end"
    assert piece.stats is not None, "an answer without its stats"
    return Reply("".join(texts), piece.finish_reason, piece.stats)


class RemoteModel:
    """A model behind an endpoint; a context manager that ends its connections.

    Raises RequestError for what is no ref of a remote model. Nothing is sent before it is asked.
    """

    def __init__(self, ref: str | RemoteRef) -> None:
        self.ref = parse_remote(ref) if isinstance(ref, str) else ref
        self.name = str(self.ref)
        self.connection = Connection(self.ref)

    def __enter__(self) -> RemoteModel:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def close(self) -> None:
        self.connection.close()

    def stream(
        self,
        messages: str | Sequence[Mapping[str, str]],
        *,
        cancel: threading.Event | None = None,
        patience_s: float = 0.0,
        **options: Any,
    ) -> Iterator[Piece]:
        """The answer to a conversation piece by piece; closing the iterator stops it.

        Args:
            messages: a conversation; a string is one message of the user.
            cancel: ends the answer with "cancelled" when set.
            patience_s: seconds to wait in all where the endpoint asks to come back later.
            options: those of ``HONOURED``; what is not given is the endpoint's to choose.

        Raises RequestError for an option that a remote model has not and for what the endpoint
        refuses, BusyError where it asks to wait longer, SourceError where there is no answer.
        """
        if isinstance(messages, str):
            messages = [{"role": "user", "content": messages}]
        for message in messages:
            try:
                message["content"].encode()
            except UnicodeEncodeError as error:
                raise RequestError("the message has bytes that are no text in UTF-8") from error
        body: dict[str, Any] = {
            "model": self.ref.model,
            "messages": [dict(message) for message in messages],
            "stream": True,
            "stream_options": {"include_usage": True},
            **checked(options),
        }
        pieces = self._pieces(body, cancel or threading.Event(), patience_s)
        next(pieces)  # so that what the endpoint refuses is raised here, not at the first piece
        return pieces

    def _pieces(
        self, body: dict[str, Any], cancel: threading.Event, patience_s: float
    ) -> Iterator[Piece]:
        answer = _Answer(body.get("seed"))
        inbox: queue.SimpleQueue[_Mail] = queue.SimpleQueue()
        stopped = threading.Event()
        threading.Thread(
            target=self._read, args=(body, inbox, stopped, patience_s), daemon=True
        ).start()
        opened = False
        try:
            while not answer.ended:
                if cancel.is_set():
                    answer.finish_reason = "cancelled"
                    break
                try:
                    mail = inbox.get(timeout=_POLL_S)
                except queue.Empty:
                    continue
                if isinstance(mail, BaseException):
                    raise mail
                if not opened:
                    opened = True
                    yield Piece("")
                if text := answer.take(mail):
                    yield Piece(text)
            if not opened:
                yield Piece("")
            yield answer.last()
        finally:
            stopped.set()

    def _read(
        self,
        body: dict[str, Any],
        inbox: queue.SimpleQueue[_Mail],
        stopped: threading.Event,
        patience_s: float,
    ) -> None:
        """In its thread: the endpoint's objects into the inbox, None at their end."""
        try:
            while True:
                try:
                    self._receive(body, inbox, stopped)
                    break
                except RefusedError as error:
                    if not _replace(body, error):
                        raise
                except BusyError as error:
                    patience_s -= max(error.retry_after, 0.1)
                    if patience_s < 0 or stopped.wait(max(error.retry_after, 0.1)):
                        raise
            inbox.put(None)
        except Exception as error:  # whatever it is, the caller has to learn of it
            inbox.put(error)

    def _receive(
        self, body: Mapping[str, Any], inbox: queue.SimpleQueue[_Mail], stopped: threading.Event
    ) -> None:
        import httpx

        with self.connection.post("chat/completions", body) as response:
            kind = response.headers.get("content-type", "").partition(";")[0].strip().lower()
            if kind not in ("text/event-stream", "application/json"):
                raise SourceError(
                    f"{self.ref.host} answered with '{kind or 'nothing'}', expected a completion",
                    hint="Is it the address of an OpenAI-compatible API? It often ends in /v1.",
                )
            try:
                for event in events(response.iter_raw(), streamed=kind == "text/event-stream"):
                    if stopped.is_set():
                        return
                    inbox.put(event)
            except (httpx.TransportError, httpx.StreamError, OSError) as error:
                raise self.connection.broken(error) from error


_Mail = dict[str, Any] | Exception | None


class _Answer:
    """What has come of an answer so far."""

    def __init__(self, seed: int | None) -> None:
        self.finish_reason: str | None = None
        self.ended = False
        self._seed = seed
        self._model: str | None = None
        self._usage: dict[str, Any] = {}
        self._began = time.perf_counter()
        self._first: float | None = None
        self._latest = self._began

    def take(self, event: dict[str, Any] | None) -> str:
        """The new text of one object; None is the end.

        Raises SourceError for an error that the endpoint sends in between and for an answer that
        ends without saying why.
        """
        if event is None:
            self.ended = True
            if self.finish_reason is None:
                raise SourceError("the endpoint's answer broke off before its end")
            return ""
        if error := event.get("error"):
            said = error.get("message") if isinstance(error, dict) else error
            raise SourceError(f"the endpoint broke off its answer: {str(said)[:400]}")
        usage, model = event.get("usage"), event.get("model")
        if isinstance(usage, dict):
            self._usage = usage
        if isinstance(model, str) and model:
            self._model = model[:200]
        choices = event.get("choices")
        if not isinstance(choices, list) or not choices or not isinstance(choices[0], dict):
            return ""  # Azure sends the verdict on the prompt, and usage, in objects without any
        choice = choices[0]
        reason = choice.get("finish_reason")
        if isinstance(reason, str):
            self.finish_reason = reason[:40]
        delta = choice.get("delta") or choice.get("message")
        if not isinstance(delta, dict):
            return ""
        text = delta.get("content")
        text = text if isinstance(text, str) else ""
        if text or delta.get("reasoning_content"):
            self._latest = time.perf_counter()
            self._first = self._first or self._latest
        return text

    def last(self) -> Piece:
        assert self.finish_reason is not None
        count = _count(self._usage, "completion_tokens")
        ttft = speed = None
        if self._first is not None:
            ttft, seconds = self._first - self._began, self._latest - self._first
            if count is not None and count > 1 and seconds > 0:
                speed = (count - 1) / seconds
        stats = RemoteStats(
            model=self._model,
            prompt_tokens=_count(self._usage, "prompt_tokens"),
            cached_tokens=_count(self._usage.get("prompt_tokens_details"), "cached_tokens"),
            completion_tokens=count,
            reasoning_tokens=_count(
                self._usage.get("completion_tokens_details"), "reasoning_tokens"
            ),
            ttft_s=ttft,
            decode_tps=speed,
            total_s=time.perf_counter() - self._began,
            seed=self._seed,
        )
        return Piece("", self.finish_reason, stats)


def _count(usage: object, name: str) -> int | None:
    value = usage.get(name) if isinstance(usage, dict) else None
    return value if isinstance(value, int) and not isinstance(value, bool) and value >= 0 else None


def _replace(body: dict[str, Any], error: RefusedError) -> bool:
    """Sends something else for a field that the endpoint refuses, where there is such a thing."""
    for name, instead in _INSTEAD.items():
        if name in body and (error.parameter == name or f"'{name}'" in error.message):
            value = body.pop(name)
            if instead is not None:
                body[instead] = value
            return True
    return False


def checked(options: Mapping[str, Any]) -> dict[str, Any]:
    """The options as the API takes them.

    Raises RequestError naming those that a remote model has not, and for values out of range.
    """
    from pocketlm.engine.sampling import resolve

    given = {name: value for name, value in options.items() if value is not None}
    resolve(given)  # names that nobody has, and ranges
    if other := [name for name in given if name not in HONOURED]:
        raise RequestError(
            f"a remote model has no option {', '.join(other)}",
            hint=f"The chat-completions API has {', '.join(HONOURED)}.",
        )
    if "stop" in given:
        stops = [given["stop"]] if isinstance(given["stop"], str) else list(given["stop"])
        if len(stops) > _MAX_STOPS:
            raise RequestError(f"a remote model takes {_MAX_STOPS} stop strings, not {len(stops)}")
        given["stop"] = stops
    return given
