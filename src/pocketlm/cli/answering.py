"""What ``run`` and ``chat`` share: an answer shown as it comes, Ctrl-C that stops it, its cost."""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import TYPE_CHECKING, Protocol, TypeVar

if TYPE_CHECKING:
    from pocketlm import Chunk, Completion, Model, Stats


class _HasText(Protocol):
    @property
    def text(self) -> str: ...


_Piece = TypeVar("_Piece", bound=_HasText)


def start_quickly() -> None:
    """To be called before numpy is imported: its BLAS then starts no threads.

    That takes as long as all of numpy otherwise, and answering multiplies nothing with it.
    """
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")


@contextmanager
def stop_on_interrupt() -> Iterator[threading.Event]:
    """An event that Ctrl-C sets; a second Ctrl-C while it is set interrupts as usual."""
    stopped = threading.Event()

    def handle(signum: int, frame: FrameType | None) -> None:
        if stopped.is_set():
            raise KeyboardInterrupt
        stopped.set()

    previous = signal.signal(signal.SIGINT, handle)
    try:
        yield stopped
    finally:
        signal.signal(signal.SIGINT, previous)


def show(chunks: Iterator[Chunk]) -> Completion:
    """Writes an answer to stdout as it comes, ends its last line, and returns it."""
    from pocketlm.engine.answer import collect

    return collect(written(chunks))


def written(pieces: Iterable[_Piece], clean: Callable[[str], str] = str) -> Iterator[_Piece]:
    """The pieces of an answer, each written to stdout as it passes; ends the last line.

    ``clean`` is what becomes of a text on its way there.
    """
    wrote = ""
    try:
        for piece in pieces:
            if piece.text:
                wrote = piece.text
                sys.stdout.write(clean(piece.text))
                sys.stdout.flush()
            yield piece
    finally:
        if not wrote.endswith("\n"):
            sys.stdout.write("\n")
            sys.stdout.flush()


def notices(
    completion: Completion,
    model: Model,
    max_tokens: int | None,
    *,
    limit: str = "--max-tokens",
) -> list[str]:
    """What the reader of an answer has to know: that it, or what it answers, is not whole.

    ``limit`` is how the reader would change max_tokens.
    """
    stats = completion.stats
    found = []
    if stats.dropped_messages or stats.dropped_tokens:
        what = f"{stats.dropped_tokens:,} of the oldest tokens"
        if stats.dropped_messages:
            what = f"the oldest {stats.dropped_messages} messages ({what})"
        found.append(f"left out {what} so that the rest fits the context of {model.context:,}")
    if completion.finish_reason == "length":
        if max_tokens is not None and stats.completion_tokens >= max_tokens:
            found.append(f"the answer was cut at {max_tokens:,} tokens ({limit})")
        else:
            found.append(
                f"the answer was cut: the context of {model.context:,} is full (--context)"
            )
    return found


def stats_lines(stats: Stats, reason: str, model: Model) -> list[str]:
    """The cost of an answer, for people."""
    from pocketlm.cli.output import harmless
    from pocketlm.engine.machine import peak_memory

    mib = 2**20
    memory = model.memory
    ttft = f", first token after {stats.ttft_s:.2f} s" if stats.ttft_s is not None else ""
    peak = peak_memory()
    draft = f", draft model {memory.draft / mib:,.0f}" if memory.draft else ""
    guessed = ""
    if stats.drafted_tokens:
        guessed = f" · {stats.accepted_tokens:,} of {stats.drafted_tokens:,} guessed tokens right"
    return [
        f"load     {model.load_s:.2f} s · {harmless(model.name)} · {model.threads} threads "
        f"· context {model.context:,}",
        f"prefill  {stats.prompt_tokens:,} tokens ({stats.cached_tokens:,} cached), "
        f"{_rate(stats.prefill_tps)}{ttft}",
        f"decode   {stats.completion_tokens:,} tokens, {_rate(stats.decode_tps)} "
        f"· ended by {reason} · seed {stats.seed}{guessed}",
        f"memory   {f'peak {peak / mib:,.0f} MiB · ' if peak else ''}"
        f"weights {memory.weights / mib:,.0f}, KV cache {memory.kv / mib:,.0f}, "
        f"workspace {memory.workspace / mib:,.0f}{draft} MiB",
    ]


def _rate(tokens_per_second: float | None) -> str:
    return "– tok/s" if tokens_per_second is None else f"{tokens_per_second:,.1f} tok/s"
