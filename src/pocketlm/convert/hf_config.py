"""A model's configuration as config.json says it: the writing direction of ``models.reading``.

Rope is spelled as all versions of transformers read it (``rope_theta`` and ``rope_scaling``). What
GGUF keeps as finished tensors is solved for the formula's parameters where config.json wants them.
"""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import numpy.typing as npt

from pocketlm.errors import UnsupportedError
from pocketlm.models.config import ModelConfig
from pocketlm.models.rope import (
    Divisors,
    Linear,
    Llama3,
    LongRope,
    Rope,
    Yarn,
    frequencies,
    longrope_attention_factor,
    yarn_attention_factor,
)

_NAMES = {
    "llama": ("llama", "LlamaForCausalLM"),
    "mistral": ("mistral", "MistralForCausalLM"),
    "qwen2": ("qwen2", "Qwen2ForCausalLM"),
    "qwen3": ("qwen3", "Qwen3ForCausalLM"),
    "gemma3": ("gemma3_text", "Gemma3ForCausalLM"),
    "phi3": ("phi3", "Phi3ForCausalLM"),
    "bitnet": ("bitnet", "BitNetForCausalLM"),
}
_ACTIVATIONS = {"silu": "silu", "gelu_tanh": "gelu_pytorch_tanh", "relu2": "relu2"}
_CLOSE = 1e-5  # of rope factors, which GGUF keeps in float32

Json = dict[str, object]
Doubles = npt.NDArray[np.float64]


def hf_config(config: ModelConfig, dtype: str, path: Path) -> Json:
    """config.json without token ids.

    Args:
        config: of a GGUF file.
        dtype: "float32", "float16" or "bfloat16".
        path: the GGUF file, for errors.

    Raises:
        UnsupportedError: transformers has no words for something in it.
    """
    family = config.family
    if family == "llama" and any(config.windows):
        family = "mistral"
    if family == "bitnet" and config.activation != "relu2":
        raise UnsupportedError(
            f"transformers has no BitNet with the activation {config.activation}", path=path
        )
    model_type, model_class = _NAMES[family]
    activation = "hidden_activation" if family == "gemma3" else "hidden_act"
    found: Json = {
        "architectures": [model_class],
        "model_type": model_type,
        "attention_bias": False,
        activation: _ACTIVATIONS[config.activation],
        "head_dim": config.head_dim,
        "hidden_size": config.hidden,
        "intermediate_size": config.ffn,
        "max_position_embeddings": config.context,
        "num_attention_heads": config.heads,
        "num_hidden_layers": config.layers,
        "num_key_value_heads": config.kv_heads,
        "rms_norm_eps": plain(config.norm_eps),
        "tie_word_embeddings": config.tied,
        "torch_dtype": dtype,
        "vocab_size": config.vocab,
        **_rope(config, path),
    }
    if family == "qwen2":
        del found["attention_bias"]  # its biases on q, k and v are no option
    if family == "bitnet":
        found["quantization_config"] = {
            "quant_method": "bitnet",
            "linear_class": "autobitlinear",
            "quantization_mode": "offline",
            "modules_to_not_convert": ["lm_head"],
        }
    return {**found, **_windows(config, family), **(_gemma(config) if family == "gemma3" else {})}


def plain(value: float) -> float:
    """The shortest decimal that float32 rounds to the same value: 1e-05, not 9.99999974e-06."""
    return float(str(np.float32(value)))


def _windows(config: ModelConfig, family: str) -> Json:
    window = max(config.windows)
    if family in ("mistral", "phi3"):
        return {"sliding_window": window or None}
    if family in ("qwen2", "qwen3"):
        return {"use_sliding_window": False, "sliding_window": None}
    if family == "gemma3":
        kinds = ["sliding_attention" if size else "full_attention" for size in config.windows]
        return {"sliding_window": window or config.context, "layer_types": kinds}
    return {}


def _gemma(config: ModelConfig) -> Json:
    assert config.local_rope is not None
    return {
        "attn_logit_softcapping": None,
        "final_logit_softcapping": config.logit_softcap,
        "query_pre_attn_scalar": round(config.attention_scale**-2),
        "rope_local_base_freq": plain(config.local_rope.theta),
    }


