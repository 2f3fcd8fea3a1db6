"""One prompt to every model, with the same sampling options and the same seed.

Models that are here answer one after the other, each alone in memory: their speeds are then their
own, and the largest of them is all that has to fit. Remote ones answer meanwhile.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from dataclasses import dataclass

from pocketlm.errors import PocketLMError


@dataclass(frozen=True)
class Cost:
    """What an answer cost; None is not known.

    Attributes:
        tokens: of the answer.
        first_token: seconds from the question to the first text; loading is not in it.
        speed: tokens/s after the first.
        reason: why it ended.
    """

    tokens: int | None
    first_token: float | None
    speed: float | None
    reason: str


@dataclass(frozen=True)
class Tried:
    """One model's answer, or why there is none."""

    name: str
    text: str
    finish: Cost | None
    error: str | None = None

    @property
    def cost(self) -> str:
        """One line for people."""
        return cost_text(self.finish, self.error)


def cost_text(finish: Cost | None, error: str | None) -> str:
    """Time to the first token, tokens and tokens/s, or what went wrong."""
    if error is not None:
        return f"failed: {error}"
    if finish is None:
        return ""
    first = "" if finish.first_token is None else f"first token after {finish.first_token:.2f} s, "
    tokens = "tokens not said" if finish.tokens is None else f"{finish.tokens:,} tokens"
    speed = "" if finish.speed is None else f" at {finish.speed:,.1f} tokens/s"
    ended = "" if finish.reason == "stop" else f", ended by {finish.reason}"
    return f"{first}{tokens}{speed}{ended}"


Answer = Callable[[threading.Event], Iterator[str | Cost]]
"""Gives the answer's pieces and, last, its cost; ends soon after the event is set."""


@dataclass(frozen=True)
class Speaker:
    """A model that can be asked.

    Attributes:
        name: to be shown.
        remote: whether it computes elsewhere, so that it can answer meanwhile.
        open: loads or connects it and gives what answers.
    """

    name: str
    remote: bool
    open: Callable[[], AbstractContextManager[Answer]]


OnText = Callable[[int, str], None]
OnEnd = Callable[[int, Tried], None]


def try_all(
    speakers: Sequence[Speaker],
    *,
    on_text: OnText,
    on_end: OnEnd,
    cancel: threading.Event,
) -> list[Tried]:
    """Every model's answer, in the order of the speakers.

    A model that cannot answer is told of in its place, and the others go on. The callbacks are
    called with the index of the speaker, by one thread at a time.
    """
    lock = threading.Lock()
    found: list[Tried | None] = [None] * len(speakers)

    def ask(index: int) -> None:
        speaker = speakers[index]
        texts: list[str] = []
        finish: Cost | None = None
        error: str | None = None
        try:
            with speaker.open() as answer:
                for piece in answer(cancel):
                    if isinstance(piece, Cost):
                        finish = piece
                        continue
                    texts.append(piece)
                    with lock:
                        on_text(index, piece)
        except PocketLMError as failure:
            error = str(failure)
        done = Tried(speaker.name, "".join(texts), finish, error)
        with lock:
            found[index] = done
            on_end(index, done)

    elsewhere = [i for i, speaker in enumerate(speakers) if speaker.remote]
    with ThreadPoolExecutor(max(1, len(elsewhere))) as pool:
        waiting = [pool.submit(ask, i) for i in elsewhere]
        for i, speaker in enumerate(speakers):
            if not speaker.remote and not cancel.is_set():
                ask(i)
        for one in waiting:
            one.result()
    return [one for one in found if one is not None]
