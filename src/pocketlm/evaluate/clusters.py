"""Means over tokens with the standard error of clustered samples.

The tokens of one window share a topic and a context, so their losses are alike; a standard error
that takes them for independent is too small, several times so for divergences. So windows are the
sample here, and tokens are only what they consist of.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Mean:
    """A mean, and its standard error; None where one cluster says nothing about the spread."""

    value: float
    standard_error: float | None

    def transformed(self, value: float, derivative: float) -> Mean:
        """The error carried to ``value``, a function of this mean (delta method)."""
        if self.standard_error is None:
            return Mean(value, None)
        return Mean(value, abs(derivative) * self.standard_error)

    def exp(self) -> Mean:
        """exp of this mean: perplexity, of a mean negative log-likelihood."""
        value = math.exp(self.value) if self.value < 700 else math.inf
        return self.transformed(value, value)

    def sqrt(self) -> Mean:
        value = math.sqrt(self.value)
        return self.transformed(value, 0.5 / value if value else 0.0)


def clustered_mean(clusters: Sequence[NDArray[np.float64]]) -> Mean:
    """The mean over all values, its error from the differences between clusters.

    With S_c the sum and n_c the count of cluster c, N = sum of n_c and G clusters, m = sum of
    S_c / N and Var(m) = G / (G - 1) * sum((S_c - n_c m)^2) / N^2: the linearised variance of a
    ratio of cluster totals (Cochran, Sampling Techniques, 3rd ed., section 2.11).
    """
    counts = np.array([len(values) for values in clusters], np.float64)
    sums = np.array([values.sum() for values in clusters])
    total, groups = counts.sum(), len(clusters)
    mean = sums.sum() / total
    if groups < 2:
        return Mean(float(mean), None)
    variance = groups / (groups - 1) * np.square(sums - counts * mean).sum() / total**2
    return Mean(float(mean), math.sqrt(variance))
