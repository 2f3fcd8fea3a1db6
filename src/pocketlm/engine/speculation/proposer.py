"""What a source of guesses has to answer. The engine's output never depends on it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

from pocketlm.engine.request import Request


class Proposer(Protocol):
    """Guesses how sequences go on. Knows a request from its first ``prepare`` until ``forget``."""

    def prepare(self, request: Request) -> bool:
        """Reads a part of a sequence that is new to it; whether it has read enough to guess."""

    def confidence(self, request: Request) -> int | None:
        """Which class of guess it would make next: those of a class are counted together.

        A higher class is expected to be right more often; None is no guess. Cheap: it is asked
        before every step, whether a guess is then wanted or not.
        """

    def propose(self, wanted: Mapping[Request, int]) -> Mapping[Request, list[int]]:
        """At most so many tokens after each request's last one; fewer or none are fine."""

    def clear(self) -> None:
        """Forgets all requests, whatever it was doing when it was cut off."""

    def forget(self, request: Request) -> None:
        """The request has ended; it may never have been asked about."""
