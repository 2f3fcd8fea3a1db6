"""Inverse frequencies: fixed points of the formulas (the oracle tests ask transformers)."""

from __future__ import annotations

import numpy as np
import pytest

from pocketlm.models.rope import (
    Divisors,
    Linear,
    Llama3,
    LongRope,
    Rope,
    Yarn,
    frequencies,
    longrope_attention_factor,
    yarn_attention_factor,
)


def test_plain() -> None:
    short, long = frequencies(Rope(10_000.0, 8))
    np.testing.assert_allclose(short, [1, 0.1, 0.01, 0.001], rtol=1e-6)
    assert short.dtype == np.float32
    assert long is None


def test_linear_and_divisors() -> None:
    plain, _ = frequencies(Rope(10_000.0, 8))
    np.testing.assert_array_equal(frequencies(Rope(10_000.0, 8, Linear(4.0)))[0], plain / 4)
    divided, _ = frequencies(Rope(10_000.0, 8, Divisors((1, 2, 4, 8))))
    np.testing.assert_array_equal(divided, plain / np.float32([1, 2, 4, 8]))


def test_llama3_keeps_short_waves_and_divides_long_ones() -> None:
    plain, _ = frequencies(Rope(500_000.0, 128))
    scaled, _ = frequencies(Rope(500_000.0, 128, Llama3(8.0, 1.0, 4.0, 8192)))
    turns = 8192 * plain / (2 * np.pi)
    np.testing.assert_array_equal(scaled[turns > 4], plain[turns > 4])
    np.testing.assert_array_equal(scaled[turns < 1], plain[turns < 1] / 8)
    between = (turns > 1) & (turns < 4)
    assert between.any()
    assert (scaled[between] < plain[between]).all()
    assert (scaled[between] > plain[between] / 8).all()


def test_yarn_keeps_fast_pairs_and_interpolates_slow_ones() -> None:
    plain, _ = frequencies(Rope(1e6, 128))
    scaled, _ = frequencies(Rope(1e6, 128, Yarn(4.0, 32_768)))
    assert scaled[0] == plain[0]
    np.testing.assert_allclose(scaled[-1], plain[-1] / 4, rtol=1e-6)
    assert (np.diff(scaled / plain) <= 1e-6).all()


def test_longrope_gives_both_variants() -> None:
    plain, _ = frequencies(Rope(10_000.0, 4))
    short, long = frequencies(Rope(10_000.0, 4, LongRope((1.0, 1.0), (2.0, 4.0), 4096)))
    np.testing.assert_array_equal(short, plain)
    assert long is not None
    np.testing.assert_allclose(long, plain / [2, 4], rtol=1e-7)


def test_attention_factors() -> None:
    # Phi-4-mini: 131072 / 4096 = 32
    assert longrope_attention_factor(32, 4096) == pytest.approx(1.1902380714, abs=1e-10)
    assert longrope_attention_factor(1, 4096) == 1
    assert yarn_attention_factor(4) == pytest.approx(1.1386294361)
    assert yarn_attention_factor(0.5) == 1
