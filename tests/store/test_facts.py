"""Facts: what is counted as a parameter, and the classes."""

from __future__ import annotations

import json
import struct
from pathlib import Path

import pytest
from tiny_models import gguf, safetensors

from pocketlm.errors import ModelFileError
from pocketlm.size_classes import size_class
from pocketlm.store.facts import folder_facts, gguf_facts
from pocketlm.store.manifest import Facts


def folder(
    path: Path, config: dict[str, object], tensors: dict[str, tuple[str, list[int]]]
) -> Facts:
    (path / "config.json").write_text(json.dumps(config))
    (path / "model.safetensors").write_bytes(safetensors(tensors))
    return folder_facts(path / "config.json", [path / "model.safetensors"])


def test_rope_factors_are_no_parameters(tmp_path: Path) -> None:
    path = tmp_path / "m.gguf"
    path.write_bytes(gguf(floats=1000))
    facts = gguf_facts([path])
    assert (facts.family, facts.parameters, facts.quantization) == ("llama", 1000, "F32")
    assert facts.licence == "mit"
    assert gguf_facts([path, path]).parameters == 2000  # shards add up


@pytest.mark.parametrize(
    ("config", "count"),
    [
        ({"tie_word_embeddings": True}, 20),
        ({"tie_word_embeddings": False}, 40),
        ({}, 40),
        ({"text_config": {"tie_word_embeddings": True}}, 20),
    ],
)
def test_a_tied_head_that_is_stored_twice_counts_once(
    tmp_path: Path, config: dict[str, object], count: int
) -> None:
    tensors = {"model.embed_tokens.weight": ("BF16", [5, 4]), "lm_head.weight": ("BF16", [5, 4])}
    facts = folder(tmp_path, {"model_type": "qwen3", **config}, tensors)
    assert (facts.parameters, facts.quantization) == (count, "BF16")


def test_a_head_without_embeddings_beside_it_counts(tmp_path: Path) -> None:
    facts = folder(
        tmp_path,
        {"model_type": "llama", "tie_word_embeddings": True},
        {"lm_head.weight": ("F16", [3, 4])},
    )
    assert facts.parameters == 12


def test_packed_weights_count_as_what_they_unpack_to(tmp_path: Path) -> None:
    config = {"model_type": "bitnet", "quantization_config": {"quant_method": "bitnet"}}
    tensors = {
        "model.layers.0.mlp.up_proj.weight": ("U8", [4, 8]),
        "model.layers.0.mlp.up_proj.weight_scale": ("BF16", [1]),
        "model.norm.weight": ("BF16", [8]),
    }
    facts = folder(tmp_path, config, tensors)
    assert (facts.parameters, facts.quantization) == (4 * 32 + 8, "bitnet")
    config = {"model_type": "llama", "quantization": {"bits": 4, "group_size": 64}}
    tensors = {
        "model.a.weight": ("U32", [4, 8]),
        "model.a.scales": ("F16", [4, 1]),
        "model.a.biases": ("F16", [4, 1]),
    }
    facts = folder(tmp_path, config, tensors)
    assert (facts.parameters, facts.quantization) == (256, "mlx-4bit")


@pytest.mark.parametrize(
    ("parameters", "expected"),
    [
        (99_999_999, "outside"), (100_000_000, "Micro"), (1_499_999_999, "Micro"),
        (1_500_000_000, "Small"), (13_999_999_999, "Small"), (14_000_000_000, "Medium"),
        (30_000_000_000, "Medium"), (30_000_000_001, "outside"),
    ],
)  # fmt: skip
def test_the_classes_have_their_limits(parameters: int, expected: str) -> None:
    assert size_class(parameters) == expected


@pytest.mark.parametrize(
    "data",
    [
        b"", b"\1\0\0\0", struct.pack("<Q", 1 << 60) + b"{}", struct.pack("<Q", 2) + b"[]",
        struct.pack("<Q", 2) + b"{x", struct.pack("<Q", 7) + b'{"a":1}',
        struct.pack("<Q", 34) + b'{"a":{"dtype":"F32","shape":[-1]}}',
    ],
)  # fmt: skip
def test_a_header_that_is_none_names_the_file(tmp_path: Path, data: bytes) -> None:
    (tmp_path / "config.json").write_text('{"model_type": "llama"}')
    path = tmp_path / "model.safetensors"
    path.write_bytes(data)
    with pytest.raises(ModelFileError) as raised:
        folder_facts(tmp_path / "config.json", [path])
    assert raised.value.path == path


@pytest.mark.parametrize("config", ["", "[]", "{}", '{"model_type": 3}', "[" * 100_000])
def test_a_config_that_is_none_names_the_file(tmp_path: Path, config: str) -> None:
    (tmp_path / "config.json").write_text(config)
    with pytest.raises(ModelFileError) as raised:
        folder_facts(tmp_path / "config.json", [])
    assert raised.value.path == tmp_path / "config.json"
