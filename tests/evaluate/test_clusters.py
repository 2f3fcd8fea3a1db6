"""The clustered standard error: its formula by hand, and that it says how far the mean varies."""

from __future__ import annotations

import math

import numpy as np
import pytest

from pocketlm.evaluate.clusters import Mean, clustered_mean


def test_by_hand() -> None:
    # sums 2, 6, 7; counts 2, 2, 1; mean 15 / 5 = 3; residuals -4, 0, 4
    found = clustered_mean([np.array([0.0, 2.0]), np.array([3.0, 3.0]), np.array([7.0])])
    assert found.value == 3
    assert found.standard_error == pytest.approx(math.sqrt(3 / 2 * 32) / 5)


def test_clusters_of_one_are_a_plain_sample() -> None:
    values = np.random.default_rng(0).standard_normal(50)
    found = clustered_mean([v[None] for v in values])
    assert found.standard_error == pytest.approx(values.std(ddof=1) / math.sqrt(50))


def test_one_cluster_has_no_error() -> None:
    assert clustered_mean([np.ones(9)]) == Mean(1.0, None)
    assert clustered_mean([np.ones(9)]).exp() == Mean(math.e, None)


def test_it_is_the_spread_of_the_mean_where_tokens_of_a_cluster_are_alike() -> None:
    """Texts of 40 windows of 20 tokens that share a level: the naive error is far too small."""
    rng = np.random.default_rng(5)
    means, errors = [], []
    for _ in range(400):
        texts = rng.standard_normal((40, 1)) + 0.5 * rng.standard_normal((40, 20))
        found = clustered_mean(list(texts))
        means.append(found.value)
        errors.append(found.standard_error)
    naive = math.sqrt(1.25 / 800)
    assert np.mean(errors) == pytest.approx(np.std(means), rel=0.1)
    assert np.std(means) > 3 * naive


def test_the_delta_method() -> None:
    assert Mean(2.0, 0.1).exp() == Mean(math.exp(2), pytest.approx(0.1 * math.exp(2)))
    assert Mean(4.0, 0.1).sqrt() == Mean(2.0, pytest.approx(0.025))
    assert Mean(0.0, 0.0).sqrt() == Mean(0.0, 0.0)
