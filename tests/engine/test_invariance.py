"""Contract 2 of the design on the native core: the bits of a token's logits do not depend on what
else is in the batch, how the prompt was cut, threads, the prefix cache, preemption or guessed
tokens."""

from __future__ import annotations

import math
from collections.abc import Iterator
from functools import cache

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pocketlm import _native
from pocketlm.engine.request import Request
from pocketlm.engine.sampling import SamplingParams
from pocketlm.engine.score import embed, embed_steps, score
from pocketlm.models.memory import pages_held

from . import tiny
from .speculation.guessing import Guessing, knowing_guess


def prompt_of(seed: int, length: int) -> list[int]:
    # Seeds of one residue share a beginning, so that the prefix cache has something to find.
    head = np.random.default_rng(seed % 2).integers(0, tiny.VOCAB, 70).tolist()
    tail = np.random.default_rng(seed).integers(0, tiny.VOCAB, 90).tolist()
    return (head + tail)[:length]


@cache
def alone(
    seed: int, length: int, count: int, block_type: int, kv: str, isa: str
) -> tuple[bytes, ...]:
    """Logits of ``count`` greedy tokens: one request, one thread, whole prompt in one step."""
    assert _native.isa() == isa
    engine = tiny.engine(block_type=block_type, kv=kv, prefix_cache=False, sequences=1)
    params = SamplingParams(temperature=0, max_tokens=count)
    request = engine.add(prompt_of(seed, length), params)
    while engine.busy:
        engine.step()
    return tuple(engine.drawn[request.id])


# (which prompt, its length, how many tokens, at which step it comes)
arrivals = st.tuples(
    st.integers(0, 3),
    st.sampled_from([1, 31, 32, 33, 65, 79, 90, 140]),
    st.integers(1, 6),
    st.integers(0, 4),
)


@pytest.fixture(params=_native.isas())
def isa(request: pytest.FixtureRequest) -> Iterator[str]:
    before = _native.isa()
    _native.select_isa(request.param)
    yield request.param
    _native.select_isa(before)


