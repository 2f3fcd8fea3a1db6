"""The engine on a mock model: any mixture of requests gives each what it would get alone."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pocketlm._native import Sampler
from pocketlm.engine.engine import Engine, EngineConfig, Output
from pocketlm.engine.request import Request
from pocketlm.engine.sampling import SamplingParams
from pocketlm.errors import CapacityError, ContextError, RequestError
from pocketlm.models.memory import Capacity, kv_pages, pages_held

from .mock import MockRunner, mock_logits

CONTEXT = 48
VOCAB = 32
SWITCH = 20
EOS = 3


def make_engine(**runner: Any) -> Engine:
    config = EngineConfig(context=CONTEXT, eos_ids=frozenset({EOS}), rope_switch=SWITCH)
    return Engine(MockRunner(vocab=VOCAB, **runner), config)


def run(engine: Engine) -> list[Output]:
    outputs = []
    while engine.busy:
        outputs += engine.step()
    return outputs


def nothing_is_held(engine: Engine) -> bool:
    return all(pool.free == pool.count for pool in engine.cache.pools)


def alone(prompt: list[int], params: SamplingParams, windows: tuple[int, ...] = (0,)) -> list[int]:
    """The reference: no cache, no company, whole prompt at once, a block for each position."""
    engine = Engine(
        MockRunner(
            vocab=VOCAB, pages=CONTEXT, page_positions=1, max_tokens=CONTEXT, windows=windows
        ),
        EngineConfig(
            context=CONTEXT,
            eos_ids=frozenset({EOS}),
            rope_switch=SWITCH,
            prefix_cache=False,
        ),
    )
    request = engine.add(prompt, params)
    run(engine)
    return request.output


def greedy(**options: object) -> SamplingParams:
    return SamplingParams(temperature=0, **options)  # type: ignore[arg-type]


def test_greedy_output_is_the_argmax_of_the_whole_history() -> None:
    engine = make_engine()
    request = engine.add([5, 6, 7], greedy(max_tokens=CONTEXT - 3, ignore_eos=True))
    run(engine)
    tokens = [5, 6, 7]
    while len(tokens) < CONTEXT:
        variant = int(len(tokens) > SWITCH)
        tokens.append(int(np.argmax(mock_logits(np.array(tokens), variant, VOCAB))))
    assert request.tokens == tokens
    assert request.finish_reason == "length"


def test_draw_number_i_is_that_of_output_token_i_after_the_penalties() -> None:
    engine = make_engine()
    params = SamplingParams(
        temperature=1, seed=5, top_k=0, presence_penalty=2, max_tokens=12, ignore_eos=True
    )
    request = engine.add([5, 6, 7], params)
    run(engine)
    sampler = Sampler(VOCAB, temperature=1, top_p=0.95, min_p=0.05, presence_penalty=2, seed=5)
    tokens = [5, 6, 7]
    for index in range(12):
        tokens.append(sampler.sample(mock_logits(np.array(tokens), 0, VOCAB), index)[0])
        sampler.observe_output(tokens[-1])
    assert request.tokens == tokens


@dataclass(frozen=True)
class Plan:
    prompt: list[int]
    params: SamplingParams
    arrives: int  # at which step
    leaves: int | None  # after how many more steps it is aborted


# Prompts often begin alike.
prompts = st.builds(
    lambda head, tail: ([4, 5, 6, 5] * CONTEXT)[:head] + tail,
    st.integers(0, CONTEXT - 15),
    st.lists(st.integers(4, 6), min_size=1, max_size=5),
)
plans = st.builds(
    Plan,
    prompt=prompts,
    params=st.builds(
        SamplingParams,
        temperature=st.sampled_from([0.0, 1.0]),
        seed=st.integers(0, 9),
        max_tokens=st.integers(1, 10),
        presence_penalty=st.sampled_from([0.0, 1.0]),
        ignore_eos=st.booleans(),
    ),
    arrives=st.integers(0, 8),
    leaves=st.one_of(st.none(), st.integers(0, 12)),
)


@given(
    st.lists(plans, min_size=1, max_size=6),
    st.sampled_from([1, 2, 4]),
    st.integers(0, 12),
    st.integers(1, 40),
    st.integers(1, 6),
    st.booleans(),
    st.sampled_from([(0,), (0, 5), (9, 0), (3, 0, 14), (7,), (0, 1), (100,)]),
)
@settings(max_examples=200, deadline=None)
def test_every_interleaving_gives_what_a_request_gets_alone(
    plan: list[Plan],
    size: int,
    spare: int,
    budget: int,
    sequences: int,
    prefix_cache: bool,
    windows: tuple[int, ...],
) -> None:
    runner = MockRunner(
        pages=[pages_held(window, CONTEXT, budget, size) + spare for window in windows],
        windows=windows,
        page_positions=size,
        max_tokens=budget,
        max_sequences=sequences,
        vocab=VOCAB,
    )
    config = EngineConfig(
        context=CONTEXT,
        eos_ids=frozenset({EOS}),
        rope_switch=SWITCH,
        prefix_cache=prefix_cache,
    )
    engine = Engine(runner, config)
    requests: dict[int, Request] = {}
    seen: dict[int, list[int]] = {}
    step = 0
    while engine.busy or step <= 8:
        for i, p in enumerate(plan):
            if p.arrives == step:
                requests[i] = engine.add(p.prompt, p.params)
                seen[requests[i].id] = []
            if i in requests and p.leaves is not None and p.arrives + p.leaves == step:
                engine.abort(requests[i])
        for output in engine.step():
            if output.token is not None:
                seen[output.request.id].append(output.token)
        step += 1
        assert step < 5000, "the engine does not come to an end"
    assert nothing_is_held(engine)
    for i, p in enumerate(plan):
        want = alone(p.prompt, p.params, windows)
        got = requests[i].output
        assert seen[requests[i].id] == got
        if requests[i].finish_reason == "cancelled":
            assert got == want[: len(got)]
        else:
            assert got == want
            assert requests[i].finish_reason == ("stop" if stops(got, p) else "length")


def stops(output: list[int], plan: Plan) -> bool:
    return not plan.params.ignore_eos and output[-1] == EOS


def test_a_shared_beginning_is_computed_once() -> None:
    engine = make_engine(page_positions=4, max_tokens=64)
    prompt = list(range(4, 16))  # 12 tokens: 2 shared blocks, and the last one is computed again
    first = engine.add(prompt, greedy(max_tokens=2))
    run(engine)
    second = engine.add([*prompt, 9], greedy(max_tokens=2))
    third = engine.add(prompt, greedy(max_tokens=2))
    run(engine)
    assert (first.cached, second.cached, third.cached) == (0, 12, 8)
    assert third.output == first.output
    computed = sum(len(b.tokens) for b in engine.runner.steps)  # type: ignore[attr-defined]
    assert computed == (12 + 1) + (1 + 1) + (4 + 1)


def test_a_block_is_not_shared_before_it_is_whole() -> None:
    engine = make_engine(page_positions=4, max_tokens=6)
    prompt = list(range(4, 16))
    left = engine.add(prompt, greedy(max_tokens=2))
    engine.step()
    engine.abort(left)
    request = engine.add(prompt, greedy(max_tokens=2))
    run(engine)
    assert request.cached == 4
    assert request.output == alone(prompt, greedy(max_tokens=2))


def test_preemption_takes_the_youngest_and_changes_no_output() -> None:
    # Two requests of 40 positions at their end in 12 blocks of 4: they cannot both stay.
    engine = make_engine(pages=12, page_positions=4, max_tokens=64, max_sequences=2)
    params = greedy(max_tokens=34, ignore_eos=True)
    old, young = engine.add([4, 5, 6], params), engine.add([7, 8, 9], params)
    late = engine.add([4], greedy(max_tokens=1))
    while not young.preemptions:
        engine.step()
    assert list(engine.scheduler.waiting) == [young, late]
    run(engine)
    assert old.preemptions == 0
    assert young.preemptions > 0
    assert old.output == alone([4, 5, 6], params)
    assert young.output == alone([7, 8, 9], params)


def test_a_preempted_request_leaves_the_step_it_was_part_of() -> None:
    # After 4 steps the old request is at the rope switch and starts again with 6 blocks of 12; in
    # that step the young one, which decodes and is served first, has just taken its 7th.
    engine = make_engine(pages=12, page_positions=4, max_tokens=64)
    params = greedy(max_tokens=20, ignore_eos=True)
    old, young = engine.add([4] * (SWITCH - 3), params), engine.add([5] * (SWITCH + 1), params)
    for _ in range(4):
        engine.step()
    outputs = engine.step()
    assert [o.request for o in outputs] == [old]
    assert (old.preemptions, young.preemptions) == (0, 1)
    run(engine)
    assert old.output == alone([4] * (SWITCH - 3), params)
    assert young.output == alone([5] * (SWITCH + 1), params)


def test_decoding_goes_on_while_a_long_prompt_is_computed() -> None:
    engine = make_engine(pages=64, max_tokens=8)
    talking = engine.add([4], greedy(max_tokens=30, ignore_eos=True))
    engine.step()
    engine.add([5] * 40, greedy(max_tokens=1))
    for _ in range(5):
        before = len(talking.output)
        engine.step()
        assert len(talking.output) == before + 1


def test_rope_switch_recomputes_all_positions_once() -> None:
    engine = make_engine(max_tokens=64)
    request = engine.add([5] * (SWITCH - 2), greedy(max_tokens=6, ignore_eos=True))
    run(engine)
    steps = engine.runner.steps  # type: ignore[attr-defined]
    shapes = [(int(b.starts[0]), int(b.lengths[0]), int(b.variants[0])) for b in steps]
    assert shapes == [
        (0, SWITCH - 2, 0),
        (SWITCH - 2, 1, 0),
        (SWITCH - 1, 1, 0),
        (0, SWITCH + 1, 1),
        (SWITCH + 1, 1, 1),
        (SWITCH + 2, 1, 1),
    ]
    assert len(request.output) == 6


def test_a_prompt_beyond_the_switch_never_uses_the_short_variant() -> None:
    engine = make_engine(max_tokens=64)
    engine.add([5] * (SWITCH + 1), greedy(max_tokens=2, ignore_eos=True))
    run(engine)
    assert all(b.variants[0] == 1 for b in engine.runner.steps)  # type: ignore[attr-defined]


def test_overflow_is_an_error_with_the_numbers() -> None:
    with pytest.raises(CapacityError, match=r"40 tokens and max_tokens is 9: 49 .* has 48"):
        make_engine().add([5] * 40, greedy(max_tokens=9))
    with pytest.raises(CapacityError, match=r"the prompt has 48 tokens, but the context has 48"):
        make_engine().add([5] * 48, greedy())


def test_overflow_stop_ends_with_length_at_the_contexts_end() -> None:
    engine = make_engine()
    request = engine.add([5] * 40, greedy(max_tokens=100, ignore_eos=True), on_overflow="stop")
    run(engine)
    assert (len(request.output), request.finish_reason) == (8, "length")
    with pytest.raises(CapacityError):
        engine.add([5] * 48, greedy(max_tokens=100), on_overflow="stop")


def test_overflow_truncate_drops_the_oldest_and_says_how_many() -> None:
    engine = make_engine()
    prompt = [4, *range(5, 25), *range(5, 25)]
    request = engine.add(
        prompt, greedy(max_tokens=20, ignore_eos=True), on_overflow="truncate", keep=1
    )
    assert request.dropped == 13
    assert request.tokens == [4, *prompt[-27:]]
    run(engine)
    assert len(request.output) == 20


@pytest.mark.parametrize(
    ("prompt", "params", "message"),
    [
        ([], greedy(), "prompt is empty"),
        ([4, VOCAB], greedy(), "token id 32, the vocabulary has 32"),
        ([-1], greedy(), "token id -1"),
        ([4], greedy(logit_bias={VOCAB: 1.0}), "logit_bias has token id 32"),
    ],
)
def test_bad_requests_are_refused(prompt: list[int], params: SamplingParams, message: str) -> None:
    engine = make_engine()
    with pytest.raises(RequestError, match=message):
        engine.add(prompt, params)
    assert not engine.busy


@given(
    st.lists(st.integers(1, 250), min_size=1, max_size=6),
    st.sampled_from([8, 40, 200]),
    st.sampled_from([(0, 40), (64,), (1, 0, 33)]),
)
@settings(max_examples=60, deadline=None)
def test_with_the_pages_that_are_planned_all_sequences_run_at_once(
    prompts: list[int], budget: int, windows: tuple[int, ...]
) -> None:
    context = 320
    capacity = Capacity(tokens=budget, sequences=len(prompts), rows=1, context=context)
    runner = MockRunner(
        windows=windows,
        pages=kv_pages(windows, capacity),
        page_positions=32,
        max_tokens=budget,
        max_sequences=len(prompts),
    )
    engine = Engine(runner, EngineConfig(context=context, prefix_cache=False))
    requests = [engine.add([i + 4] * n, greedy(max_tokens=60)) for i, n in enumerate(prompts)]
    while engine.busy:
        engine.step()
        spare = budget - len(runner.steps[-1].tokens)
        assert spare == 0 or not engine.scheduler.waiting
    assert not any(request.preemptions for request in requests)


def test_a_context_larger_than_the_cache_is_refused() -> None:
    with pytest.raises(CapacityError, match="48 positions does not fit a KV cache of 4 pages of 4"):
        make_engine(pages=4)
    make_engine(pages=[12, 7], windows=[0, 8])
    with pytest.raises(CapacityError, match="of 12 and 6 pages"):
        make_engine(pages=[12, 6], windows=[0, 8])


def test_banning_every_token_ends_that_request_alone() -> None:
    engine = make_engine()
    bans = dict.fromkeys(range(VOCAB), -math.inf)
    broken = engine.add([4], greedy(logit_bias=bans))
    whole = engine.add([4], greedy(max_tokens=4, ignore_eos=True))
    outputs = run(engine)
    end = next(o for o in outputs if o.request is broken)
    assert end.finish_reason == "error"
    assert isinstance(end.error, RequestError)
    assert "bans every token" in str(end.error)
    assert len(whole.output) == 4
    assert nothing_is_held(engine)


class Speller:
    """A decoder whose tokens are letters; stops at a string as the real one does."""

    def __init__(self, stop: str | None = None) -> None:
        self.text = ""
        self.stop = stop
        self.stopped: str | None = None

    def push(self, token: int, /) -> str:
        self.text += chr(ord("A") + token)
        if self.stop and self.stop in self.text:
            self.stopped = self.stop
        return "" if self.stopped else self.text[-1]

    def finish(self) -> str:
        return "|"


def test_a_stop_string_ends_with_stop() -> None:
    free = make_engine()
    request = free.add([5], greedy(max_tokens=6, ignore_eos=True), decoder=Speller())
    text = "".join(o.text for o in run(free))
    assert text.endswith("|")
    assert len(text) == 7

    engine = make_engine()
    stop = text[2:4]
    request = engine.add([5], greedy(max_tokens=6, ignore_eos=True), decoder=Speller(stop))
    outputs = run(engine)
    assert request.finish_reason == "stop"
    assert len(request.output) == text.index(stop) + 2
    assert outputs[-1].finish_reason == "stop"


def test_stop_ids_and_ignore_eos() -> None:
    want = alone([5], greedy(max_tokens=8, ignore_eos=True))
    engine = make_engine()
    request = engine.add([5], greedy(max_tokens=8, ignore_eos=True, stop_ids={want[2]}))
    run(engine)
    assert request.output == want[: want.index(want[2]) + 1]
    assert request.finish_reason == "stop"


def test_logprobs_are_of_the_raw_logits() -> None:
    engine = make_engine()
    engine.add([5, 6], greedy(max_tokens=1, logprobs=3, logit_bias={7: 100.0}))
    (output,) = run(engine)
    logits = mock_logits(np.array([5, 6]), 0, VOCAB).astype(np.float64)
    want = logits - np.log(np.exp(logits).sum())
    assert output.token == 7
    assert output.logprobs is not None
    assert output.logprobs.logprob == pytest.approx(want[7], abs=1e-6)
    order = np.argsort(-want, kind="stable")[:3]
    assert [i for i, _ in output.logprobs.best] == list(order)
    assert [p for _, p in output.logprobs.best] == pytest.approx(list(want[order]), abs=1e-6)


def test_an_aborted_request_gives_its_blocks_back() -> None:
    engine = make_engine()
    running = engine.add([5] * 10, greedy(max_tokens=20))
    engine.step()
    waiting = engine.add([6] * 10, greedy(max_tokens=20))
    for request in (running, waiting, running):  # twice is once
        engine.abort(request)
    assert running.finish_reason == waiting.finish_reason == "cancelled"
    assert nothing_is_held(engine)
    assert engine.step() == []


def test_an_error_of_the_runner_leaves_the_request_as_it_was() -> None:
    engine = make_engine()
    request = engine.add([5, 6], greedy(max_tokens=3, ignore_eos=True))
    step, engine.runner.step = engine.runner.step, None  # type: ignore[method-assign, assignment]
    with pytest.raises(TypeError):
        engine.step()
    engine.runner.step = step  # type: ignore[method-assign]
    run(engine)
    assert request.output == alone([5, 6], greedy(max_tokens=3, ignore_eos=True))


def scores_of(tokens: list[int]) -> list[float]:
    """Of the tokens after the first, by the definition."""
    variant = int(len(tokens) > SWITCH)
    found = []
    for i in range(1, len(tokens)):
        logits = mock_logits(np.array(tokens[:i]), variant, VOCAB).astype(np.float64)
        found.append(logits[tokens[i]] - np.log(np.exp(logits).sum()))
    return found


@given(
    st.lists(st.integers(4, 6), min_size=1, max_size=30),
    st.integers(1, 20),
    st.integers(2, 8),
    st.integers(0, 5),
)
@settings(max_examples=100, deadline=None)
def test_a_prompts_tokens_are_scored_whatever_is_cached_and_runs_beside(
    prompt: list[int], budget: int, rows: int, spare: int
) -> None:
    runner = MockRunner(
        pages=pages_held(0, CONTEXT, budget, 4) + spare,
        max_tokens=budget,
        max_sequences=2,
        max_rows=rows,
        vocab=VOCAB,
    )
    engine = Engine(runner, EngineConfig(context=CONTEXT, rope_switch=SWITCH))
    params = greedy(max_tokens=12, ignore_eos=True)
    engine.add(prompt, params)  # whose pages the second one may not take over
    for _ in range(8):
        engine.step()
    scored = engine.add(prompt, params, prompt_logprobs=2)
    other = engine.add([*prompt, 9], params)
    run(engine)
    assert [s.logprob for s in scored.prompt_scores] == pytest.approx(scores_of(prompt), abs=1e-5)
    assert all(len(s.best) == 2 for s in scored.prompt_scores)
    assert scored.output == alone(prompt, params)
    assert other.output == alone([*prompt, 9], params)
    assert not other.prompt_scores


def test_scores_that_are_known_are_not_computed_again_after_preemption() -> None:
    engine = make_engine(pages=12, page_positions=4, max_tokens=64, max_sequences=2, max_rows=8)
    engine.add([4, 5, 6], greedy(max_tokens=34, ignore_eos=True))
    young = engine.add([7, 8, 9, 10, 11], greedy(max_tokens=30, ignore_eos=True), prompt_logprobs=0)
    run(engine)
    assert young.preemptions > 0
    assert [s.logprob for s in young.prompt_scores] == pytest.approx(scores_of([7, 8, 9, 10, 11]))


def test_min_tokens_bans_what_ends_the_answer() -> None:
    for first in range(4, VOCAB):
        free = alone([first], greedy(max_tokens=30))
        if len(free) < 5:  # ends early, by itself
            break
    tokens = [first]
    for index in range(12):
        logits = mock_logits(np.array(tokens), 0, VOCAB)
        if index < 10:
            logits[[EOS, 9]] = -np.inf
        tokens.append(int(np.argmax(logits)))
        if tokens[-1] in (EOS, 9):
            break
    engine = make_engine()
    request = engine.add([first], greedy(max_tokens=12, min_tokens=10, stop_ids={9}))
    run(engine)
    assert request.tokens == tokens
    assert len(request.output) >= 10


def test_a_request_may_ask_for_less_than_the_whole_context() -> None:
    engine = make_engine()
    request = engine.add([5] * 6, greedy(ignore_eos=True), context=10)
    run(engine)
    assert (len(request.output), request.finish_reason) == (4, "length")
    with pytest.raises(ContextError, match="the prompt has 10 tokens, but the context has 10"):
        engine.add([5] * 10, greedy(), context=10)
    with pytest.raises(ContextError, match=r"context of 49 .* runs with 48"):
        engine.add([5], greedy(), context=CONTEXT + 1)
    with pytest.raises(RequestError, match="at least 1"):
        engine.add([5], greedy(), context=0)


def test_a_snapshot_of_what_it_does() -> None:
    engine = make_engine(pages=12, page_positions=4, max_tokens=64, max_sequences=2)
    params = greedy(max_tokens=34, ignore_eos=True)
    engine.add([4, 5, 6, 7, 8], params)
    engine.step()
    stats = engine.stats()
    assert (stats.running, stats.waiting, stats.steps, stats.step_tokens) == (1, 0, 1, 5)
    assert stats.kv_usage == pytest.approx(2 / 12)
    assert (stats.prefix_queries, stats.prefix_hits) == (5, 0)
    engine.add([4, 5, 6, 7, 9], params)
    engine.add([4], params)
    engine.step()
    stats = engine.stats()
    assert (stats.running, stats.waiting, stats.step_tokens) == (2, 1, 2)
    assert (stats.prefix_queries, stats.prefix_hits) == (10, 4)
    run(engine)
    assert engine.stats().preemptions > 0
    assert engine.stats().kv_usage == 0


def test_a_request_waits_while_those_that_run_are_going_to_need_the_room() -> None:
    # 12 blocks of 4: the first prompt needs 10 of them, of which the first step takes 2.
    engine = make_engine(pages=12, page_positions=4, max_tokens=8)
    engine.add([4] * 40, greedy(max_tokens=3, ignore_eos=True))
    engine.step()
    late = engine.add([5] * 12, greedy(max_tokens=1))
    run(engine)
    assert late.preemptions == 0
    assert late.output == alone([5] * 12, greedy(max_tokens=1))


@pytest.mark.parametrize("best", [-1, 101, True])
def test_a_wrong_number_of_prompt_logprobs_is_refused(best: int) -> None:
    with pytest.raises(RequestError, match="prompt_logprobs"):
        make_engine().add([5], greedy(), prompt_logprobs=best)
