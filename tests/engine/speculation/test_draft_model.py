"""A draft model beside a model: outputs stay, and its own cache never falls out of step."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine import tiny
from engine.mock import MockRunner
from engine.test_engine import CONTEXT, SWITCH, VOCAB, greedy
from pocketlm.engine.engine import Engine
from pocketlm.engine.request import Request
from pocketlm.engine.runner import Floats, NativeRunner, RunnerLimits
from pocketlm.engine.sampling import SamplingParams
from pocketlm.engine.speculation.draft_model import DraftModel

from .guessing import Asking
from .test_exact import Plan, alone, config, plans, run


class Erring(MockRunner):
    """Draws the same as the mock model, but where a sequence's length is a multiple of three."""

    def _logits(self, tables: np.ndarray, length: int, variant: int) -> np.ndarray:
        logits = super()._logits(tables, length, variant)
        return logits if length % 3 else np.roll(logits, 1)


def draft_model(
    runner: type[MockRunner] = Erring,
    *,
    context: int = CONTEXT,
    windows: tuple[int, ...] = (0,),
    vocab: int = VOCAB,
    sequences: int = 1,
    max_tokens: int = 8,
) -> DraftModel:
    pages = sequences * -(-context // 4)
    return DraftModel(
        runner(
            vocab=vocab,
            pages=pages,
            max_tokens=max_tokens,
            max_sequences=sequences,
            windows=windows,
        ),
        vocab=VOCAB,
        context=context,
        rope_switch=SWITCH,
    )


def steps_of(engine: Engine) -> int:
    return len(engine.runner.steps)  # type: ignore[attr-defined]


@pytest.mark.parametrize("temperature", [0.0, 1.0])
@pytest.mark.parametrize("windows", [(0,), (0, 7)])
def test_guesses_are_right_again_after_every_rejection(
    temperature: float, windows: tuple[int, ...]
) -> None:
    params = SamplingParams(
        temperature=temperature, seed=4, max_tokens=CONTEXT - 26, ignore_eos=True
    )
    plan = Plan([5] * 26, params, None, 0, None)
    runner = MockRunner(vocab=VOCAB, max_rows=16, max_tokens=64, windows=windows)
    engine = Engine(runner, config(), Asking(draft_model(windows=windows)))
    request = engine.add(plan.prompt, plan.params)
    run(engine)
    assert request.tokens == alone(plan, windows)[0]
    # The prompt in one step; the draft model reads it in four, beside which one token each is
    # drawn. From then on a step goes to the next length that is a multiple of three, and past it;
    # a token that was drawn from wrong logits may be right by chance.
    most = 1 + 4 + -(-(CONTEXT - 31) // 3)
    assert steps_of(engine) == most if temperature == 0 else steps_of(engine) <= most


def test_the_rope_switch_is_followed() -> None:
    plan = Plan([5] * 10, greedy(max_tokens=25, ignore_eos=True), None, 0, None)
    runner = MockRunner(vocab=VOCAB, max_rows=16, max_tokens=64)
    engine = Engine(runner, config(), Asking(draft_model(MockRunner, max_tokens=32)))
    request = engine.add(plan.prompt, plan.params)
    run(engine)
    assert request.tokens == alone(plan)[0]
    assert request.accepted == request.drafted > 15


def test_guesses_that_were_not_used_are_made_again() -> None:
    draft = draft_model(MockRunner)
    engine = Engine(MockRunner(vocab=VOCAB), config())
    request = engine.add([5] * 8, greedy(max_tokens=12, ignore_eos=True))
    assert draft.prepare(request)
    guesses = draft.propose({request: 6})[request]
    assert len(guesses) == 6
    request.tokens += guesses[:2]  # as where there are no blocks for more of them
    assert draft.propose({request: 4})[request] == guesses[2:]


def test_a_prompt_that_was_seen_is_not_read_again() -> None:
    draft = draft_model()
    engine = Engine(MockRunner(vocab=VOCAB, max_rows=16, max_tokens=64), config(), Asking(draft))
    prompt = list(range(4, 16))
    for tail in ([5], [6]):
        before = len(draft._runner.steps)  # type: ignore[attr-defined]
        engine.add([*prompt, *tail], greedy(max_tokens=9, ignore_eos=True))
        run(engine)
    steps = draft._runner.steps[before:]  # type: ignore[attr-defined]
    assert int(steps[0].starts[0]) == 12


def test_a_shorter_context_ends_the_guesses_only() -> None:
    params = greedy(max_tokens=30, ignore_eos=True)
    plan = Plan([5] * 8, params, None, 0, None)
    draft = draft_model(context=16)
    engine = Engine(MockRunner(vocab=VOCAB, max_rows=16), config(), Asking(draft))
    request = engine.add(plan.prompt, plan.params)
    run(engine)
    assert request.tokens == alone(plan)[0]
    assert 0 < request.accepted < 8


@pytest.mark.parametrize("vocab", [VOCAB - 8, VOCAB + 8])
def test_vocabularies_may_be_padded_differently(vocab: int) -> None:
    plan = Plan([5] * 8, greedy(max_tokens=20, ignore_eos=True), None, 0, None)
    draft = draft_model(vocab=vocab)
    engine = Engine(MockRunner(vocab=VOCAB, max_rows=16), config(), Asking(draft))
    request = engine.add(plan.prompt, plan.params)
    if vocab < VOCAB:  # it cannot read a token that it does not have
        engine.runner._logits = _only_first(engine.runner, vocab)  # type: ignore[attr-defined]
    run(engine)
    assert request.drafted > 0


def _only_first(runner: object, vocab: int) -> object:
    logits_of = runner._logits  # type: ignore[attr-defined]

    def logits(*arguments: object) -> Floats:
        found: Floats = logits_of(*arguments)
        found[vocab:] = 0
        return found

    return logits


@given(
    st.lists(plans, min_size=1, max_size=5),
    st.sampled_from([(0,), (0, 6)]),
    st.integers(0, 12),
    st.integers(1, 4),
    st.integers(2, 12),
)
@settings(max_examples=60, deadline=None)
def test_any_mixture_of_requests_gets_what_each_gets_alone(
    plan: list[Plan], windows: tuple[int, ...], spare: int, sequences: int, draft_tokens: int
) -> None:
    draft = draft_model(
        sequences=sequences, max_tokens=max(sequences, draft_tokens), windows=windows
    )
    runner = MockRunner(
        pages=CONTEXT // 4 + spare,
        max_tokens=40,
        max_sequences=sequences,
        max_rows=sequences + 10,
        vocab=VOCAB,
        windows=windows,
    )
    engine = Engine(runner, config(), Asking(draft))
    requests: list[Request] = []
    step = 0
    while engine.busy or len(requests) < len(plan):
        if step % 2 == 0 and len(requests) < len(plan):
            p = plan[len(requests)]
            requests.append(engine.add(p.prompt, p.params))
        engine.step()
        step += 1
    for p, request in zip(plan, requests, strict=True):
        assert request.tokens == alone(Plan(p.prompt, p.params, None, 0, None), windows)[0]
    assert all(pool.free == pool.count for pool in draft._cache.pools)


def test_a_failed_step_leaves_nothing_behind() -> None:
    draft = draft_model()
    engine = Engine(MockRunner(vocab=VOCAB, max_rows=16), config(), Asking(draft))
    engine.add([5, 6, 7], greedy(max_tokens=20))
    for _ in range(3):
        engine.step()
    engine.reset()
    assert not draft._sequences
    assert all(pool.free == pool.count for pool in draft._cache.pools)


def test_the_native_core_agrees_with_itself() -> None:
    limits = RunnerLimits(64, 2, 2, [10, 10])
    runner = NativeRunner(tiny.executor(), limits, vocab=tiny.VOCAB)
    draft = DraftModel(runner, vocab=tiny.VOCAB, context=tiny.CONTEXT, rope_switch=tiny.SWITCH)
    engine = tiny.engine(speculator=Asking(draft), sequences=2)
    plain = tiny.engine(sequences=2)
    params = SamplingParams(temperature=0, max_tokens=40)
    for each in (engine, plain):
        for first in (3, 4):
            each.add([first] * 50, params)
        run(each)
    assert engine.drawn == plain.drawn