@given(
    requests=st.lists(arrivals, min_size=1, max_size=5),
    max_tokens=st.sampled_from([16, 33, 100, 256]),
    spare_pages=st.tuples(st.integers(0, 12), st.integers(0, 4)),
    sequences=st.integers(1, 5),
    threads=st.integers(1, 3),
    prefix_cache=st.booleans(),
    wrong=st.sampled_from([None, 0.0, 0.3, 1.0]),
    model=st.sampled_from(
        [(tiny.F32, "f32"), (tiny.F32, "f16"), (tiny.Q8_0, "f16"), (tiny.Q8_0, "q8")]
    ),
)
@settings(
    max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
def test_logits_are_bit_equal_in_any_company(
    requests: list[tuple[int, int, int, int]],
    max_tokens: int,
    spare_pages: tuple[int, int],
    sequences: int,
    threads: int,
    prefix_cache: bool,
    wrong: float | None,
    model: tuple[int, str],
    isa: str,
) -> None:
    """``wrong``: how likely a guessed token is spoilt; None is no guesses."""
    block_type, kv = model
    whole: dict[Request, list[int]] = {}
    guess = knowing_guess(lambda r: whole[r], wrong=wrong or 0, vocab=tiny.VOCAB)
    engine = tiny.engine(
        threads=threads,
        block_type=block_type,
        kv=kv,
        max_tokens=max_tokens,
        sequences=sequences,
        pages=tiny.CONTEXT // 32 + spare_pages[0],
        windowed_pages=pages_held(tiny.WINDOW, tiny.CONTEXT, max(max_tokens, 16), 32)
        + spare_pages[1],
        prefix_cache=prefix_cache,
        speculator=None if wrong is None else Guessing(guess),
    )
    ids = {}
    step = 0
    while engine.busy or step <= 4:
        for i, (seed, length, count, arrives) in enumerate(requests):
            if arrives == step:
                params = SamplingParams(temperature=0, max_tokens=count)
                request = engine.add(prompt_of(seed, length), params)
                ids[i] = request.id
                rows = alone(seed, length, count, block_type, kv, isa)
                drawn = [int(np.frombuffer(row, np.float32).argmax()) for row in rows]
                whole[request] = request.tokens + drawn
        engine.step()
        step += 1
    for i, (seed, length, count, _) in enumerate(requests):
        assert tuple(engine.drawn[ids[i]]) == alone(seed, length, count, block_type, kv, isa)


@pytest.mark.parametrize("kv", ["f16", "f32"])
def test_the_bits_are_those_of_layers_that_keep_everything(kv: str) -> None:
    seed, length, count = 3, 90, 30
    engine = tiny.engine(kv=kv, max_tokens=16, windowed_pages=3)
    request = engine.add(prompt_of(seed, length), SamplingParams(temperature=0, max_tokens=count))
    while engine.busy:
        engine.step()
    tokens = np.array(request.tokens[:-1], np.int32)

    whole = tiny.executor()
    pages = -(-len(tokens) // 32)
    whole.allocate(len(tokens), 1, count, [pages, pages], kv)
    tables = np.tile(np.arange(pages, dtype=np.int32), (2, 1, 1))
    lengths, zero = np.array([len(tokens)], np.int32), np.zeros(1, np.int32)
    variant = np.array([1], np.int32)  # the prompt is beyond the switch already
    rows = np.arange(length - 1, len(tokens), dtype=np.int32)
    logits = whole.step(tokens, lengths, zero, tables, variant, rows)
    assert [row.tobytes() for row in logits] == engine.drawn[request.id]


@pytest.mark.parametrize(("pages", "windowed_pages"), [(6, 40), (40, 4)])
def test_preemption_happens_and_changes_no_bit(pages: int, windowed_pages: int) -> None:
    engine = tiny.engine(pages=pages, windowed_pages=windowed_pages, sequences=4, max_tokens=48)
    params = SamplingParams(temperature=0, max_tokens=60)
    requests = [engine.add(prompt_of(seed, 40), params) for seed in (1, 2)]
    while engine.busy:
        engine.step()
    assert requests[1].preemptions > 0
    for seed, request in zip((1, 2), requests, strict=True):
        assert tuple(engine.drawn[request.id]) == alone(
            seed, 40, 60, tiny.F32, "f16", _native.isa()
        )


def test_the_prefix_cache_is_used_and_changes_no_bit() -> None:
    engine = tiny.engine()
    for seed in (0, 2):
        request = engine.add(prompt_of(seed, 79), SamplingParams(temperature=0, max_tokens=1))
        while engine.busy:
            engine.step()
        assert tuple(engine.drawn[request.id]) == alone(seed, 79, 1, tiny.F32, "f16", _native.isa())
    assert request.cached == 64


def drawn(engine: tiny.RecordingEngine, prompt: list[int]) -> tuple[list[bytes], int]:
    """The logits of three tokens, and how much of the prompt was cached."""
    request = engine.add(prompt, SamplingParams(temperature=0, max_tokens=3))
    while engine.busy:
        engine.step()
    return engine.drawn[request.id], request.cached


@given(
    shared=st.integers(0, 140),
    between=st.sampled_from([0, 20, 100]),
    spare=st.integers(0, 4),
)
@settings(max_examples=40, deadline=None)
def test_a_cached_beginning_of_any_length_changes_no_bit(
    shared: int, between: int, spare: int
) -> None:
    held = pages_held(tiny.WINDOW, tiny.CONTEXT, 32, 32)
    engine = tiny.engine(max_tokens=32, windowed_pages=held + spare)
    prompt = prompt_of(1, 140)
    drawn(engine, prompt)
    if between:
        drawn(engine, prompt_of(2, between))
    asked = [*prompt[:shared], *prompt_of(3, 10)]
    logits, cached = drawn(engine, asked)
    assert logits == drawn(tiny.engine(prefix_cache=False), asked)[0]
    if not between and len(asked) > tiny.SWITCH:
        # Of the 5 pages that 142 positions took, the group with a window has lost the first ones.
        gone = max(0, 5 - held - spare)
        pages = shared // 32
        first = max(0, 32 * pages - tiny.WINDOW + 1) // 32
        assert cached == (32 * pages if first >= gone else 0)


@pytest.mark.parametrize("length", [2, 17, 79, 80, 81, 82, 160])
def test_scores_are_the_log_softmax_of_the_engines_logits(length: int) -> None:
    engine = tiny.engine()
    tokens = prompt_of(1, length)
    logprobs = score(engine, tokens)
    assert logprobs.shape == (length - 1,)
    assert all(pool.free == pool.count for pool in engine.cache.pools)
    at = length - 2  # the token that is scored last is the one a prompt of all others would draw
    (row,) = alone(1, length - 1, 1, tiny.F32, "f16", _native.isa())
    logits = np.frombuffer(row, np.float32).astype(np.float64)
    want = logits[tokens[-1]] - logits.max() - math.log(np.exp(logits - logits.max()).sum())
    assert logprobs[at] == pytest.approx(want, abs=1e-6)


def test_embeddings_have_length_one_and_tell_texts_apart() -> None:
    engine = tiny.engine()
    one, same, other = (embed(engine, prompt_of(seed, 50)) for seed in (1, 1, 2))
    assert one.shape == (64,)
    assert np.linalg.norm(one) == pytest.approx(1, abs=1e-6)
    assert (one == same).all()
    assert float(one @ other) < 0.999


def test_an_embedding_in_steps_between_others_is_the_same_vector() -> None:
    engine = tiny.engine(max_tokens=64, pages=10)
    want = embed(engine, prompt_of(1, 150))
    params = SamplingParams(temperature=0, max_tokens=60)
    requests = [engine.add(prompt_of(seed, 70), params) for seed in (2, 3)]
    engine.step()
    steps = embed_steps(engine, prompt_of(1, 150))
    waited = advanced = 0
    found = None
    while found is None:
        engine.step()
        try:
            went_on = next(steps)
        except StopIteration as done:
            found = done.value
        else:
            waited += not went_on
            advanced += went_on
    while engine.busy:
        engine.step()
    assert waited > 0
    assert advanced >= 10
    assert found.tobytes() == want.tobytes()
    for seed, request in zip((2, 3), requests, strict=True):
        expected = alone(seed, 70, 60, tiny.F32, "f16", _native.isa())
        assert tuple(engine.drawn[request.id]) == expected
    assert all(pool.free == pool.count for pool in engine.cache.pools)


def test_an_embedding_that_is_left_gives_its_blocks_back() -> None:
    engine = tiny.engine()
    steps = embed_steps(engine, prompt_of(1, 150))
    assert next(steps)
    steps.close()
    assert all(pool.free == pool.count for pool in engine.cache.pools)
