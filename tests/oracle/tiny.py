"""Tiny random transformers models, one for every switch of every family, and their GGUF twins.

The defaults of transformers' own test models would miss what goes wrong in practice, so here heads
outnumber KV heads, the head size is not hidden / heads, norms and biases are random, widths are
odd, and a few hundred tokens cross every window and every rope boundary.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import gguf as gguf_py
import numpy as np
import torch
import transformers

from pocketlm.gguf import BlockType, TensorData, write_gguf

VOCAB = 160
HIDDEN = 64
LENGTH = 300

Tensors = dict[str, np.ndarray[Any, np.dtype[np.float32]]]


@dataclass(frozen=True)
class Tiny:
    """One model to test.

    Attributes:
        config: transformers configuration.
        arch: its GGUF architecture, "" when GGUF cannot say what the configuration says.
        keys: GGUF keys beyond the common ones, without the architecture's prefix.
        lengths: sequence lengths to compare; several where the length changes the arithmetic.
    """

    config: transformers.PreTrainedConfig
    arch: str
    keys: dict[str, Any] = field(default_factory=dict)
    lengths: tuple[int, ...] = (LENGTH,)


def _shape(**changes: Any) -> dict[str, Any]:
    shape = {
        "vocab_size": VOCAB,
        "hidden_size": HIDDEN,
        "intermediate_size": 101,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "max_position_embeddings": 512,
        "rms_norm_eps": 1e-5,
        "tie_word_embeddings": False,
        "pad_token_id": None,
        "bos_token_id": 1,
        "eos_token_id": 2,
    }
    return {**shape, **changes}


def _rope(kind: str = "default", theta: float = 10_000.0, **more: Any) -> dict[str, Any]:
    return {"rope_type": kind, "rope_theta": theta, **more}


def _llama3() -> Tiny:
    rope = _rope(
        "llama3",
        500_000.0,
        factor=8.0,
        low_freq_factor=1.0,
        high_freq_factor=4.0,
        original_max_position_embeddings=32,
    )
    return Tiny(
        transformers.LlamaConfig(**_shape(head_dim=24, rope_parameters=rope)),
        "llama",
        {"rope.freq_base": 500_000.0},
    )


def _llama_mqa() -> Tiny:
    shape = _shape(num_key_value_heads=1, tie_word_embeddings=True, rope_parameters=_rope())
    return Tiny(transformers.LlamaConfig(**shape), "llama")


def _llama_linear() -> Tiny:
    shape = _shape(num_key_value_heads=4, rope_parameters=_rope("linear", factor=4.0))
    return Tiny(
        transformers.LlamaConfig(**shape),
        "llama",
        {"rope.scaling.type": "linear", "rope.scaling.factor": 4.0},
    )


def _mistral() -> Tiny:
    shape = _shape(sliding_window=37, rope_parameters=_rope(theta=1e6))
    return Tiny(
        transformers.MistralConfig(**shape),
        "llama",
        {"attention.sliding_window": 37, "rope.freq_base": 1e6},
    )


def _qwen2() -> Tiny:
    shape = _shape(rope_parameters=_rope(theta=1e6))
    return Tiny(transformers.Qwen2Config(**shape), "qwen2", {"rope.freq_base": 1e6})


def _qwen2_sliding() -> Tiny:
    shape = _shape(num_hidden_layers=3, use_sliding_window=True, sliding_window=40)
    rope = {"rope_parameters": _rope(), "max_window_layers": 1}
    return Tiny(transformers.Qwen2Config(**shape, **rope), "")


def _qwen2_yarn() -> Tiny:
    rope = _rope("yarn", 1e6, factor=4.0, original_max_position_embeddings=64)
    keys = {
        "rope.freq_base": 1e6,
        "rope.scaling.type": "yarn",
        "rope.scaling.factor": 4.0,
        "rope.scaling.original_context_length": 64,
    }
    return Tiny(transformers.Qwen2Config(**_shape(rope_parameters=rope)), "qwen2", keys)


def _qwen3() -> Tiny:
    shape = _shape(head_dim=32, tie_word_embeddings=True, rope_parameters=_rope(theta=1e6))
    keys = {"rope.freq_base": 1e6}
    return Tiny(transformers.Qwen3Config(**shape), "qwen3", keys)


def _gemma3(**changes: Any) -> transformers.Gemma3TextConfig:
    rope = {
        "sliding_attention": _rope(theta=10_000.0),
        "full_attention": _rope("linear", 1e6, factor=8.0),
    }
    shape = _shape(
        num_hidden_layers=7,
        num_key_value_heads=1,
        head_dim=32,
        tie_word_embeddings=True,
        sliding_window=33,
        query_pre_attn_scalar=32,
        rope_parameters=rope,
    )
    return transformers.Gemma3TextConfig(**{**shape, **changes})


_GEMMA3_KEYS = {
    "attention.sliding_window": 33,
    "rope.freq_base": 1e6,
    "rope.scaling.type": "linear",
    "rope.scaling.factor": 8.0,
}


def _gemma3_small() -> Tiny:
    rope = {"sliding_attention": _rope(), "full_attention": _rope(theta=1e6)}
    keys = {"attention.sliding_window": 33, "rope.freq_base": 1e6}
    return Tiny(_gemma3(rope_parameters=rope), "gemma3", keys)


def _gemma3_capped() -> Tiny:
    config = _gemma3(query_pre_attn_scalar=21, final_logit_softcapping=5.0, num_key_value_heads=2)
    return Tiny(config, "")


def _phi3(**changes: Any) -> transformers.Phi3Config:
    shape = _shape(intermediate_size=52, num_attention_heads=2, num_key_value_heads=1)
    return transformers.Phi3Config(**{**shape, **changes})


def _phi3_longrope() -> Tiny:
    rope = _rope(
        "longrope",
        short_factor=[1.0 + 0.01 * i for i in range(12)],
        long_factor=[1.0 + 0.7 * i for i in range(12)],
        partial_rotary_factor=0.75,
        original_max_position_embeddings=32,
    )
    config = _phi3(
        rope_parameters=rope, original_max_position_embeddings=32, tie_word_embeddings=True
    )
    keys = {
        "rope.dimension_count": 24,
        "rope.scaling.original_context_length": 32,
        "rope.scaling.attn_factor": math.sqrt(1 + math.log(16) / math.log(32)),
    }
    return Tiny(config, "phi3", keys, lengths=(32, 33, LENGTH))


def _phi3_window() -> Tiny:
    config = _phi3(sliding_window=50, rope_parameters=_rope(theta=250_000.0))
    return Tiny(config, "phi3", {"attention.sliding_window": 50, "rope.freq_base": 250_000.0})


def _bitnet_float() -> Tiny:
    shape = _shape(rope_parameters=_rope(theta=500_000.0), tie_word_embeddings=True)
    return Tiny(transformers.BitNetConfig(**shape), "")


TINY: dict[str, Callable[[], Tiny]] = {
    "llama3": _llama3,
    "llama-mqa": _llama_mqa,
    "llama-linear": _llama_linear,
    "mistral-window": _mistral,
    "qwen2": _qwen2,
    "qwen2-sliding": _qwen2_sliding,
    "qwen2-yarn": _qwen2_yarn,
    "qwen3": _qwen3,
    "gemma3-linear": lambda: Tiny(_gemma3(), "gemma3", _GEMMA3_KEYS),
    "gemma3-small": _gemma3_small,
    "gemma3-capped": _gemma3_capped,
    "phi3-longrope": _phi3_longrope,
    "phi3-window": _phi3_window,
    "bitnet-float": _bitnet_float,
}


def random_model(config: transformers.PreTrainedConfig, seed: int = 0) -> Any:
    """The model in float32 with eager attention; every weight random, norms and biases too."""
    torch.manual_seed(seed)
    model = transformers.AutoModelForCausalLM.from_config(
        config, dtype=torch.float32, attn_implementation="eager"
    ).eval()
    gemma = "gemma" in config.model_type
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "norm" in name:
                parameter.copy_(0.3 * torch.randn_like(parameter) + (0.0 if gemma else 1.0))
            elif name.endswith("bias"):
                parameter.copy_(0.5 * torch.randn_like(parameter))
            else:
                parameter.copy_(torch.randn_like(parameter) / math.sqrt(parameter.shape[-1]))
    return model


def random_tokens(length: int, seed: int = 1) -> np.ndarray[Any, np.dtype[np.int32]]:
    return np.random.default_rng(seed).integers(0, VOCAB, length, dtype=np.int32)


def logits_of(model: Any, tokens: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """transformers' logits [tokens, vocab] of one whole sequence."""
    with torch.no_grad():
        ids = torch.from_numpy(tokens.astype(np.int64))[None]
        return np.asarray(model(input_ids=ids, use_cache=False).logits[0].numpy())


