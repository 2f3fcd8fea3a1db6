"""Gemma 3, text: norms on both sides of each block, two kinds of layers with a rope each.

Norms multiply by 1 + w in Hugging Face; GGUF keeps 1 + w already. The embedding is scaled by
sqrt(hidden), which transformers rounds to the dtype of the weights: 33.94 becomes 34.0 in a
bfloat16 checkpoint, and so it was in training. GGUF files do not say what they were made from;
there the scale is not rounded, as in llama.cpp, unless the file says so (``embedding_scale``, which
PocketLM writes). What GGUF leaves out (the local rope base, the 27B
model's score scale) is filled in here.
"""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np

from pocketlm.errors import UnsupportedError
from pocketlm.models.blocks import Decoder
from pocketlm.models.config import MAX_CONTEXT, MAX_HEAD_DIM, MAX_LAYERS, ModelConfig
from pocketlm.models.family import ATTENTION_NAMES, FFN_NAMES, HEAD_NORM_NAMES, Family
from pocketlm.models.fields import Fields
from pocketlm.models.program import Program
from pocketlm.models.reading import gguf_config, hf_config, hf_rope, hf_windows
from pocketlm.models.rope import Rope
from pocketlm.models.sources import Adapted, Floats, TensorSource, rounded_to

_LAYERS_OF_27B = 62
_LOCAL_THETA = 10_000.0
_GLOBAL_THETA = 1_000_000.0
_PATTERN = 6  # every sixth layer sees everything


class OnePlusNorms(Adapted):
    """A folder whose norm weights are kept as the difference from one."""

    def vector(self, name: str) -> Floats:
        values = super().vector(name)
        return np.float32(1) + values if name.endswith("_norm.weight") else values


def _windows(layers: int, window: int, pattern: int) -> tuple[int, ...]:
    return tuple(0 if (i + 1) % pattern == 0 else window for i in range(layers))


def _gguf_windows(keys: Fields, layers: int, window: int) -> tuple[int, ...]:
    """The pattern is a number, or a list of what slides, or (mostly) left out."""
    key = "attention.sliding_window_pattern"
    found = keys.raw(key)
    if not isinstance(found, list | np.ndarray):
        return _windows(layers, window, keys.count(key, _PATTERN, high=MAX_LAYERS))
    if len(found) != layers:
        raise keys.wrong(key, f"one value for each of the {layers} layers")
    return tuple(window if slides else 0 for slides in found)


def config_from_gguf(keys: Fields, source: TensorSource) -> ModelConfig:
    config = gguf_config("gemma3", keys, source)
    window = keys.count("attention.sliding_window", low=1, high=MAX_CONTEXT)
    scale = config.attention_scale
    if config.layers == _LAYERS_OF_27B:
        scale = (config.hidden / config.heads) ** -0.5
    theta = keys.number("rope.freq_base", _GLOBAL_THETA, low=1.001, high=1e12)
    local = keys.number("rope.freq_base_swa", _LOCAL_THETA, low=1.001, high=1e12)
    return replace(
        config,
        rope=replace(config.rope, theta=theta),
        local_rope=Rope(local, config.rope.dim),
        windows=_gguf_windows(keys, config.layers, window),
        attention_scale=scale,
        embedding_scale=keys.number(
            "embedding_scale", float(np.sqrt(np.float32(config.hidden))), low=1e-3, high=1e6
        ),
        qk_norm=True,
        activation="gelu_tanh",
        logit_softcap=_softcap(keys, "final_logit_softcapping"),
    )


