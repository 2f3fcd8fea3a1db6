"""The order and the learning rates of a distillation: facts and arithmetic, no tensors."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt


@dataclass(frozen=True)
class Schedule:
    """How the tuning goes.

    Attributes:
        learning_rate: Adam's, in steps of the grid (``TunedMatrix``): so far may one training step
            move the largest weight of a block. It rises over the first tenth of the training and
            falls to zero along a cosine. The default suits a calibrated file, whose codes were
            chosen for the scales that they have: there 0.012 does harm. A file that was only
            rounded gains most at 0.024.
        batch: sequences a step.
        epochs: passes over the training sequences.
        seed: of their order.
    """

    learning_rate: float = 0.0015
    batch: int = 2
    epochs: int = 1
    seed: int = 0

    def steps(self, sequences: int) -> int:
        return max(1, sequences * self.epochs // self.batch)

    def rate(self, step: int, steps: int) -> float:
        """The learning rate of a step, 0 to steps - 1."""
        warm = min(1.0, (step + 1) / max(1.0, 0.1 * steps))
        return self.learning_rate * warm * 0.5 * (1 + math.cos(math.pi * step / steps))

    def chosen(self, step: int, sequences: int) -> npt.NDArray[np.int64]:
        """Which sequences a step reads: each epoch is its own permutation of all of them."""
        places = range(step * self.batch, (step + 1) * self.batch)
        orders = {
            epoch: np.random.default_rng([self.seed, epoch]).permutation(sequences)
            for epoch in {place // sequences for place in places}
        }
        return np.array([orders[place // sequences][place % sequences] for place in places])
