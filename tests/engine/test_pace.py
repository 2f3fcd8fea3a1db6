"""How much of a prompt is read beside others' answers, with a machine whose times are known."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pocketlm.engine.engine import Engine, EngineConfig
from pocketlm.engine.pace import Pace, tokens_of, work_of
from pocketlm.engine.sampling import SamplingParams

from .mock import MockRunner


class Machine:
    """Steps cost the weights, each token, and what prompt tokens look back at."""

    def __init__(self, *, weights: float = 3e-3, token: float = 3e-4, back: float = 2.5e-7) -> None:
        self.weights, self.token, self.back = weights, token, back

    def usual(self, decoding: int) -> float:
        return self.weights + self.token * decoding

    def mixed(self, decoding: int, count: int, start: int) -> float:
        return self.usual(decoding) + count * (self.token + self.back * (start + count / 2))


def known(machine: Machine, decoding: int) -> Pace:
    """A pace that has seen a prompt and answers."""
    pace = Pace(3)
    pace.record(machine.mixed(0, 400, 0), decoding=0, work=work_of(400, 0))
    for _ in range(20):
        pace.record(machine.usual(decoding), decoding=decoding, work=0)
    return pace


def read(pace: Pace, machine: Machine, decoding: int, length: int, start: int = 0) -> list[float]:
    """How many times as long as usual each step takes in which a prompt is read."""
    taken = []
    while start < length:
        room = pace.room(decoding)
        count = min(max(int(room > 0), tokens_of(room, start)), length - start)
        seconds = machine.mixed(decoding, count, start)
        pace.record(seconds, decoding=decoding, work=work_of(count, start))
        if count:
            taken.append(seconds / machine.usual(decoding))
        start += count
    return taken


@pytest.mark.parametrize("decoding", [1, 4, 16])
@pytest.mark.parametrize("back", [0, 2.5e-8, 2.5e-7, 1e-6])
def test_steps_come_to_the_multiple_that_is_allowed(decoding: int, back: float) -> None:
    machine = Machine(back=back)
    taken = read(known(machine, decoding), machine, decoding, 4000)
    assert max(taken) < 3.7
    assert sum(taken[20:-1]) / len(taken[20:-1]) > 2.3


def test_a_prompt_that_begins_far_behind_a_cached_beginning() -> None:
    machine = Machine()
    taken = read(known(machine, 4), machine, 4, 4200, start=4000)
    assert taken[0] < 3.7


def test_steps_do_not_get_longer_with_the_sequences_while_prompts_come() -> None:
    machine = Machine()
    pace = known(machine, 4)
    before = machine.usual(4)
    start = 0
    while start < 2000:
        machine.weights += 6e-6
        room = pace.room(4)
        count = max(int(room > 0), tokens_of(room, start))
        seconds = machine.mixed(4, count, start)
        assert seconds < 3.7 * before
        pace.record(seconds, decoding=4, work=work_of(count, start))
        start += count


def test_it_follows_a_machine_that_has_less_time_for_good() -> None:
    machine = Machine()
    pace = known(machine, 4)
    machine.weights *= 3
    machine.token *= 3
    for _ in range(80):
        pace.record(machine.usual(4), decoding=4, work=0)
    taken = read(pace, machine, 4, 4000)
    assert max(taken[3:]) < 3.7
    assert sum(taken[20:-1]) / len(taken[20:-1]) > 2.3


def test_every_ninth_step_is_one_without_prompts() -> None:
    machine = Machine()
    pace = known(machine, 2)
    rooms = []
    for _ in range(18):
        rooms.append(pace.room(2))
        count = tokens_of(rooms[-1], 0)
        pace.record(machine.mixed(2, count, 0), decoding=2, work=work_of(count, 0))
    assert [i for i, room in enumerate(rooms) if room == 0] == [8, 17]


def test_a_slow_step_does_not_stop_the_reading_nor_a_fast_one_open_the_gates() -> None:
    machine = Machine(back=0)
    pace = known(machine, 4)
    read(pace, machine, 4, 500)
    settled = pace.tokens(4, 0)
    pace.record(1.0, decoding=4, work=work_of(settled, 0))
    assert pace.tokens(4, 0) >= 1
    read(pace, machine, 4, 500)
    assert pace.tokens(4, 0) == pytest.approx(settled, rel=0.2)
    pace.record(machine.usual(4), decoding=4, work=work_of(settled, 0))  # as if it had cost nothing
    assert pace.tokens(4, 0) <= 2 * settled


def test_few_are_delayed_for_the_sake_of_many() -> None:
    pace = known(Machine(), 2)
    one = pace.room(2, 1)
    assert pace.room(2, 2) == one
    assert pace.room(2, 14) == pytest.approx(7 * one)


def test_before_anything_is_known_little_is_read() -> None:
    assert 1 <= Pace(3).tokens(1, 0) <= 64
    only_mixed = Pace(3)  # nobody has ever decoded alone
    only_mixed.record(0.1, decoding=2, work=work_of(100, 0))
    assert 1 <= only_mixed.tokens(2, 0) <= 64


@given(st.integers(0, 2000), st.integers(0, 100_000))
def test_tokens_and_units_agree(count: int, start: int) -> None:
    assert tokens_of(work_of(count, start) * 1.000001 + 1e-6, start) == count


class Fixed(Pace):
    def room(self, decoding: int, reading: int = 1) -> float:
        return 3.2


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


class Never(Pace):
    def room(self, decoding: int, reading: int = 1) -> float:
        return 0.0


def test_a_step_may_be_without_prompts_but_not_for_want_of_room() -> None:
    runner = MockRunner(max_tokens=16)
    engine = Engine(runner, EngineConfig(context=48))
    engine.add([4] * 5, SamplingParams(temperature=0, max_tokens=3, ignore_eos=True))
    engine.step()
    late = engine.add([5] * 9, SamplingParams(temperature=0, max_tokens=1))
    engine.scheduler.pace = Never(3)
    engine.step()
    assert runner.steps[-1].lengths.tolist() == [1]
    engine.scheduler.pace = Pace(3)
    engine.scheduler.pace.record(1e9, decoding=0, work=1)  # a token takes for ever
    engine.scheduler.pace.record(1, decoding=1, work=0)
    engine.step()
    assert runner.steps[-1].lengths.tolist() == [1, 1]
    while engine.busy:
        engine.step()
    assert len(late.output) == 1


def test_without_a_bound_a_prompt_takes_the_whole_budget() -> None:
    runner = MockRunner(max_tokens=16)
    engine = Engine(runner, EngineConfig(context=48))
    engine.add([4], SamplingParams(temperature=0, max_tokens=9, ignore_eos=True))
    engine.step()
    engine.add([5] * 40, SamplingParams(temperature=0, max_tokens=1))
    engine.step()
    assert runner.steps[-1].lengths.tolist() == [1, 15]
