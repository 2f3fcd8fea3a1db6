"""Specs of models that are not here, against specs of files."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest

from pocketlm.catalog import CatalogEntry, RopeFacts, Shape, find, shipped
from pocketlm.errors import ModelFileError, UnsupportedError
from pocketlm.gguf import BlockType
from pocketlm.models.config import ModelConfig
from pocketlm.models.families import FAMILIES
from pocketlm.models.memory import Capacity, core_memory, decode_reads
from pocketlm.models.rope import LongRope, Rope
from pocketlm.models.shapes import shape_spec
from pocketlm.models.spec import open_model

RUN = {family.name for family in FAMILIES}
ENTRIES = [entry for entry in shipped() if entry.shape is not None and entry.shape.family in RUN]
SIZES = Capacity(tokens=64, sequences=1, rows=1, context=512, kv="q8", threads=2)


def shape(**changes: object) -> Shape:
    facts: dict[str, object] = {
        "family": "llama",
        "layers": 6,
        "hidden": 64,
        "heads": 4,
        "kv_heads": 2,
        "head_dim": 16,
        "ffn": 96,
        "vocab": 100,
        "context": 512,
        "tied": True,
    }
    return Shape.model_validate({**facts, **changes})


@pytest.mark.parametrize("entry", ENTRIES, ids=str)
def test_the_catalog_counts_what_the_program_would_load(entry: CatalogEntry) -> None:
    assert entry.shape is not None
    spec = shape_spec(entry.shape, str(entry))
    assert spec.parameters == entry.parameters
    assert (spec.config.context, spec.config.tied) == (entry.context, entry.shape.tied)


@pytest.mark.parametrize("name", ["smollm2:135m", "gemma3:270m"])
def test_a_shape_is_read_as_the_file_is(name: str, real_model: Callable[[str], Path]) -> None:
    entry = find(*name.split(":"))
    assert entry is not None
    assert entry.shape is not None
    with closing(open_model(real_model(name))) as there:
        spec = shape_spec(entry.shape, name)
        assert replace(spec.config, norm_eps=there.config.norm_eps) == there.config
        assert spec.program.shapes() == there.program.shapes()
        types = {one: there.source.type(one) for one in there.program.shapes()}
        assert core_memory(spec, SIZES, types) == core_memory(there, SIZES)
        assert decode_reads(spec, 400, "q8", types) == decode_reads(there, 400, "q8")


def config(**changes: object) -> ModelConfig:
    return shape_spec(shape(**changes), "made:up").config


@pytest.mark.parametrize("family", sorted(RUN))
def test_every_family_has_its_own_program(family: str) -> None:
    spec = shape_spec(shape(family=family, window=16, tied=False, activation="relu2"), "made:up")
    source = spec.source
    assert spec.config.family == ("llama" if family == "mistral" else family)
    assert not spec.config.tied
    assert set(source.names()) == set(spec.program.shapes())
    assert source.type("output.weight") == BlockType.BF16
    assert source.type("output_norm.weight") == BlockType.F32
    assert spec.config.qk_norm == (family in ("qwen3", "gemma3"))
    assert spec.config.qkv_bias == (family == "qwen2")
    with pytest.raises(ModelFileError, match="it is not here"):
        source.matrix("output.weight")
    with pytest.raises(ModelFileError, match="it is not here"):
        source.vector("output_norm.weight")


def test_windows() -> None:
    assert config().windows == (0,) * 6
    assert config(family="mistral", window=16).windows == (16,) * 6
    assert config(family="gemma3", window=16, full_every=3).windows == (16, 16, 0) * 2
    assert config(family="gemma3", window=16).windows == (16,) * 5 + (0,)


def test_rope() -> None:
    assert config(rope=RopeFacts(theta=5e5, rotary_dim=8)).rope == Rope(5e5, 8)
    both = config(family="gemma3", window=16, rope=RopeFacts(theta=1e6, local_theta=2e4))
    assert both.local_rope == Rope(2e4, 16)
    yarn = RopeFacts(theta=10_000.0, scaling="yarn", factor=4, original_context=128)
    assert config(rope=yarn).rope.attention_factor > 1
    long = config(
        family="phi3", rope=RopeFacts(theta=10_000.0, scaling="longrope", original_context=128)
    )
    assert isinstance(long.rope.scaling, LongRope)
    assert long.rope_switch == 128
    llama3 = shape_spec(
        shape(rope=RopeFacts(theta=10_000.0, scaling="llama3", factor=8)), "made:up"
    )
    assert "rope_freqs.weight" in set(llama3.source.names())


def test_what_no_program_fits_is_refused() -> None:
    with pytest.raises(UnsupportedError, match="'granite' is not one that PocketLM runs"):
        shape_spec(shape(family="granite"), "made:up")
    with pytest.raises(ModelFileError, match=r"attention\.head_count_kv' is 3.*\(made:up\)"):
        shape_spec(shape(kv_heads=3), "made:up")
