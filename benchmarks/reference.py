"""The reference of fidelity: transformers in float32 with a GGUF file's dequantized weights.

Covers the two families whose real files are at hand (llama and gemma3); the mapping is written out
here, apart from the package's own, so that a mistake there cannot hide itself.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers
from numpy.typing import NDArray

from pocketlm.gguf import GGUFFile

_COMMON = {
    "attn_norm": "input_layernorm",
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
}
_NAMES = {
    "llama": _COMMON | {"ffn_norm": "post_attention_layernorm"},
    "gemma3": _COMMON
    | {
        "ffn_norm": "pre_feedforward_layernorm",
        "post_attention_norm": "post_attention_layernorm",
        "post_ffw_norm": "post_feedforward_layernorm",
        "attn_q_norm": "self_attn.q_norm",
        "attn_k_norm": "self_attn.k_norm",
    },
}


def _config(file: GGUFFile, family: str) -> Any:
    def fact(key: str) -> Any:
        return file.metadata[f"{family}.{key}"]

    common = {
        "vocab_size": len(file.metadata["tokenizer.ggml.tokens"]),
        "hidden_size": fact("embedding_length"),
        "intermediate_size": fact("feed_forward_length"),
        "num_hidden_layers": fact("block_count"),
        "num_attention_heads": fact("attention.head_count"),
        "num_key_value_heads": fact("attention.head_count_kv"),
        "rms_norm_eps": fact("attention.layer_norm_rms_epsilon"),
        "max_position_embeddings": fact("context_length"),
        "tie_word_embeddings": "output.weight" not in file.tensors,
        "attn_implementation": "eager",
    }
    if family == "llama":
        rope = {"rope_type": "default", "rope_theta": fact("rope.freq_base")}
        return transformers.LlamaConfig(**common, rope_parameters=rope)
    rope = {
        "sliding_attention": {"rope_type": "default", "rope_theta": 10000.0},
        "full_attention": {"rope_type": "default", "rope_theta": fact("rope.freq_base")},
    }
    return transformers.Gemma3TextConfig(
        **common,
        head_dim=fact("attention.key_length"),
        query_pre_attn_scalar=fact("attention.key_length"),
        sliding_window=fact("attention.sliding_window"),
        rope_parameters=rope,
    )


def _weight(file: GGUFFile, family: str, name: str) -> torch.Tensor:
    values = torch.from_numpy(np.array(file.tensor(name)))
    if family == "gemma3" and name.endswith("norm.weight"):
        return values - 1.0  # stored as 1 + w
    for which in ("q", "k") if family == "llama" else ():
        if name.endswith(f"attn_{which}.weight"):  # stored for interleaved rotation
            key = "attention.head_count" if which == "q" else "attention.head_count_kv"
            heads = file.metadata[f"llama.{key}"]
            return values.view(heads, -1, 2, values.shape[1]).transpose(1, 2).reshape(values.shape)
    return values


def _hf_name(family: str, name: str) -> str:
    top = {"token_embd": "model.embed_tokens", "output_norm": "model.norm", "output": "lm_head"}
    stem, kind = name.rsplit(".", 1)
    if stem in top:
        return f"{top[stem]}.{kind}"
    _, layer, part = stem.split(".")
    return f"model.layers.{layer}.{_NAMES[family][part]}.{kind}"


class Reference:
    """``logits(tokens)``: [tokens, vocabulary] float32."""

    def __init__(self, path: Path) -> None:
        with GGUFFile.open(path) as file:
            family = str(file.metadata["general.architecture"])
            model = transformers.AutoModelForCausalLM.from_config(
                _config(file, family), dtype=torch.float32
            )
            state = {_hf_name(family, n): _weight(file, family, n) for n in file.tensors}
        missing, unexpected = model.load_state_dict(state, strict=False)
        if unexpected or set(missing) - {"lm_head.weight"}:
            raise RuntimeError(f"weights do not match: missing {missing}, unexpected {unexpected}")
        model.tie_weights()
        self._model = model.eval()

    def logits(self, tokens: list[int]) -> NDArray[np.float32]:
        with torch.inference_mode():
            out = self._model(torch.tensor([tokens])).logits[0]
        return np.asarray(out.numpy(), dtype=np.float32)