def config_from_hf(fields: Fields, source: TensorSource) -> ModelConfig:
    rope, local = _hf_ropes(fields)
    config = hf_config("gemma3", fields, source, activation_key="hidden_activation", rope=rope)
    if "attn_logit_softcapping" in fields or fields.flag("use_bidirectional_attention", False):
        raise UnsupportedError(
            "attention with capped scores or in both directions is not supported", path=fields.path
        )
    if "layer_types" in fields:
        windows = hf_windows(fields, config.layers)
    else:
        window = fields.count("sliding_window", low=1, high=MAX_CONTEXT)
        pattern = fields.count("sliding_window_pattern", _PATTERN, high=MAX_LAYERS)
        windows = _windows(config.layers, window, pattern)
    scalar = fields.number("query_pre_attn_scalar", low=1e-3, high=1e6)
    return replace(
        config,
        local_rope=local,
        windows=windows,
        attention_scale=scalar**-0.5,
        embedding_scale=rounded_to(math.sqrt(config.hidden), source.type("token_embd.weight")),
        qk_norm=True,
        logit_softcap=_softcap(fields, "final_logit_softcapping"),
    )


def _hf_ropes(fields: Fields) -> tuple[Rope, Rope]:
    """The full-attention layers' rope and the sliding ones', in the old spelling or in today's."""

    def one(kind: str, theta_key: str, default: float, old: Fields | None) -> Rope:
        params = (nested.section(kind) if nested else old) or Fields({}, fields.path)
        theta = fields.number(theta_key, default, low=1.001, high=1e12)
        values = {"rope_theta": theta, **params.values}
        params = Fields(values, fields.path, within=params.within)
        return hf_rope(fields, head_dim, context, params=params)

    head_dim = fields.count("head_dim", low=2, high=MAX_HEAD_DIM)
    context = fields.count("max_position_embeddings", high=MAX_CONTEXT)
    nested = fields.section("rope_parameters")
    full = one("full_attention", "rope_theta", _GLOBAL_THETA, fields.section("rope_scaling"))
    return full, one("sliding_attention", "rope_local_base_freq", _LOCAL_THETA, None)


def _softcap(fields: Fields, key: str) -> float | None:
    if key not in fields:
        return None
    return fields.number(key, low=1e-3, high=1e6)


def program(config: ModelConfig) -> Program:
    decoder = Decoder(config)
    decoder.embed()
    for i in range(config.layers):
        normed = decoder.norm(f"blk.{i}.attn_norm")
        attended = decoder.attention(i, normed)
        projected = decoder.project(f"blk.{i}.attn_output", attended)
        decoder.norm(f"blk.{i}.post_attention_norm", src=projected, dst=projected)
        decoder.add_to_residual(projected)
        decoder.select_rows(i)
        normed = decoder.norm(f"blk.{i}.ffn_norm")
        gated = decoder.gated_ffn(i, normed)
        projected = decoder.project(f"blk.{i}.ffn_down", gated)
        decoder.norm(f"blk.{i}.post_ffw_norm", src=projected, dst=projected)
        decoder.add_to_residual(projected)
    return decoder.finish()


def _one_plus_norms(source: TensorSource, fields: Fields, config: ModelConfig) -> TensorSource:
    return OnePlusNorms(source)


FAMILY = Family(
    name="gemma3",
    gguf=("gemma3",),
    hf=("Gemma3ForCausalLM", "Gemma3ForConditionalGeneration"),
    layer_names={
        **ATTENTION_NAMES,
        **HEAD_NORM_NAMES,
        "post_attention_norm.weight": "post_attention_layernorm.weight",
        "ffn_norm.weight": "pre_feedforward_layernorm.weight",
        "post_ffw_norm.weight": "post_feedforward_layernorm.weight",
        **FFN_NAMES,
    },
    config_from_gguf=config_from_gguf,
    config_from_hf=config_from_hf,
    program=program,
    hf_defaults={
        "head_dim": 256,
        "hidden_activation": "gelu_pytorch_tanh",
        "hidden_size": 2304,
        "intermediate_size": 9216,
        "max_position_embeddings": 131_072,
        "num_attention_heads": 8,
        "num_hidden_layers": 26,
        "num_key_value_heads": 4,
        "query_pre_attn_scalar": 256,
        "rms_norm_eps": 1e-6,
        "sliding_window": 4096,
        "tie_word_embeddings": True,
        "vocab_size": 262_208,
    },
    adapt_hf=_one_plus_norms,
)
