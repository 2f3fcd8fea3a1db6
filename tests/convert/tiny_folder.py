"""A whole Hugging Face folder without transformers: config, random weights, tokenizer, card."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import save_file

from .tiny_tokenizers import CHATML, byte_level, write_tokenizer

HIDDEN, FFN, HEADS, KV_HEADS, LAYERS, VOCABULARY = 64, 96, 4, 2, 2, 300
CARD = """---
license: apache-2.0
language:
- en
- fr
tags: [tiny, "test-model"]
pipeline_tag: text-generation
base_model: some-org/Base-1B
datasets:
  - some-org/texts
model-index:
- name: tiny
  results:
  - task:
      type: x
---
# Tiny
"""

Weights = dict[str, np.ndarray[Any, Any]]


def llama_config(**changes: Any) -> dict[str, Any]:
    return {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "hidden_act": "silu",
        "hidden_size": HIDDEN,
        "intermediate_size": FFN,
        "max_position_embeddings": 256,
        "num_attention_heads": HEADS,
        "num_hidden_layers": LAYERS,
        "num_key_value_heads": KV_HEADS,
        "rms_norm_eps": 1e-5,
        "rope_theta": 10_000.0,
        "tie_word_embeddings": True,
        "vocab_size": VOCABULARY,
        **changes,
    }


def llama_weights(seed: int = 0) -> Weights:
    rng = np.random.default_rng(seed)

    def matrix(rows: int, cols: int) -> Any:
        return (rng.standard_normal((rows, cols)) / np.sqrt(cols)).astype(np.float32)

    weights: Weights = {"model.embed_tokens.weight": matrix(VOCABULARY, HIDDEN)}
    kv = HIDDEN // HEADS * KV_HEADS
    for i in range(LAYERS):
        layer = f"model.layers.{i}."
        for name, rows, cols in (
            ("self_attn.q_proj", HIDDEN, HIDDEN),
            ("self_attn.k_proj", kv, HIDDEN),
            ("self_attn.v_proj", kv, HIDDEN),
            ("self_attn.o_proj", HIDDEN, HIDDEN),
            ("mlp.gate_proj", FFN, HIDDEN),
            ("mlp.up_proj", FFN, HIDDEN),
            ("mlp.down_proj", HIDDEN, FFN),
        ):
            weights[f"{layer}{name}.weight"] = matrix(rows, cols)
        for name in ("input_layernorm", "post_attention_layernorm"):
            norm = 1 + 0.1 * rng.standard_normal(HIDDEN)
            weights[f"{layer}{name}.weight"] = norm.astype(np.float32)
    weights["model.norm.weight"] = np.ones(HIDDEN, dtype=np.float32)
    return weights


def write_llama(folder: Path, weights: Weights | None = None, **changes: Any) -> Path:
    """The folder; ``changes`` go into config.json."""
    write_tokenizer(folder, byte_level(), chat_template=CHATML)
    (folder / "config.json").write_text(json.dumps(llama_config(**changes)))
    generation = {"eos_token_id": [2, 0], "temperature": 0.6, "top_k": 20, "do_sample": True}
    (folder / "generation_config.json").write_text(json.dumps(generation))
    (folder / "README.md").write_text(CARD)
    save_file(weights or llama_weights(), folder / "model.safetensors", metadata={"format": "pt"})
    return folder
