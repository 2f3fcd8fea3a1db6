"""What a linear layer reads over calibration text, and what follows for rounding its weights.

Its inputs are known twice: as the original model computes them, and as the model does that is
quantized up to this layer. Second moments of the first tokens say how to round; the tokens after
them judge the result.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from pocketlm.quantize.codes import Floats
from pocketlm.quantize.rounding import Curvature, Doubles, curvature, damp

_MOMENT_ROWS = 4096  # are summed in float32, those sums in float64


@dataclass(frozen=True)
class Settings:
    """How layers are rounded.

    Attributes:
        damping: added to the second moments' diagonal, as a share of its mean.
        correction: how much of the lost output a layer's target takes back, 0 to 1: all of it fits
            the calibration text best and other text less.
    """

    damping: float = 0.01
    correction: float = 0.5


class LayerInputs:
    """What a linear layer reads: in the original, and in the model as far as it is quantized.

    Args:
        original, quantized: [tokens, cols].
        fit: the first ``fit`` tokens are fitted to, the rest judges.
    """

    def __init__(self, original: Floats, quantized: Floats, fit: int, settings: Settings) -> None:
        self._original = original
        self._quantized = quantized
        self._fit = fit
        self._settings = settings
        self._curvatures: dict[int, Curvature] = {}
        self.second = self._moment(quantized, quantized)

    def _moment(self, left: Floats, right: Floats) -> Doubles:
        """left^T right / tokens over the tokens that are fitted to."""
        total: Doubles = np.zeros((left.shape[1], right.shape[1]))
        for begin in range(0, self._fit, _MOMENT_ROWS):
            rows = slice(begin, min(begin + _MOMENT_ROWS, self._fit))
            total += left[rows].T @ right[rows]
        return np.asarray(total / self._fit, np.float64)

    @cached_property
    def _inverse(self) -> Doubles:
        inverse = np.linalg.inv(damp(self.second, self._settings.damping))
        return np.asarray(inverse, np.float64)

    @cached_property
    def _lost(self) -> Doubles:
        """(X - X') X'^T of the original's and the quantized model's inputs X and X'."""
        return self._moment(self._original, self._quantized) - self.second

    def curvature(self, block: int) -> Curvature:
        if block not in self._curvatures:
            self._curvatures[block] = curvature(self.second, block, self._settings.damping)
        return self._curvatures[block]

    def corrected(self, weights: Floats, drift: Floats | None) -> Floats:
        """The weights that give the original's outputs on the quantized model's inputs.

        That is W + c (W (X - X') + D) X'^T (X' X'^T)^-1, where D is what the sum that the outputs
        are added to has lost, and c the share that is taken back.
        """
        lost = weights @ self._lost.astype(np.float32)
        if drift is not None:
            lost = lost + self._moment(drift, self._quantized).astype(np.float32)
        correction = lost.astype(np.float64) @ self._inverse
        return (weights + self._settings.correction * correction).astype(np.float32)

    def held_out_error(self, weights: Floats, rounded: Floats, drift: Floats | None) -> float:
        """||W X + D - Q X'||^2 / ||W X||^2 over the tokens that were not fitted to."""
        judged = slice(self._fit, None)
        wanted = self._original[judged] @ weights.T
        missed = wanted - self._quantized[judged] @ rounded.T
        if drift is not None:
            missed += drift[judged]
        energy = float(np.square(wanted, dtype=np.float64).sum())
        return float(np.square(missed, dtype=np.float64).sum()) / max(energy, 1e-30)
