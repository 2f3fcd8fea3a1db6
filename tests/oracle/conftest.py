"""What the comparisons with transformers share: one torch thread, and two ways to run a spec."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest

from pocketlm.models.program import lower
from pocketlm.models.spec import ModelSpec

Array = np.ndarray[Any, np.dtype[Any]]
Run = Callable[[ModelSpec, Array], Array]


@pytest.fixture
def quiet_torch() -> Iterator[None]:
    """One thread, and no compilation where transformers decorates with ``torch.compile``."""
    import torch

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    torch.compiler.set_stance("force_eager")
    yield
    torch.compiler.set_stance("default")
    torch.set_num_threads(threads)


def variant_of(spec: ModelSpec, length: int) -> int:
    """The whole-sequence rule of longrope."""
    return int(spec.config.rope_switch is not None and length > spec.config.rope_switch)


def run_reference(spec: ModelSpec, tokens: Array, *, activations: bool = False) -> Array:
    from .reference import ReferenceExecutor, ReferenceWeights

    executor = ReferenceExecutor()
    weights = ReferenceWeights(spec, activations=activations)
    lower(spec.program, weights, executor)  # type: ignore[arg-type]
    return executor.run(tokens, variant=variant_of(spec, len(tokens)))


def run_native(spec: ModelSpec, tokens: Array) -> Array:
    from .native import NativeSequence

    return NativeSequence(spec, variant=variant_of(spec, len(tokens))).feed(tokens)


@pytest.fixture(params=["reference", "native"])
def run(request: pytest.FixtureRequest) -> Run:
    """Logits of a whole sequence, by the NumPy definition of the ops and by the native core."""
    return {"reference": run_reference, "native": run_native}[request.param]
