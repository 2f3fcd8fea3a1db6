"""How much of a prompt is read beside others' answers, with a machine whose times are known."""

from __future__ import annotations

import pytest

from pocketlm.engine.engine import Engine, EngineConfig
from pocketlm.engine.pace import Pace
from pocketlm.engine.sampling import SamplingParams

from .mock import MockRunner

READ, TOKEN = 0.010, 0.001  # seconds: of the weights, of a token's arithmetic


def cost(decoding: int, reading: int) -> float:
    return READ + TOKEN * (decoding + reading)


def taught(pace: Pace, steps: int, decoding: int) -> list[float]:
    """What mixed steps take that read as much as the pace allows."""
    taken = []
    for _ in range(steps):
        room = pace.room(decoding)
        taken.append(cost(decoding, room))
        pace.record(taken[-1], decoding=decoding, reading=room)
    return taken


@pytest.mark.parametrize("decoding", [1, 4, 16])
def test_a_mixed_step_comes_to_the_multiple_that_is_allowed(decoding: int) -> None:
    pace = Pace(3)
    pace.record(cost(0, 512), decoding=0, reading=512)
    for _ in range(10):
        pace.record(cost(decoding, 0), decoding=decoding, reading=0)
    usual = cost(decoding, 0)
    taken = taught(pace, 30, decoding)
    assert max(taken) <= 3 * usual * 1.01
    assert taken[-1] >= 2.7 * usual


def test_a_prompt_that_gets_dearer_as_it_is_read_gets_less() -> None:
    pace = Pace(3)
    pace.record(cost(0, 512), decoding=0, reading=512)
    pace.record(cost(4, 0), decoding=4, reading=0)
    rooms, token, worst = [], TOKEN, 0.0
    for _ in range(60):
        rooms.append(pace.room(4))
        seconds = cost(4, 0) + rooms[-1] * token
        worst = max(worst, seconds)
        pace.record(seconds, decoding=4, reading=rooms[-1])
        token *= 1.02
    assert rooms[-1] < rooms[0] / 2
    assert worst <= 3.3 * cost(4, 0)


def test_one_slow_step_does_not_stop_the_reading_nor_a_fast_one_open_the_gates() -> None:
    pace = Pace(3)
    pace.record(cost(4, 0), decoding=4, reading=0)
    taught(pace, 20, 4)
    settled = pace.room(4)
    pace.record(50 * cost(4, settled), decoding=4, reading=settled)
    assert pace.room(4) >= 1
    taught(pace, 40, 4)
    assert pace.room(4) == pytest.approx(settled, rel=0.2)
    pace.record(cost(4, 0), decoding=4, reading=settled)  # as if the prompt had cost nothing
    assert pace.room(4) <= 2 * settled


def test_before_anything_is_known_little_is_read() -> None:
    assert 1 <= Pace(3).room(1) <= 64
    only_mixed = Pace(3)  # nobody has ever decoded alone
    only_mixed.record(cost(2, 100), decoding=2, reading=100)
    assert 1 <= only_mixed.room(2) <= 64


class Fixed(Pace):
    def room(self, decoding: int) -> int:
        return 3


def test_prompts_share_what_is_left_beside_those_that_decode() -> None:
    runner = MockRunner(max_tokens=16)
    engine = Engine(runner, EngineConfig(context=48))
    engine.scheduler.pace = Fixed(3)

    def params(count: int) -> SamplingParams:
        return SamplingParams(temperature=0, max_tokens=count, ignore_eos=True)

    engine.add([4] * 20, params(20))
    engine.step()  # nobody decodes: the whole budget
    engine.step()
    engine.step()
    engine.add([5] * 7, params(1))
    engine.add([6] * 2, params(1))
    for _ in range(3):
        engine.step()
    shapes = [batch.lengths.tolist() for batch in runner.steps]
    assert shapes == [[16], [4], [1], [1, 3], [1, 3], [1, 1, 2]]


def test_without_a_bound_a_prompt_takes_the_whole_budget() -> None:
    runner = MockRunner(max_tokens=16)
    engine = Engine(runner, EngineConfig(context=48))
    engine.add([4], SamplingParams(temperature=0, max_tokens=9, ignore_eos=True))
    engine.step()
    engine.add([5] * 40, SamplingParams(temperature=0, max_tokens=1))
    engine.step()
    assert runner.steps[-1].lengths.tolist() == [1, 15]
