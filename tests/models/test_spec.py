"""Folders and files as whole models: templates, sampling defaults, refusals, memory."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pocketlm.errors import ModelFileError, NotFoundError, UnsupportedError
from pocketlm.models import open_model
from pocketlm.models.memory import Capacity, core_memory

from .conftest import Open
from .synthetic import gguf, layer_shapes
from .test_safetensors import write

CONFIG: dict[str, Any] = {
    "architectures": ["LlamaForCausalLM"],
    "num_hidden_layers": 1,
    "hidden_size": 64,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "intermediate_size": 96,
    "vocab_size": 100,
}
HF_LAYER = {
    "attn_norm": "input_layernorm",
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj",
    "ffn_norm": "post_attention_layernorm",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
}


def write_folder(folder: Path, *, extra: tuple[str, ...] = (), **changes: Any) -> Path:
    """A one-layer Llama of zeros, with changes to its config and extra tensors."""
    shapes = {"model.embed_tokens.weight": (100, 64), "model.norm.weight": (64,)}
    for name, shape in layer_shapes("llama", 64, 4, 2, 16, 96).items():
        shapes[f"model.layers.0.{HF_LAYER[name.removesuffix('.weight')]}.weight"] = shape
    shapes |= dict.fromkeys(extra, (64, 64))
    header, end = {}, 0
    for name, shape in shapes.items():
        size = 2 * int(np.prod(shape))
        header[name] = {"dtype": "BF16", "shape": shape, "data_offsets": [end, end + size]}
        end += size
    write(folder / "model.safetensors", header, bytes(end))
    (folder / "config.json").write_text(json.dumps({**CONFIG, **changes}))
    return folder


def test_folder(tmp_path: Path) -> None:
    spec = open_model(write_folder(tmp_path))
    assert spec.config.tied
    assert spec.tokenizer_source == tmp_path
    assert spec.chat_template is None
    assert spec.generation == {}
    assert spec.name == tmp_path.name
    assert spec.architecture == "LlamaForCausalLM"


def test_tensors_that_are_known_not_to_matter(tmp_path: Path) -> None:
    extra = ("model.layers.0.self_attn.rotary_emb.inv_freq", "vision_tower.encoder.weight")
    open_model(write_folder(tmp_path, extra=extra))
    tied = write_folder(tmp_path, extra=("lm_head.weight",), tie_word_embeddings=True)
    assert open_model(tied).parameters == open_model(write_folder(tmp_path)).parameters


@pytest.mark.parametrize("name", ["model.layers.0.self_attn.q_proj.bias", "model.extra.weight"])
def test_tensors_that_would_be_ignored(name: str, tmp_path: Path) -> None:
    with pytest.raises(UnsupportedError, match="would be ignored"):
        open_model(write_folder(tmp_path, extra=(name,)))


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"architectures": []}, ModelFileError, "architectures"),
        ({"architectures": ["MixtralForCausalLM"]}, UnsupportedError, "MixtralForCausalLM"),
        ({"quantization_config": {"quant_method": "gptq"}}, UnsupportedError, "gptq"),
        ({"quantization_config": {"quant_method": "fp8"}}, UnsupportedError, "fp8"),
        ({"quantization_config": {"quant_method": "bitnet"}}, UnsupportedError, "bitnet"),
        ({"quantization_config": 4}, UnsupportedError, "None"),
        ({"vocab_size": 99}, ModelFileError, r"token_embd\.weight"),
        ({"num_hidden_layers": 2}, ModelFileError, r"blk\.1\.attn_norm\.weight"),
    ],
)
def test_refused_folders(
    change: dict[str, Any], error: type[Exception], message: str, tmp_path: Path
) -> None:
    with pytest.raises(error, match=message):
        open_model(write_folder(tmp_path, **change))


def test_nothing_there(tmp_path: Path) -> None:
    with pytest.raises(NotFoundError, match="no such file"):
        open_model(tmp_path / "absent.gguf")
    with pytest.raises(ModelFileError, match=r"config\.json"):
        open_model(tmp_path)


def test_templates_by_name(tmp_path: Path) -> None:
    write_folder(tmp_path)
    named = [{"name": "tool_use", "template": "tools"}, {"name": "default", "template": "plain"}]
    (tmp_path / "tokenizer_config.json").write_text(json.dumps({"chat_template": named}))
    spec = open_model(tmp_path)
    assert spec.chat_template == "plain"
    assert spec.chat_templates == {"default": "plain", "tool_use": "tools"}


def test_sampling_defaults_of_folders(tmp_path: Path) -> None:
    write_folder(tmp_path)
    path = tmp_path / "generation_config.json"
    path.write_text('{"do_sample": true, "temperature": 0.6, "top_k": 20, "top_p": 0.95}')
    assert open_model(tmp_path).generation == {"temperature": 0.6, "top_k": 20, "top_p": 0.95}
    assert isinstance(open_model(tmp_path).generation["top_k"], int)
    path.write_text('{"do_sample": false, "temperature": 0.6}')
    assert open_model(tmp_path).generation == {"temperature": 0.0}
    path.write_text('{"top_p": 1.5}')
    with pytest.raises(ModelFileError, match="'top_p' is 1\\.5"):
        open_model(tmp_path)


def test_gguf_facts_beyond_the_config(open_synthetic: Open) -> None:
    top = {
        "general.name": "Tiny",
        "tokenizer.chat_template": "{{ messages }}",
        "general.sampling.temp": 0.5,
        "general.sampling.top_k": -1,
        "general.sampling.penalty_repeat": 1.25,
    }
    spec = open_synthetic(gguf("llama", top=top))
    assert spec.name == "Tiny"
    assert spec.architecture == "llama"
    assert spec.chat_template == "{{ messages }}"
    assert spec.generation == {"temperature": 0.5, "top_k": 0, "repetition_penalty": 1.25}


def test_memory_estimate(open_synthetic: Open) -> None:
    spec = open_synthetic(gguf("llama"))
    found = core_memory(spec, Capacity(tokens=1, sequences=1, rows=1, context=33))
    # two pages of 32 positions, 2 layers, keys and values of 2 heads of 16
    assert found.kv == 64 * 2 * 2 * 2 * 16 * 2
    matrices = sum(rows * cols for rows, *c in spec.program.shapes().values() for cols in c)
    padding = 12 * 64  # the vocabulary of 100 fills panels of 16 rows
    assert found.weights == 4 * (matrices + padding)
