"""The economy of guessing, with a clock of its own: what pays is done, what does not is left."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping

import numpy as np
import pytest

from pocketlm._native import Sampler
from pocketlm.engine.request import Request
from pocketlm.engine.sampling import SamplingParams
from pocketlm.engine.speculation import speculator
from pocketlm.engine.speculation.acceptance import Acceptance
from pocketlm.engine.speculation.costs import StepCosts
from pocketlm.engine.speculation.speculator import MOST_TOKENS, Speculator


@pytest.fixture(autouse=True)
def no_time_passes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Steps take what a test says, and everything else nothing."""
    for clock in ("perf_counter", "thread_time"):
        monkeypatch.setattr(speculator, clock, lambda: 0.0)


class Always:
    """Guesses at every step."""

    def __init__(self, confidence: int = 4) -> None:
        self._confidence = confidence

    def prepare(self, request: Request) -> bool:
        return True

    def confidence(self, request: Request) -> int | None:
        return self._confidence

    def propose(self, wanted: Mapping[Request, int]) -> Mapping[Request, list[int]]:
        return {request: [0] * count for request, count in wanted.items()}

    def clear(self) -> None:
        pass

    def forget(self, request: Request) -> None:
        pass


def request(number: int = 0) -> Request:
    return Request(
        number,
        [1],
        SamplingParams(),
        max_total=100,
        stop_ids=frozenset(),
        sampler=Sampler(8),
        table=np.zeros(1, np.int32),
    )


def steep(tokens: int) -> float:
    return 3e-3 * tokens


def flat(tokens: int) -> float:
    return 3e-3 + 4e-4 * tokens


def play(
    guesser: Speculator,
    right: Callable[[], bool],
    cost: Callable[[int], float],
    *,
    steps: int,
    requests: int = 1,
) -> float:
    """Tokens in a second, beside those without speculation."""
    rng = random.Random(1)
    running = [request(i) for i in range(requests)]
    seconds = tokens = 0.0
    for _ in range(steps):
        drafts = guesser.drafts(running, lambda _: 20, 128)
        accepted = dict.fromkeys(running, 0)
        for r, draft in drafts.items():
            while accepted[r] < len(draft) and right():
                accepted[r] += 1
        took = cost(requests + sum(len(d) for d in drafts.values()))
        guesser.decoded(took * rng.choice([1.0, 1.05, 1.2]), drafts, accepted)
        seconds += took
        tokens += requests + sum(accepted.values())
    return tokens / seconds * cost(requests) / requests


@pytest.mark.parametrize("cost", [steep, flat])
@pytest.mark.parametrize("requests", [1, 4])
def test_what_never_is_right_costs_two_percent_at_most(
    cost: Callable[[int], float], requests: int
) -> None:
    for confidence in (2, 8):
        speed = play(
            Speculator(Always(confidence)), lambda: False, cost, steps=400, requests=requests
        )
        assert 0.98 < speed < 1.0001


def test_what_always_is_right_takes_long_guesses_where_they_pay() -> None:
    assert play(Speculator(Always()), lambda: True, flat, steps=200) > 4
    assert play(Speculator(Always()), lambda: True, steep, steps=200) > 0.98


def test_an_even_chance_pays_where_tokens_are_cheap() -> None:
    rng = random.Random(2)
    assert play(Speculator(Always()), lambda: rng.random() < 0.5, flat, steps=2000) > 1.3


def test_what_was_given_up_is_tried_again() -> None:
    guesser = Speculator(Always())
    state = {"right": False}
    play(guesser, lambda: state["right"], flat, steps=1000)
    state["right"] = True
    assert play(guesser, lambda: state["right"], flat, steps=1000) > 3


def test_the_likeliest_guesses_share_the_room() -> None:
    guesser = Speculator(Always())
    one, two = request(1), request(2)
    nothing = dict.fromkeys((one, two), 0)
    assert guesser.drafts([one, two], lambda _: 5, 4) == {}  # nothing is measured yet
    guesser.decoded(1e-3, {}, nothing)
    drafts = guesser.drafts([one, two], {one: 5, two: 0}.__getitem__, 128)
    assert set(drafts) == {one}
    assert 0 < len(drafts[one]) <= 5
    drafts = guesser.drafts([one, two], lambda _: 99, 3)
    assert sum(len(d) for d in drafts.values()) <= 3
    drafts = guesser.drafts([one, two], lambda _: 99, 128)
    assert all(len(d) <= MOST_TOKENS for d in drafts.values())
    assert guesser.drafts([one], lambda _: 9, 0) == {}


def test_a_longer_match_is_believed_sooner_and_counts_decide_later() -> None:
    short, long = Acceptance(2), Acceptance(8)
    assert short.rate < long.rate
    for _ in range(30):
        short.record(4, 4)
        long.record(4, 0)
    assert short.rate > 0.95
    assert long.rate < 0.1
    for _ in range(600):
        long.fade()
    assert long.rate > 0.7


def test_costs_of_sizes_that_were_not_seen_lie_between_those_that_were() -> None:
    costs = StepCosts()
    assert not costs
    costs.record(1, 4.0, guessed=False)
    assert (costs[1], costs[5]) == (4.0, 8.0)  # (5 + 3) / (1 + 3)
    costs.record(9, 6.0, guessed=True)
    assert costs[9] == 6.0
    assert costs[8] == pytest.approx(6.0 * 11 / 12)


def test_a_slower_machine_makes_all_sizes_slower() -> None:
    costs = StepCosts()
    costs.record(1, 1.0, guessed=False)
    costs.record(4, 2.0, guessed=True)
    for _ in range(100):
        costs.record(1, 1.0, guessed=False)
    for _ in range(200):
        costs.record(1, 3.0, guessed=False)
    assert costs[1] == pytest.approx(3.0, rel=0.01)
    assert costs[4] == pytest.approx(6.0, rel=0.01)


def test_one_slow_step_is_no_measure() -> None:
    costs = StepCosts()
    costs.record(2, 50.0, guessed=True)
    costs.record(4, 2.0, guessed=True)
    assert costs[2] <= 2.0
