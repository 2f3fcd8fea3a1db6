"""Phi-3 and Phi-4: q, k, v in one matrix, gate and up in another; partial rotary and longrope.

GGUF calls the fused gate and up ``ffn_up``. Longrope's factors are tensors in GGUF
(``rope_factors_short`` and ``_long``) and lists in config.json.
"""

from __future__ import annotations

from dataclasses import replace

from pocketlm.errors import UnsupportedError
from pocketlm.models.blocks import pre_norm_decoder
from pocketlm.models.config import MAX_CONTEXT, ModelConfig
from pocketlm.models.family import Family
from pocketlm.models.fields import Fields
from pocketlm.models.program import Program
from pocketlm.models.reading import gguf_config, hf_config, hf_windows
from pocketlm.models.rope import LongRope
from pocketlm.models.sources import TensorSource


def config_from_gguf(keys: Fields, source: TensorSource) -> ModelConfig:
    config = gguf_config("phi3", keys, source)
    window = keys.count("attention.sliding_window", 0, low=0, high=MAX_CONTEXT)
    return replace(config, windows=(window,) * config.layers)


def config_from_hf(fields: Fields, source: TensorSource) -> ModelConfig:
    config = hf_config("phi3", fields, source)
    if config.rope.scaling is not None and not isinstance(config.rope.scaling, LongRope):
        raise UnsupportedError("a Phi-3 model with this rope scaling", path=fields.path)
    return replace(config, windows=hf_windows(fields, config.layers))


def program(config: ModelConfig) -> Program:
    return pre_norm_decoder(config, fused=True)


FAMILY = Family(
    name="phi3",
    gguf=("phi3",),
    hf=("Phi3ForCausalLM",),
    layer_names={
        "attn_norm.weight": "input_layernorm.weight",
        "attn_qkv.weight": "self_attn.qkv_proj.weight",
        "attn_output.weight": "self_attn.o_proj.weight",
        "ffn_norm.weight": "post_attention_layernorm.weight",
        "ffn_up.weight": "mlp.gate_up_proj.weight",
        "ffn_down.weight": "mlp.down_proj.weight",
    },
    config_from_gguf=config_from_gguf,
    config_from_hf=config_from_hf,
    program=program,
    hf_defaults={
        "hidden_act": "silu",
        "max_position_embeddings": 4096,
        "original_max_position_embeddings": 4096,
        "rms_norm_eps": 1e-5,
        "tie_word_embeddings": False,
    },
)
