"""What is made of rows of logits; a model whose logits are not finite is said to be broken."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
from numpy.typing import NDArray

from pocketlm import _native
from pocketlm.backends import Floats, Ints
from pocketlm.errors import ModelFileError

Doubles = NDArray[np.float64]


def logprobs(logits: Floats, targets: Ints) -> Doubles:
    """Natural-log probability of each row's target: logits (rows, vocabulary), targets (rows,)."""
    with _finite():
        return _native.target_logprobs(logits, np.ascontiguousarray(targets))


def divergences(reference: Floats, candidate: Floats, targets: Ints) -> Doubles:
    """(4, rows): KL(reference || candidate) in nats, log-probability of the target by the reference
    and by the candidate, and 1 where both have the same likeliest token."""
    with _finite():
        found = _native.divergence_rows(reference, candidate, np.ascontiguousarray(targets))
    return np.stack(found)


@contextmanager
def _finite() -> Iterator[None]:
    try:
        yield
    except ValueError as error:
        raise ModelFileError(
            f"the model's output is no number: {error}",
            hint="Its weights are damaged or overflow; 'pocketlm verify' checks stored models.",
        ) from error
