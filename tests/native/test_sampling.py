"""The native sampler against a slow reference in float64, and against its own distribution."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from pocketlm._native import Sampler, draw_rows, score_rows, target_logprobs

Logits = NDArray[np.float32]


def row(*values: float) -> Logits:
    return np.array(values, np.float32)


def noise(size: int, seed: int = 0, scale: float = 3.0) -> Logits:
    return (np.random.default_rng(seed).standard_normal(size) * scale).astype(np.float32)


def greedy(
    logits: Logits, seen: Sequence[int] = (), out: Sequence[int] = (), **options: float
) -> int:
    sampler = Sampler(len(logits), temperature=0, **options)  # type: ignore[arg-type]
    sampler.observe(np.array(seen, np.int32), False)
    sampler.observe(np.array(out, np.int32), True)
    return sampler.sample(logits, 0)[0]


def reference(
    logits: Logits,
    *,
    temperature: float = 1,
    top_k: int = 0,
    typical_p: float = 1,
    top_p: float = 1,
    min_p: float = 0,
) -> dict[int, float]:
    """The distribution that the documented chain leaves, by full sorts in float64."""
    ids = np.argsort(-logits.astype(np.float64), kind="stable")
    if top_k:
        ids = ids[:top_k]
    ids = np.sort(ids)
    values = logits[ids].astype(np.float64)

    def probabilities() -> NDArray[np.float64]:
        weights = np.exp(values - values.max())
        return weights / weights.sum()

    def keep(order: NDArray[np.int64], mass: float) -> None:
        nonlocal ids, values
        total = np.cumsum(probabilities()[order])
        kept = np.sort(order[: int(np.searchsorted(total, mass)) + 1])
        ids, values = ids[kept], values[kept]

    if typical_p < 1:
        p = probabilities()
        entropy = -(p * np.log(p)).sum()
        keep(np.argsort(np.abs(-np.log(p) - entropy), kind="stable"), typical_p)
    if top_p < 1:
        keep(np.argsort(-values, kind="stable"), top_p)
    if min_p > 0:
        kept = values >= values.max() + math.log(min_p)
        ids, values = ids[kept], values[kept]
    weights = np.exp((values - values.max()) / temperature)
    return dict(zip(ids.tolist(), (weights / weights.sum()).tolist(), strict=True))


def drawn(logits: Logits, draws: int, seed: int = 1, **options: float) -> Counter[int]:
    sampler = Sampler(len(logits), seed=seed, **options)  # type: ignore[arg-type]
    return Counter(sampler.sample(logits, i)[0] for i in range(draws))


CHAINS: list[dict[str, float]] = [
    {"temperature": 1},
    {"temperature": 0.5},
    {"temperature": 2},
    {"top_k": 5},
    {"top_p": 0.7},
    {"min_p": 0.2},
    {"typical_p": 0.6},
    {"top_k": 12, "typical_p": 0.9, "top_p": 0.8, "min_p": 0.1, "temperature": 1.5},
    {"typical_p": 0.9, "top_p": 0.8, "temperature": 0.7},
]


@pytest.mark.parametrize("chain", CHAINS, ids=str)
def test_draws_follow_the_distribution_of_the_chain(chain: dict[str, float]) -> None:
    logits = noise(24, seed=3, scale=1.5)
    want = reference(logits, **chain)  # type: ignore[arg-type]
    draws = 20_000
    got = drawn(logits, draws, **chain)
    assert set(got) <= set(want)
    # Chi-square over cells of at least 5 expected draws, far in its tail; the seed is fixed.
    cells = [(got[i], p * draws) for i, p in want.items() if p * draws >= 5]
    statistic = sum((seen - expected) ** 2 / expected for seen, expected in cells)
    degrees = len(cells) - 1
    assert statistic < degrees + 5 * math.sqrt(2 * max(degrees, 1)) + 5


@given(
    seed=st.integers(0, 2**32),
    size=st.sampled_from([1, 2, 17, 300, 3000]),
    scale=st.sampled_from([0.05, 1.0, 8.0]),
    coarse=st.booleans(),
    top_k=st.sampled_from([0, 1, 2, 40, 5000]),
    typical_p=st.sampled_from([1.0, 0.9, 0.2]),
    top_p=st.sampled_from([1.0, 0.95, 0.5, 0.01]),
    min_p=st.sampled_from([0.0, 0.05, 1.0]),
)
@settings(max_examples=200, deadline=None)
def test_the_set_left_is_the_references(
    seed: int, size: int, scale: float, coarse: bool, **chain: float
) -> None:
    logits = noise(size, seed, scale)
    if coarse:  # many ties
        logits = np.round(logits).astype(np.float32)
    want = reference(logits, **chain)  # type: ignore[arg-type]
    sampler = Sampler(size, seed=seed, **chain)  # type: ignore[arg-type]
    got = {sampler.sample(logits, i)[0] for i in range(100)}
    # Which token sits on the edge of a mass may differ by one rounding; its probability is small
    # beside the whole, so only a difference of more than one token is an error.
    assert len(got - set(want)) <= 1


def test_tiny_and_whole_vocabularies_agree_on_top_p() -> None:
    # 1,100 tokens share the mass evenly: the shortcut over the best 1,024 cannot hold 95 % of it.
    logits = np.zeros(1200, np.float32)
    logits[1100:] = -20
    assert set(drawn(logits, 4000, top_p=0.95)) <= set(range(1046))
    assert max(drawn(logits, 4000, top_p=0.95)) > 1024


def test_greedy_is_the_argmax_and_ties_go_to_the_lowest_id() -> None:
    assert greedy(row(1, 3, 2)) == 1
    assert greedy(row(1, 3, 3, 3)) == 1
    assert greedy(np.zeros(262_144, np.float32)) == 0
    logits = noise(262_144)
    assert greedy(logits) == int(np.argmax(logits))


def test_a_temperature_too_small_to_divide_by_is_greedy() -> None:
    logits = row(1, 1.0001, 0.5)
    assert Sampler(3, temperature=1e-30).sample(logits, 0)[0] == 1


def test_the_draw_depends_on_seed_and_index_alone() -> None:
    logits = noise(1000)
    forwards = [Sampler(1000, seed=5).sample(logits, i)[0] for i in range(40)]
    one = Sampler(1000, seed=5)
    backwards = [one.sample(logits, i)[0] for i in reversed(range(40))]
    assert forwards == backwards[::-1]
    assert forwards != [Sampler(1000, seed=6).sample(logits, i)[0] for i in range(40)]


def test_a_seed_draws_the_same_tokens_on_every_machine() -> None:
    logits = ((np.arange(1000) * 7919) % 1000 / 250).astype(np.float32)
    sampler = Sampler(1000, seed=5, top_p=0.9, temperature=0.8)
    assert [sampler.sample(logits, i)[0] for i in range(8)] == [
        767,
        346,
        963,
        667,
        680,
        519,
        990,
        633,
    ]


def test_repetition_penalty_covers_prompt_and_output() -> None:
    logits = row(2.0, 1.9, -1.0)
    assert greedy(logits, repetition_penalty=1.5) == 0
    assert greedy(logits, seen=[0], repetition_penalty=1.5) == 1
    assert greedy(logits, out=[0], repetition_penalty=1.5) == 1
    # Once or often, it counts once; a negative logit moves down, not up.
    assert greedy(row(3.1, 1.0), seen=[0] * 50, repetition_penalty=3) == 0
    assert greedy(row(-1.0, -1.4), seen=[0], repetition_penalty=1.5) == 1


def test_frequency_and_presence_penalties_cover_the_output_only() -> None:
    logits = row(2.0, 1.0)
    assert greedy(logits, seen=[0, 0, 0], frequency_penalty=1, presence_penalty=1) == 0
    assert greedy(logits, out=[0], frequency_penalty=0.9) == 0
    assert greedy(logits, out=[0, 0], frequency_penalty=0.9) == 1
    assert greedy(logits, out=[0, 0], presence_penalty=0.9) == 0
    assert greedy(logits, out=[0], presence_penalty=1.1) == 1


@given(
    prompt=st.lists(st.integers(0, 5), max_size=20),
    output=st.lists(st.integers(0, 5), max_size=20),
    repetition=st.sampled_from([1.0, 1.3, 0.8]),
    frequency=st.sampled_from([0.0, 0.4, -0.4]),
    presence=st.sampled_from([0.0, 0.7]),
    window=st.sampled_from([0, 1, 7]),
    bias=st.dictionaries(st.integers(0, 5), st.sampled_from([-2.0, 3.0, -math.inf]), max_size=5),
)
@settings(max_examples=200, deadline=None)
def test_penalties_equal_a_slow_reference(
    prompt: list[int],
    output: list[int],
    repetition: float,
    frequency: float,
    presence: float,
    window: int,
    bias: dict[int, float],
) -> None:
    logits = noise(6, seed=len(prompt) + 31 * len(output), scale=1)
    sampler = Sampler(
        6,
        temperature=0,
        repetition_penalty=repetition,
        frequency_penalty=frequency,
        presence_penalty=presence,
        penalty_window=window,
        logit_bias=list(bias.items()),
    )
    sampler.observe(np.array(prompt, np.int32), False)
    for token in output:
        sampler.observe_output(token)
    history = [(t, False) for t in prompt] + [(t, True) for t in output]
    history = history[-window:] if window else history
    want = logits.copy()
    for token, value in bias.items():
        want[token] += np.float32(value)
    for token in {t for t, _ in history}:
        factor = np.float32(repetition)
        want[token] = want[token] / factor if want[token] > 0 else want[token] * factor
        count = sum(1 for t, is_output in history if t == token and is_output)
        if count:
            want[token] -= np.float32(frequency) * np.float32(count) + np.float32(presence)
    assert sampler.sample(logits, 0)[0] == int(np.argmax(want))


def test_logit_bias_forces_and_bans() -> None:
    logits = row(5, 1, 0)
    assert Sampler(3, temperature=0, logit_bias=[(2, 100.0)]).sample(logits, 0)[0] == 2
    ban = Sampler(3, temperature=1, logit_bias=[(0, -math.inf)])
    assert 0 not in {ban.sample(logits, i)[0] for i in range(100)}


def test_logprobs_are_the_log_softmax_of_the_raw_logits() -> None:
    logits = noise(50_000, scale=4)
    exact = logits.astype(np.float64)
    exact -= np.log(np.exp(exact - exact.max()).sum()) + exact.max()
    sampler = Sampler(50_000, logprobs=5, temperature=0.3, logit_bias=[(7, 50.0)])
    token, logprob, best = sampler.sample(logits, 0)
    assert token == 7
    assert logprob == pytest.approx(exact[7], abs=1e-5)
    order = np.argsort(-exact, kind="stable")[:5]
    assert [i for i, _ in best] == order.tolist()
    assert [p for _, p in best] == pytest.approx(exact[order].tolist(), abs=1e-5)
    assert Sampler(50_000).sample(logits, 0)[1:] == (0.0, ())


def test_logprobs_of_huge_logits_stay_finite() -> None:
    _, logprob, _ = Sampler(3, temperature=0, logprobs=0).sample(row(3e38, 3e38, -3e38), 0)
    assert logprob == pytest.approx(-math.log(2))


def test_target_logprobs_by_row() -> None:
    logits = np.stack([noise(1000, seed=i) for i in range(4)])
    targets = np.array([0, 999, 5, 5], np.int32)
    exact = logits.astype(np.float64)
    exact -= np.log(np.exp(exact).sum(axis=1, keepdims=True))
    assert target_logprobs(logits, targets) == pytest.approx(exact[range(4), targets], abs=1e-5)
    for bad in (-1, 1000):
        with pytest.raises(ValueError, match="target"):
            target_logprobs(logits, np.array([0, 0, 0, bad], np.int32))
    with pytest.raises(ValueError, match="rows"):
        target_logprobs(logits, targets[:3])


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("at", [0, 15, 16, 40])
def test_a_logit_that_is_not_finite_is_named(bad: float, at: int) -> None:
    logits = noise(41)
    logits[at] = bad
    with pytest.raises(ValueError, match=f"token {at} is -?(nan|inf)"):
        Sampler(41).sample(logits, 0)


@pytest.mark.parametrize(
    "options",
    [
        {"temperature": -1},
        {"temperature": math.nan},
        {"top_k": -1},
        {"top_p": 0},
        {"top_p": 1.5},
        {"min_p": -0.1},
        {"typical_p": math.nan},
        {"repetition_penalty": 0},
        {"frequency_penalty": math.inf},
        {"penalty_window": -1},
        {"logprobs": -2},
        {"logit_bias": [(8, 1.0)]},
        {"logit_bias": [(-1, 1.0)]},
        {"logit_bias": [(1, math.nan)]},
        {"logit_bias": [(1, math.inf)]},
    ],
    ids=str,
)
def test_parameters_out_of_range_are_refused(options: dict[str, object]) -> None:
    with pytest.raises(ValueError, match=next(iter(options))):
        Sampler(8, **options)  # type: ignore[arg-type]


def test_wrong_shapes_and_types_are_refused() -> None:
    sampler = Sampler(8)
    with pytest.raises(ValueError, match="one logit per token"):
        sampler.sample(noise(7), 0)
    for wrong in (np.zeros(8), np.zeros((1, 8), np.float32), np.zeros(16, np.float32)[::2]):
        with pytest.raises(TypeError):
            sampler.sample(wrong, 0)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="outside the vocabulary"):
        sampler.observe_output(8)
    with pytest.raises(ValueError, match="every token"):
        Sampler(1, logit_bias=[(0, -math.inf)]).sample(noise(1), 0)


def mask_of(vocab: int, allowed: Sequence[int]) -> NDArray[np.uint32]:
    bits = np.zeros(32 * -(-vocab // 32), np.uint8)
    bits[list(allowed)] = 1
    return np.packbits(bits, bitorder="little").view(np.uint32)


def sampled(vocab: int, seed: int, **options: float) -> Sampler:
    return Sampler(vocab, seed=seed, logprobs=2, presence_penalty=0.7, **options)  # type: ignore[arg-type]


@given(
    st.sampled_from([31, 32, 33, 100]),
    st.integers(0, 1000),
    st.data(),
)
@settings(max_examples=60, deadline=None)
def test_a_mask_is_the_ban_of_all_other_tokens(vocab: int, seed: int, data: st.DataObject) -> None:
    allowed = data.draw(st.sets(st.integers(0, vocab - 1), min_size=1))
    logits = noise(vocab, seed)
    bans = [(token, -math.inf) for token in range(vocab) if token not in allowed]
    for temperature in (0.0, 1.0):
        masked = sampled(vocab, seed, temperature=temperature)
        banned = sampled(vocab, seed, temperature=temperature, logit_bias=bans)
        rows = logits[None]
        ((drawn, error, _),) = draw_rows(
            rows, [(masked, 3, 0, [], mask_of(vocab, list(allowed))[None])]
        )
        assert error is None
        assert drawn == [banned.sample(logits, 3)]
        assert drawn[0][0] in allowed


@given(st.lists(st.integers(0, 3), min_size=1, max_size=6), st.integers(0, 99))
@settings(max_examples=60, deadline=None)
def test_rows_are_drawn_as_one_after_the_other(guessed: list[int], seed: int) -> None:
    """Each up to the first token that was not guessed, with penalties that count those before."""
    vocab = 50
    logits = noise(vocab * (sum(guessed) + len(guessed)), seed).reshape(-1, vocab)
    asked, want, row = [], [], 0
    for i, count in enumerate(guessed):
        reference = sampled(vocab, i)
        tokens = []
        for at in range(count + 1):
            tokens.append(reference.sample(logits[row + at], 5 + at))
            reference.observe_output(tokens[-1][0])
        guesses = [token for token, _, _ in tokens[:count]]
        if count > 1 and i % 2:  # one is wrong
            guesses[1] = (guesses[1] + 1) % vocab
            tokens = tokens[:2]
        asked.append((sampled(vocab, i), 5, row, guesses, None))
        want.append((tokens, None, False))
        row += count + 1
    assert draw_rows(logits, asked) == want


def test_an_error_is_one_sequences_own() -> None:
    logits = np.stack([noise(8), np.full(8, math.nan, np.float32), noise(8), noise(8)])
    banned = Sampler(8, logit_bias=[(i, -math.inf) for i in range(8)])
    first, second, third, fourth = draw_rows(
        logits,
        [
            (Sampler(8), 0, 0, [], None),
            (Sampler(8), 0, 1, [], None),
            (banned, 0, 2, [], None),
            (Sampler(8, temperature=0), 0, 3, [], mask_of(8, [5])[None]),
        ],
    )
    assert first[1:] == (None, False)
    assert "is nan" in str(second[1])
    assert not second[2]
    assert "bans every token" in str(third[1])
    assert third[2]
    assert fourth[0][0][0] == 5


def test_what_ends_an_answer_is_banned_before_min_tokens() -> None:
    logits = row(0, 9, 5, 7)
    sampler = Sampler(4, temperature=0, min_tokens=3, ends=[1, 3])
    assert [sampler.sample(logits, i)[0] for i in range(5)] == [2, 2, 2, 1, 1]
    # A mask that leaves only these wins.
    ((drawn, error, _),) = draw_rows(logits[None], [(sampler, 0, 0, [], mask_of(4, [3])[None])])
    assert (drawn[0][0], error) == (3, None)


def test_wrong_rows_masks_and_vocabularies_are_refused() -> None:
    logits = noise(80).reshape(2, 40)
    for asked, message in [
        ((Sampler(40), 0, 1, [3], None), "fewer rows"),
        ((Sampler(40), 0, 2, [], None), "fewer rows"),
        ((Sampler(41), 0, 0, [], None), "another vocabulary"),
        ((Sampler(40), 0, 0, [], np.zeros((1, 1), np.uint32)), "masks are"),
        ((Sampler(40), 0, 0, [3], np.zeros((1, 2), np.uint32)), "masks are"),
    ]:
        with pytest.raises(ValueError, match=message):
            draw_rows(logits, [asked])  # type: ignore[list-item]
    with pytest.raises(ValueError, match="ends"):
        Sampler(8, ends=[8])


def test_scores_are_those_of_a_sampler() -> None:
    logits = noise(300).reshape(3, 100)
    targets = np.array([5, 99, 0], np.int32)
    scores = score_rows(logits, targets, 4)
    assert [token for token, _, _ in scores] == targets.tolist()
    assert [value for _, value, _ in scores] == target_logprobs(logits, targets).tolist()
    for one, values in zip(scores, logits, strict=True):
        assert one[2] == Sampler(100, logprobs=4).sample(values, 0)[2]
    with pytest.raises(ValueError, match="outside the vocabulary"):
        score_rows(logits, np.array([5, 100, 0], np.int32), 4)
