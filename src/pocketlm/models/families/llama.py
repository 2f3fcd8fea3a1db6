"""Llama: Llama 2, 3 and 3.x, SmolLM2, and everything else that shares their files.

GGUF files of this architecture keep the rows of q and k so that the two values that rotate together
are neighbours; transformers (and this engine) rotate halves. Llama 3.1's scaling comes as the
``rope_freqs`` tensor in GGUF and as formula parameters in config.json.
"""

from __future__ import annotations

import re
from dataclasses import replace

import numpy as np
import numpy.typing as npt

from pocketlm.models.blocks import pre_norm_decoder
from pocketlm.models.config import MAX_CONTEXT, ModelConfig
from pocketlm.models.family import ATTENTION_NAMES, FFN_NAMES, Family
from pocketlm.models.fields import Fields
from pocketlm.models.program import Program
from pocketlm.models.reading import gguf_config, hf_config
from pocketlm.models.sources import Adapted, Matrix, TensorSource

# A matrix of queries or keys, and which of them.
Q_OR_K = re.compile(r"blk\.\d+\.attn_([qk])\.weight")


def halves_from_pairs(heads: int, head_dim: int, rotary_dim: int) -> npt.NDArray[np.int32]:
    """Row map of a q or k matrix [heads * head_dim, ...] stored with rotating pairs side by side.

    Row j * rotary_dim/2 + i of a head (half j, pair i) is row 2 i + j of the file.
    """
    head = np.arange(head_dim, dtype=np.int32)
    head[:rotary_dim] = head[:rotary_dim].reshape(-1, 2).T.ravel()
    return (np.arange(heads, dtype=np.int32)[:, None] * head_dim + head).ravel()


class PairedRows(Adapted):
    """A GGUF source whose q and k rows are put back into halves."""

    def __init__(self, inner: TensorSource, config: ModelConfig) -> None:
        super().__init__(inner)
        self._maps = {
            which: halves_from_pairs(heads, config.head_dim, config.rope.dim)
            for which, heads in (("q", config.heads), ("k", config.kv_heads))
        }

    def matrix(self, name: str) -> Matrix:
        matrix = super().matrix(name)
        match = Q_OR_K.fullmatch(name)
        if match is None:
            return matrix
        row_map = self._maps[match[1]]
        return Matrix(matrix.type, matrix.rows, matrix.cols, matrix.data, row_map)


def config_from_gguf(keys: Fields, source: TensorSource) -> ModelConfig:
    config = gguf_config("llama", keys, source)
    # Mistral's files are of this architecture too; the first one had a window
    window = keys.count("attention.sliding_window", 0, low=0, high=MAX_CONTEXT)
    return replace(config, windows=(window,) * config.layers)


def config_from_hf(fields: Fields, source: TensorSource) -> ModelConfig:
    return hf_config("llama", fields, source)


def program(config: ModelConfig) -> Program:
    return pre_norm_decoder(config)


def _paired_rows(source: TensorSource, keys: Fields, config: ModelConfig) -> TensorSource:
    return PairedRows(source, config)


LAYER_NAMES = {
    **ATTENTION_NAMES,
    "ffn_norm.weight": "post_attention_layernorm.weight",
    **FFN_NAMES,
}

FAMILY = Family(
    name="llama",
    gguf=("llama",),
    hf=("LlamaForCausalLM",),
    layer_names=LAYER_NAMES,
    config_from_gguf=config_from_gguf,
    config_from_hf=config_from_hf,
    program=program,
    hf_defaults={
        "hidden_act": "silu",
        "max_position_embeddings": 2048,
        "rms_norm_eps": 1e-6,
        "tie_word_embeddings": False,
    },
    adapt_gguf=_paired_rows,
)