def _rope(config: ModelConfig, path: Path) -> Json:
    rope = config.rope
    found: Json = {"rope_theta": plain(rope.theta), "rope_scaling": None}
    if rope.dim != config.head_dim:
        found["partial_rotary_factor"] = rope.dim / config.head_dim
    scaling = rope.scaling
    if isinstance(scaling, Linear):
        found["rope_scaling"] = {"rope_type": "linear", "factor": plain(scaling.factor)}
    elif isinstance(scaling, Yarn):
        found["rope_scaling"] = _yarn(rope, scaling)
    elif isinstance(scaling, LongRope):
        found["rope_scaling"] = _longrope(rope, scaling, config.context)
        found["original_max_position_embeddings"] = scaling.original_context
    elif isinstance(scaling, Divisors):
        solved = llama3_from_divisors(rope, scaling, path)
        found["rope_scaling"] = {
            "rope_type": "llama3",
            "factor": solved.factor,
            "low_freq_factor": solved.low_freq_factor,
            "high_freq_factor": solved.high_freq_factor,
            "original_max_position_embeddings": solved.original_context,
        }
    return found


def _yarn(rope: Rope, scaling: Yarn) -> Json:
    found: Json = {
        "rope_type": "yarn",
        "factor": plain(scaling.factor),
        "original_max_position_embeddings": scaling.original_context,
        "beta_fast": plain(scaling.beta_fast),
        "beta_slow": plain(scaling.beta_slow),
    }
    if not math.isclose(rope.attention_factor, yarn_attention_factor(scaling.factor), rel_tol=1e-6):
        found["attention_factor"] = rope.attention_factor
    return found


def _longrope(rope: Rope, scaling: LongRope, context: int) -> Json:
    found: Json = {
        "rope_type": "longrope",
        "short_factor": [plain(value) for value in scaling.short],
        "long_factor": [plain(value) for value in scaling.long],
    }
    implied = longrope_attention_factor(
        context / scaling.original_context, scaling.original_context
    )
    if not math.isclose(rope.attention_factor, implied, rel_tol=1e-6):
        found["attention_factor"] = rope.attention_factor
    return found


def llama3_from_divisors(rope: Rope, divisors: Divisors, path: Path) -> Llama3:
    """The parameters of Llama 3.1's formula that give these divisors of the frequencies.

    A divisor d on the ramp has 1/d = (1 - s)/factor + s with s = (turns - low) / (high - low),
    where turns = original context / wavelength: a line in 1 / wavelength. Only the ratios of the
    original context, low and high count, so low is 1, as in every published model.

    Raises:
        UnsupportedError: no parameters do.
    """
    values = np.array(divisors.values, dtype=np.float64)
    plain_rope = replace(rope, scaling=None)
    inverse, _ = frequencies(plain_rope)
    turns_per_position = inverse.astype(np.float64) / (2 * math.pi)
    factor = plain(float(values.max()))
    for solution in _ramps(turns_per_position, values, factor):
        scaled, _ = frequencies(replace(rope, scaling=solution))
        if np.allclose(inverse / scaled, values, rtol=_CLOSE):
            return solution
    raise UnsupportedError(
        "the tensor 'rope_freqs.weight' follows no formula that config.json has a name for",
        path=path,
    )


def _ramps(x: Doubles, values: Doubles, factor: float) -> list[Llama3]:
    """Candidates: the published numbers, and the line through the points on the ramp."""
    candidates = [Llama3(factor, 1.0, 4.0, 8192)]
    on_ramp = (values > 1 + _CLOSE) & (values < factor * (1 - _CLOSE))
    if on_ramp.sum() >= 2:
        s = (1 / values[on_ramp] - 1 / factor) / (1 - 1 / factor)
        slope, intercept = np.polyfit(x[on_ramp], s, 1)
        if slope > 0 > intercept:
            # slope = original / (high - low), intercept = -low / (high - low), low = 1
            high = 1 + round(-1 / intercept, 3)
            candidates.append(Llama3(factor, 1.0, high, round(slope * (high - 1))))
    elif on_ramp.sum() == 1:
        # one point: with the published low and high it fixes the original context
        place = float((1 / values[on_ramp][0] - 1 / factor) / (1 - 1 / factor))
        original = (1 + 3 * place) / float(x[on_ramp][0])
        candidates.append(Llama3(factor, 1.0, 4.0, round(original)))
    return [candidate for candidate in candidates if candidate.original_context >= 2]
