"""``divergence_rows`` against its definition in float64."""

from __future__ import annotations

import numpy as np
import pytest

from pocketlm._native import divergence_rows, target_logprobs

VOCAB = 5003  # no multiple of any vector or chunk


def expected(
    reference: np.ndarray, candidate: np.ndarray, targets: np.ndarray
) -> tuple[np.ndarray, ...]:
    p, q = (
        x - np.log(np.exp(x).sum(1, keepdims=True))
        for x in (v.astype(np.float64) - v.max(1, keepdims=True) for v in (reference, candidate))
    )
    rows = np.arange(len(targets))
    same = reference.argmax(1) == candidate.argmax(1)
    return (np.exp(p) * (p - q)).sum(1), p[rows, targets], q[rows, targets], same


@pytest.mark.parametrize("noise", [1e-3, 0.1, 2.0])
@pytest.mark.parametrize("offset", [0.0, 30.0])
def test_equals_the_definition(noise: float, offset: float) -> None:
    rng = np.random.default_rng(1)
    reference = (4 * rng.standard_normal((40, VOCAB))).astype(np.float32)
    change = noise * rng.standard_normal(reference.shape)
    candidate = (reference + change + offset).astype(np.float32)
    targets = rng.integers(0, VOCAB, 40, dtype=np.int32)
    found = divergence_rows(reference, candidate, targets)
    for got, want in zip(found, expected(reference, candidate, targets), strict=True):
        np.testing.assert_allclose(got, want, rtol=2e-6, atol=3e-7)
    np.testing.assert_array_equal(found[1], target_logprobs(reference, targets))


def test_equal_rows_do_not_diverge() -> None:
    logits = np.random.default_rng(2).standard_normal((8, 262_144)).astype(np.float32)
    kl, p, q, same = divergence_rows(logits, logits.copy(), np.zeros(8, np.int32))
    assert not kl.any()
    np.testing.assert_array_equal(p, q)
    assert same.all()


def test_of_equal_logits_the_lowest_id_is_the_top() -> None:
    reference = np.array([[1, 3, 3], [3, 1, 3]], np.float32)
    candidate = np.array([[1, 9, 0], [1, 0, 9]], np.float32)
    assert divergence_rows(reference, candidate, np.zeros(2, np.int32))[3].tolist() == [1, 0]


def test_far_apart_rows_stay_finite() -> None:
    """Nothing is cut off: a candidate that rules out what the reference holds certain."""
    reference = np.zeros((1, 300), np.float32)
    reference[0, 7] = 1000
    candidate = np.zeros((1, 300), np.float32)
    candidate[0, 8] = 1000
    kl, p, q, same = divergence_rows(reference, candidate, np.array([7], np.int32))
    np.testing.assert_allclose([kl[0], p[0], q[0], same[0]], [1000, 0, -1000, 0], rtol=1e-6)


def test_what_cannot_be_compared_is_refused() -> None:
    good, targets = np.zeros((2, 8), np.float32), np.zeros(2, np.int32)
    for reference, candidate, wanted in (
        (good, np.zeros((2, 9), np.float32), targets),
        (good, good, np.zeros(3, np.int32)),
        (good, good, np.array([0, 8], np.int32)),
        (good, np.full((2, 8), np.nan, np.float32), targets),
        (np.full((2, 8), np.inf, np.float32), good, targets),
    ):
        with pytest.raises(ValueError, match=r"differ|vocabulary|logit"):
            divergence_rows(reference, candidate, wanted)
