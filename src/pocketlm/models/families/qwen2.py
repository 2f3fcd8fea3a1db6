"""Qwen 2 and 2.5: Llama with biases on q, k and v; q and k rows are halves in GGUF too."""

from __future__ import annotations

from dataclasses import replace

from pocketlm.models.blocks import pre_norm_decoder
from pocketlm.models.config import MAX_LAYERS, ModelConfig
from pocketlm.models.families import llama
from pocketlm.models.family import Family
from pocketlm.models.fields import Fields
from pocketlm.models.program import Program
from pocketlm.models.reading import gguf_config, hf_config, hf_windows
from pocketlm.models.sources import TensorSource


def windows(fields: Fields, layers: int) -> tuple[int, ...]:
    """Off unless ``use_sliding_window``, and then on from layer ``max_window_layers`` up."""
    if not fields.flag("use_sliding_window", False):
        return (0,) * layers
    chosen = hf_windows(fields, layers)
    if "layer_types" in fields:
        return chosen
    first = fields.count("max_window_layers", low=0, high=MAX_LAYERS)
    return tuple(window if i >= first else 0 for i, window in enumerate(chosen))


def config_from_gguf(keys: Fields, source: TensorSource) -> ModelConfig:
    return replace(gguf_config("qwen2", keys, source), qkv_bias=True)


def config_from_hf(fields: Fields, source: TensorSource) -> ModelConfig:
    config = hf_config("qwen2", fields, source)
    return replace(config, qkv_bias=True, windows=windows(fields, config.layers))


def program(config: ModelConfig) -> Program:
    return pre_norm_decoder(config)


HF_DEFAULTS = {
    "hidden_act": "silu",
    "max_position_embeddings": 32_768,
    "max_window_layers": 28,
    "rms_norm_eps": 1e-6,
    "sliding_window": 4096,
    "tie_word_embeddings": False,
}

FAMILY = Family(
    name="qwen2",
    gguf=("qwen2",),
    hf=("Qwen2ForCausalLM",),
    layer_names={
        **llama.LAYER_NAMES,
        "attn_q.bias": "self_attn.q_proj.bias",
        "attn_k.bias": "self_attn.k_proj.bias",
        "attn_v.bias": "self_attn.v_proj.bias",
    },
    config_from_gguf=config_from_gguf,
    config_from_hf=config_from_hf,
    program=program,
    hf_defaults=HF_DEFAULTS,
)
