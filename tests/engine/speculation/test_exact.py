"""Speculation on the mock model: whatever is guessed, every request gets what it gets without."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.mock import MockRunner
from engine.test_engine import CONTEXT, EOS, SWITCH, VOCAB, Speller, greedy, nothing_is_held
from pocketlm.engine.engine import Engine, EngineConfig, Output
from pocketlm.engine.request import Request
from pocketlm.engine.runner import Floats, StepBatch
from pocketlm.engine.sampling import SamplingParams
from pocketlm.engine.speculation.ngram import NgramProposer
from pocketlm.engine.speculation.speculator import Speculator
from pocketlm.models.memory import pages_held

from .guessing import Guessing, knowing_guess, random_guess


@dataclass(frozen=True)
class Plan:
    prompt: list[int]
    params: SamplingParams
    stop: str | None
    arrives: int
    leaves: int | None  # after how many more steps it is aborted


Drawn = list[tuple[int | None, str, object, str | None]]


def seen(outputs: list[Output]) -> Drawn:
    return [(o.token, o.text, o.logprobs, o.finish_reason) for o in outputs]


def alone(plan: Plan, windows: tuple[int, ...] = (0,)) -> tuple[list[int], Drawn]:
    """All tokens and outputs of a request that runs by itself, without speculation."""
    runner = MockRunner(
        vocab=VOCAB, pages=CONTEXT, page_positions=1, max_tokens=CONTEXT, windows=windows
    )
    engine = Engine(runner, config(prefix_cache=False))
    request = engine.add(plan.prompt, plan.params, decoder=Speller(plan.stop))
    outputs: list[Output] = []
    while engine.busy:
        outputs += engine.step()
    return request.tokens, seen(outputs)


def config(*, prefix_cache: bool = True) -> EngineConfig:
    return EngineConfig(
        context=CONTEXT,
        eos_ids=frozenset({EOS}),
        rope_switch=SWITCH,
        prefix_cache=prefix_cache,
    )


prompts = st.builds(
    lambda head, tail: ([4, 5, 6, 5] * CONTEXT)[:head] + tail,
    st.integers(0, CONTEXT - 20),
    st.lists(st.integers(4, 6), min_size=1, max_size=5),
)
plans = st.builds(
    Plan,
    prompt=prompts,
    params=st.builds(
        SamplingParams,
        temperature=st.sampled_from([0.0, 1.0]),
        seed=st.integers(0, 9),
        max_tokens=st.integers(1, 15),
        presence_penalty=st.sampled_from([0.0, 1.0]),
        repetition_penalty=st.sampled_from([1.0, 1.5]),
        penalty_window=st.sampled_from([0, 3]),
        logprobs=st.sampled_from([None, 2]),
        ignore_eos=st.booleans(),
    ),
    stop=st.sampled_from([None, "A", "BC"]),
    arrives=st.integers(0, 6),
    leaves=st.one_of(st.none(), st.integers(0, 8)),
)
# (how guesses are made, seed): each token of a knowing guess is wrong with that probability.
guessers = st.tuples(st.sampled_from(["random", 0.0, 0.2, 1.0]), st.integers(0, 99))


@given(
    st.lists(plans, min_size=1, max_size=5),
    guessers,
    st.sampled_from([1, 2, 4]),
    st.integers(0, 12),
    st.integers(2, 40),
    st.integers(1, 5),
    st.integers(0, 20),
    st.booleans(),
    st.sampled_from([(0,), (0, 5), (3, 0), (7,)]),
)
@settings(max_examples=150, deadline=None)
def test_every_interleaving_with_any_guesses_gives_what_a_request_gets_alone(
    plan: list[Plan],
    guesser: tuple[str | float, int],
    size: int,
    spare: int,
    budget: int,
    sequences: int,
    rows: int,
    prefix_cache: bool,
    windows: tuple[int, ...],
) -> None:
    wanted = [alone(p, windows) for p in plan]
    whole: dict[Request, list[int]] = {}
    kind, seed = guesser
    if isinstance(kind, str):
        guessing = Guessing(random_guess(seed, VOCAB))
    else:
        guessing = Guessing(knowing_guess(lambda r: whole[r], seed, kind))
    runner = MockRunner(
        pages=[pages_held(window, CONTEXT, budget, size) + spare for window in windows],
        windows=windows,
        page_positions=size,
        max_tokens=budget,
        max_sequences=sequences,
        max_rows=sequences + rows,
        vocab=VOCAB,
    )
    engine = Engine(runner, config(prefix_cache=prefix_cache), guessing)
    requests: dict[int, Request] = {}
    got: dict[Request, list[Output]] = {}
    step = 0
    while engine.busy or step <= 6:
        for i, p in enumerate(plan):
            if p.arrives == step:
                requests[i] = engine.add(p.prompt, p.params, decoder=Speller(p.stop))
                whole[requests[i]] = wanted[i][0]
                got[requests[i]] = []
            if i in requests and p.leaves is not None and p.arrives + p.leaves == step:
                engine.abort(requests[i])
        for output in engine.step():
            got[output.request].append(output)
        for request in engine.scheduler.running:
            assert request.table.count <= -(-len(request.tokens) // size)
        step += 1
        assert step < 5000, "the engine does not come to an end"
    assert nothing_is_held(engine)
    for i in range(len(plan)):
        tokens, outputs = wanted[i]
        mine = seen(got[requests[i]])
        if requests[i].finish_reason == "cancelled":
            assert mine == outputs[: len(mine)]
        else:
            assert mine == outputs
            assert requests[i].tokens == tokens


def run(engine: Engine) -> list[Output]:
    outputs = []
    while engine.busy:
        outputs += engine.step()
    return outputs


def test_right_guesses_save_steps_and_count() -> None:
    plan = Plan([5, 6, 7], greedy(max_tokens=16, ignore_eos=True), None, 0, None)
    tokens, _ = alone(plan)
    guessing = Guessing(knowing_guess(lambda _: tokens, most=4))
    engine = Engine(MockRunner(vocab=VOCAB, max_rows=16), config(), guessing)
    request = engine.add(plan.prompt, plan.params)
    run(engine)
    assert request.tokens == tokens
    # The prompt's token; then 5, 5 and 5 tokens, the last of which is the 16th.
    assert len(engine.runner.steps) == 4  # type: ignore[attr-defined]
    assert (request.drafted, request.accepted) == (12, 12)


def test_guesses_stop_at_the_rope_switch_and_go_on_after_it() -> None:
    plan = Plan([5] * (SWITCH - 3), greedy(max_tokens=9, ignore_eos=True), None, 0, None)
    tokens, _ = alone(plan)
    guessing = Guessing(knowing_guess(lambda _: tokens))
    engine = Engine(MockRunner(vocab=VOCAB, max_rows=16, max_tokens=64), config(), guessing)
    engine.add(plan.prompt, plan.params)
    run(engine)
    steps = engine.runner.steps  # type: ignore[attr-defined]
    shapes = [(int(b.starts[0]), int(b.lengths[0]), int(b.variants[0])) for b in steps]
    assert shapes == [(0, 17, 0), (17, 3, 0), (0, 21, 1), (21, 4, 1)]


def full_cache(guess: Callable[[Request, int], list[int]]) -> tuple[Engine, Request, Request]:
    """Two requests that together need every one of 12 blocks of 4 at their end."""
    runner = MockRunner(
        vocab=VOCAB, pages=12, page_positions=4, max_tokens=64, max_sequences=2, max_rows=16
    )
    engine = Engine(runner, config(prefix_cache=False), Guessing(guess))
    params = greedy(max_tokens=17, ignore_eos=True)
    return engine, engine.add([4] * 7, params), engine.add([5] * 7, params)


def test_guesses_preempt_nobody() -> None:
    engine, one, two = full_cache(random_guess(1, VOCAB, most=16))
    run(engine)
    assert one.preemptions == two.preemptions == 0
    assert engine._speculator.made > 20  # type: ignore[union-attr]
    for request, first in ((one, 4), (two, 5)):
        plan = Plan([first] * 7, greedy(max_tokens=17, ignore_eos=True), None, 0, None)
        assert request.tokens == alone(plan)[0]


def test_a_failed_step_leaves_guesses_without_a_trace() -> None:
    plan = Plan([5, 6], greedy(max_tokens=9, ignore_eos=True), None, 0, None)
    tokens, _ = alone(plan)
    guessing = Guessing(knowing_guess(lambda _: tokens))
    engine = Engine(MockRunner(vocab=VOCAB, max_rows=16), config(), guessing)
    request = engine.add(plan.prompt, plan.params)
    engine.step()
    step, engine.runner.step = engine.runner.step, None  # type: ignore[method-assign, assignment]
    with pytest.raises(TypeError):
        engine.step()
    engine.runner.step = step  # type: ignore[method-assign]
    assert request.accepted == 0
    run(engine)
    assert request.tokens == tokens


class Breaking(MockRunner):
    """Its logits are NaN where a sequence has ten tokens."""

    def step(self, batch: StepBatch, *, hidden: bool = False) -> Floats:
        logits = super().step(batch, hidden=hidden)
        first = 0
        for start, length in zip(batch.starts, batch.lengths, strict=True):
            for i in range(length):
                if start + i + 1 == 10:
                    logits[batch.rows == first + i] = np.nan
            first += length
        return logits


def test_an_error_in_a_guessed_row_ends_the_request_where_it_would_have_ended() -> None:
    params = greedy(max_tokens=12, ignore_eos=True)
    tokens, _ = alone(Plan([5, 6], params, None, 0, None))
    for wrong in (0, 1):
        guessing = Guessing(knowing_guess(lambda _: tokens, wrong=wrong))
        engine = Engine(Breaking(vocab=VOCAB, max_rows=16), config(), guessing)
        request = engine.add([5, 6], params)
        outputs = run(engine)
        assert request.tokens == tokens[:10]
        assert outputs[-1].finish_reason == "error"
        assert "NaN" in str(outputs[-1].error) or "nan" in str(outputs[-1].error)
        assert nothing_is_held(engine)


@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_the_real_speculator_changes_nothing_either(temperature: float) -> None:
    few = {4: 100.0, 5: 100.0, 6: 100.0}  # so that pairs come again
    params = SamplingParams(
        temperature=temperature, seed=3, max_tokens=30, ignore_eos=True, logit_bias=few
    )
    plan = Plan([4, 5, 6, 4, 5, 6, 4], params, None, 0, None)
    engine = Engine(MockRunner(vocab=VOCAB, max_rows=16), config(), Speculator(NgramProposer()))
    request = engine.add(plan.prompt, plan.params)
    run(engine)
    assert request.tokens == alone(plan)[0]
    assert request.drafted > 0
