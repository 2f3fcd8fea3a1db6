"""Guesses without economy: as many as there is room for, right or wrong as a test wants them."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping, Sequence

from pocketlm.engine.request import Request
from pocketlm.engine.speculation.ngram import NgramProposer
from pocketlm.engine.speculation.proposer import Proposer
from pocketlm.engine.speculation.speculator import Room, Speculator

Guess = Callable[[Request, int], list[int]]
"""At most so many tokens after a request's last one."""


class Guessing(Speculator):
    """Takes every guess; ``made`` and ``right`` count them."""

    def __init__(self, guess: Guess) -> None:
        super().__init__(NgramProposer())
        self._guess = guess
        self.made = self.right = 0

    def drafts(
        self, requests: Sequence[Request], room: Room, spare: int
    ) -> Mapping[Request, list[int]]:
        drafts = {}
        for request in requests:
            draft = self._guess(request, min(room(request), spare))
            if draft:
                drafts[request] = draft
                spare -= len(draft)
        return drafts

    def decoded(
        self,
        seconds: float,
        drafts: Mapping[Request, Sequence[int]],
        accepted: Mapping[Request, int],
    ) -> None:
        self.made += sum(len(draft) for draft in drafts.values())
        self.right += sum(accepted.values())


def random_guess(seed: int, vocab: int, most: int = 6) -> Guess:
    rng = random.Random(seed)
    return lambda request, room: [
        rng.randrange(vocab) for _ in range(rng.randint(0, max(0, min(room, most))))
    ]


def knowing_guess(
    whole: Callable[[Request], list[int]],
    seed: int = 0,
    wrong: float = 0,
    *,
    most: int = 6,
    vocab: int = 32,
) -> Guess:
    """What the request will draw, as ``whole`` knows; each token is spoilt with probability
    ``wrong``."""
    rng = random.Random(seed)

    def guess(request: Request, room: int) -> list[int]:
        coming = whole(request)[len(request.tokens) :][: max(0, min(room, most))]
        return [t if rng.random() >= wrong else (t + 1) % vocab for t in coming]

    return guess


class Asking(Speculator):
    """Takes as many guesses of a proposer as there is room for, whatever they cost."""

    def __init__(self, proposer: Proposer, most: int = 6) -> None:
        super().__init__(proposer)
        self._ready: set[Request] = set()
        self._most = most

    def drafts(
        self, requests: Sequence[Request], room: Room, spare: int
    ) -> Mapping[Request, list[int]]:
        wanted = {}
        for request in requests:
            if request not in self._ready:
                if self._proposer.prepare(request):
                    self._ready.add(request)
                continue
            count = min(room(request), spare, self._most)
            if self._proposer.confidence(request) is not None and count > 0:
                wanted[request] = count
                spare -= count
        return self._proposer.propose(wanted)