def gguf_tensors(model: Any, arch: str) -> Tensors:
    """The state dict as llama.cpp's converter would write it, named by the gguf package's map."""
    config = model.config
    kind = gguf_py.MODEL_ARCH_NAMES
    architecture = next(a for a, name in kind.items() if name == arch)
    names = gguf_py.get_tensor_name_map(architecture, config.num_hidden_layers)
    tensors: Tensors = {}
    for name, value in model.state_dict().items():
        if name == "lm_head.weight" and config.tie_word_embeddings:
            continue
        stem, _, suffix = name.rpartition(".")
        values = value.to(torch.float32).numpy()
        if arch == "gemma3" and stem.endswith("norm"):
            values = values + np.float32(1)
        if arch == "llama" and stem.endswith(("q_proj", "k_proj")):
            heads = config.num_attention_heads
            heads = heads if stem.endswith("q_proj") else config.num_key_value_heads
            rows, cols = values.shape
            values = values.reshape(heads, 2, rows // heads // 2, cols).swapaxes(1, 2)
            values = values.reshape(rows, cols)
        tensors[f"{names.get_name(stem)}.{suffix}"] = np.ascontiguousarray(values)
    rope = getattr(config, "rope_parameters", None) or {}
    if rope.get("rope_type") == "llama3":
        # what divides the plain frequencies, as the converter computes it
        base = rope["rope_theta"] ** (np.arange(0, config.head_dim, 2) / config.head_dim)
        inv_freq = model.model.rotary_emb.inv_freq.numpy()
        tensors["rope_freqs.weight"] = (1 / base / inv_freq).astype(np.float32)
    for length in ("short", "long"):
        if f"{length}_factor" in rope:
            factors = np.array(rope[f"{length}_factor"], dtype=np.float32)
            tensors[f"rope_factors_{length}.weight"] = factors
    return tensors


def gguf_metadata(tiny: Tiny) -> dict[str, Any]:
    config = tiny.config
    head_dim = getattr(config, "head_dim", None)
    metadata = {
        "block_count": config.num_hidden_layers,
        "context_length": config.max_position_embeddings,
        "embedding_length": config.hidden_size,
        "feed_forward_length": config.intermediate_size,
        "attention.head_count": config.num_attention_heads,
        "attention.head_count_kv": config.num_key_value_heads,
        "attention.layer_norm_rms_epsilon": config.rms_norm_eps,
        **(
            {"attention.key_length": head_dim, "attention.value_length": head_dim}
            if head_dim
            else {}
        ),
        **tiny.keys,
    }
    prefixed = {f"{tiny.arch}.{key}": value for key, value in metadata.items()}
    return {"general.architecture": tiny.arch, "general.name": "tiny", **prefixed}


def write_tiny_gguf(path: Path, tiny: Tiny, tensors: Tensors) -> None:
    """A file of float32 tensors."""
    written = [
        TensorData(name, BlockType.F32, values.shape, values) for name, values in tensors.items()
    ]
    write_gguf(path, gguf_metadata(tiny), written)
