"""How many guessed tokens each request gets in a step: as many as are expected to pay.

A step of N requests makes N tokens in cost(N). With K guessed tokens it takes cost(N + K) and makes
the right ones among them besides. The likeliest guesses are added first, and as many as give the
most tokens in a second; none, often. Costs are measured, probabilities counted.

That may go wrong: guesses stop paying, or never have. So an account is kept of the time that
guessing has cost and saved, and where the cost exceeds ``_MOST_LOST`` of all time spent, nothing
is guessed until it has sunk below that again. What a proposer reads before it can guess at all (a
prompt, by a draft model) is an investment: after the first requests it is only made while the
account, all investments included, is as good.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from time import perf_counter, thread_time

from pocketlm.engine.request import Request
from pocketlm.engine.speculation.acceptance import Acceptance
from pocketlm.engine.speculation.costs import StepCosts, toward
from pocketlm.engine.speculation.proposer import Proposer

MOST_TOKENS = 15  # guessed for one request in one step
_LEAST_CHANCE = 0.03
_MOST_LOST = 0.01
_TRIALS = 4  # requests
_CREDIT = 60  # tokens of a model that takes time to guess: its first mistakes tell little


Room = Callable[[Request], int]
"""How many guessed tokens a request may get in this step; 0 or less is none."""


class Speculator:
    """Chooses the guesses of every step and learns what became of them. Not thread-safe."""

    def __init__(self, proposer: Proposer) -> None:
        self._proposer = proposer
        self._costs = StepCosts()
        self._proposing = 0.0  # seconds that a proposed token takes
        self._spent = 0.0  # seconds of all steps
        self._lost = 0.0  # of them, for guesses, less what these saved
        self._invested = 0.0  # seconds of reading before the first guess of each request
        self._trials = _TRIALS
        self._reading: Request | None = None  # what the proposer has begun to read
        self._counts: dict[Request, dict[int, Acceptance]] = {}
        self._class: dict[Request, int] = {}  # of the guesses in this step

    def drafts(
        self, requests: Sequence[Request], room: Room, spare: int
    ) -> Mapping[Request, list[int]]:
        """The guesses for a step of these requests, at most ``spare`` tokens."""
        if not self._costs or spare <= 0:
            return {}
        if self._lost > _MOST_LOST * self._spent + _CREDIT * self._proposing:
            return {}
        self._prepare(requests)
        started = thread_time()  # what another thread does meanwhile is not our loss
        chances = self._chances(requests, room)
        wanted = self._wanted(chances[:spare], len(requests)) if chances else None
        self._lost += thread_time() - started
        return self._propose(wanted) if wanted else {}

    def _propose(self, wanted: Mapping[Request, int]) -> Mapping[Request, list[int]]:
        started = perf_counter()
        proposed = self._proposer.propose(wanted)
        seconds = perf_counter() - started
        self._lost += seconds
        tokens = sum(len(draft) for draft in proposed.values())
        self._proposing = toward(self._proposing, seconds / max(tokens, 1))
        return {request: draft for request, draft in proposed.items() if draft}

    def _prepare(self, requests: Sequence[Request]) -> None:
        """Has the proposer read on in the first request that it does not know yet."""
        for request in requests:
            if request in self._counts:
                continue
            if self._reading is not request:
                if self._trials:
                    self._trials -= 1
                elif self._lost + self._invested > _MOST_LOST * self._spent:
                    continue
                self._reading = request
            started = perf_counter()
            if self._proposer.prepare(request):
                self._counts[request] = {}
            self._invested += perf_counter() - started
            return

    def _chances(self, requests: Sequence[Request], room: Room) -> list[tuple[float, Request]]:
        """How likely each guess that could be made is right with all before it; likely ones first.

        So a request's first guess stands before its second one.
        """
        chances: list[tuple[float, Request]] = []
        for request in requests:
            counts = self._counts.get(request)
            confidence = None if counts is None else self._proposer.confidence(request)
            if counts is None or confidence is None:
                continue
            self._class[request] = confidence
            acceptance = counts.get(confidence)
            if acceptance is None:
                acceptance = counts[confidence] = Acceptance(confidence)
            acceptance.fade()
            rate, chance = acceptance.rate, 1.0
            for _ in range(min(room(request), MOST_TOKENS)):
                chance *= rate
                if chance < _LEAST_CHANCE:
                    break
                chances.append((chance, request))
        if len(requests) > 1:
            chances.sort(key=lambda each: -each[0])  # stable
        return chances

    def _wanted(
        self, chances: Sequence[tuple[float, Request]], sequences: int
    ) -> dict[Request, int]:
        """As many of the first guesses as make the most tokens in a second, for each request."""
        best, taken = sequences / self._costs[sequences], 0
        expected = float(sequences)
        for count, (chance, _) in enumerate(chances, 1):
            expected += chance
            speed = expected / (self._costs[sequences + count] + count * self._proposing)
            if speed > best:
                best, taken = speed, count
        wanted: dict[Request, int] = {}
        for _, request in chances[:taken]:
            wanted[request] = wanted.get(request, 0) + 1
        return wanted

    def read(self, seconds: float) -> None:
        """A step took so long in which a prompt was read, without guesses."""
        self._spent += seconds

    def decoded(
        self,
        seconds: float,
        drafts: Mapping[Request, Sequence[int]],
        accepted: Mapping[Request, int],
    ) -> None:
        """A step is done that had one token of each request, and ``drafts``.

        accepted: how many guesses of each request of the step were right.
        """
        sequences, drafted = len(accepted), sum(len(draft) for draft in drafts.values())
        self._costs.record(sequences + drafted, seconds, guessed=drafted > 0)
        cost = self._costs[sequences + drafted]
        self._spent += cost
        if not drafted:
            return
        self._lost += cost - self._costs[sequences] * (1 + sum(accepted.values()) / sequences)
        for request, draft in drafts.items():
            counts = self._counts.get(request)
            if counts is not None and draft:  # else it has ended in this step
                counts[self._class[request]].record(len(draft), accepted[request])

    def clear(self) -> None:
        """All requests have ended, in a step that was cut off anywhere."""
        self._counts.clear()
        self._class.clear()
        self._proposer.clear()

    def forget(self, request: Request) -> None:
        """The request has ended."""
        self._counts.pop(request, None)
        self._class.pop(request, None)
        self._proposer.forget(request)
