"""A performance model of three lines, for tests of what is done with predictions."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import pytest

from pocketlm.advise.device import Device
from pocketlm.advise.performance import Prediction
from pocketlm.advise.recommend import judging, planning
from pocketlm.catalog import CatalogEntry
from pocketlm.errors import UnsupportedError
from pocketlm.gguf import block_bytes, block_elements
from pocketlm.models.families import FAMILIES
from pocketlm.quantize.file_types import FILE_TYPES
from pocketlm.store.describe import describe_path


@dataclass(frozen=True)
class Stood:
    """A model as its count of parameters, and the type of its file."""

    parameters: int
    own_type: str = "BF16"


def predicted(
    model: Stood,
    type: str | None,
    device: Device,
    *,
    context: int,
    kv: str = "f16",
    prompt: int = 512,
    threads: int | None = None,
) -> Prediction:
    """Weights and cache are read once a token; prompts are arithmetic."""
    assert device.rates is not None
    block = FILE_TYPES[type or model.own_type].type
    weights = model.parameters * block_bytes(block) // block_elements(block)
    cache = context * {"q8": 1, "f16": 2, "f32": 4}[kv] * model.parameters // 50_000
    decode = device.rates.read_bandwidth / weights
    prefill = device.rates.int8 / model.parameters
    return Prediction(
        decode=decode,
        decode_at_context=device.rates.read_bandwidth / (weights + cache),
        prefill=prefill,
        first_token=prompt / prefill + 1 / decode,
        peak=weights + cache + (200 << 20),
        file=weights,
        weights=weights,
        kv=cache,
        basis="formula",
    )


@pytest.fixture
def simple_performance(monkeypatch: pytest.MonkeyPatch) -> None:
    """Predictions by ``predicted``, so that a test may ask for thousands."""

    def stood(model: CatalogEntry | Path) -> Stood:
        if isinstance(model, Path):
            facts = describe_path(model)
            return Stood(facts.parameters, facts.quantization)
        if model.shape is None or model.shape.family not in {one.name for one in FAMILIES}:
            raise UnsupportedError(f"{model} is not run")
        return Stood(model.parameters)

    for module in (judging, planning):
        monkeypatch.setattr(module, "planned", stood)
        monkeypatch.setattr(module, "predict", predicted)
