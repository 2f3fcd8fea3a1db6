"""Qwen 3: no biases, but q and k heads are RMS-normalized before rotation.

The head size is its own fact: 16 heads of 128 stand on a width of 1024 in the 0.6B model.
"""

from __future__ import annotations

from dataclasses import replace

from pocketlm.models.blocks import pre_norm_decoder
from pocketlm.models.config import ModelConfig
from pocketlm.models.families import llama, qwen2
from pocketlm.models.family import HEAD_NORM_NAMES, Family
from pocketlm.models.fields import Fields
from pocketlm.models.program import Program
from pocketlm.models.reading import gguf_config, hf_config
from pocketlm.models.sources import TensorSource


def config_from_gguf(keys: Fields, source: TensorSource) -> ModelConfig:
    return replace(gguf_config("qwen3", keys, source), qk_norm=True)


def config_from_hf(fields: Fields, source: TensorSource) -> ModelConfig:
    config = hf_config("qwen3", fields, source)
    return replace(config, qk_norm=True, windows=qwen2.windows(fields, config.layers))


def program(config: ModelConfig) -> Program:
    return pre_norm_decoder(config)


FAMILY = Family(
    name="qwen3",
    gguf=("qwen3",),
    hf=("Qwen3ForCausalLM",),
    layer_names={**llama.LAYER_NAMES, **HEAD_NORM_NAMES},
    config_from_gguf=config_from_gguf,
    config_from_hf=config_from_hf,
    program=program,
    hf_defaults={**qwen2.HF_DEFAULTS, "head_dim": 128},
)
