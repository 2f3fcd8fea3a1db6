"""Mistral 7B: Llama with a sliding window in every layer (only its first version has one).

In GGUF it is the architecture ``llama``, which is read there; this module is for folders.
"""

from __future__ import annotations

from dataclasses import replace

from pocketlm.models.config import ModelConfig
from pocketlm.models.families import llama
from pocketlm.models.family import Family
from pocketlm.models.fields import Fields
from pocketlm.models.reading import hf_config, hf_windows
from pocketlm.models.sources import TensorSource


def config_from_hf(fields: Fields, source: TensorSource) -> ModelConfig:
    config = hf_config("mistral", fields, source)
    return replace(config, windows=hf_windows(fields, config.layers))


FAMILY = Family(
    name="mistral",
    gguf=(),
    hf=("MistralForCausalLM",),
    layer_names=llama.LAYER_NAMES,
    config_from_gguf=llama.config_from_gguf,
    config_from_hf=config_from_hf,
    program=llama.program,
    hf_defaults={
        "hidden_act": "silu",
        "max_position_embeddings": 131_072,
        "num_key_value_heads": 8,
        "rms_norm_eps": 1e-6,
        "sliding_window": 4096,
        "tie_word_embeddings": False,
    },
)
