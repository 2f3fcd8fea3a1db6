"""A model's configuration as GGUF says it: the keys under its architecture, and rope's tensors.

The writing direction of ``models.reading.gguf_config`` and of the families' ``config_from_gguf``.
Every reader of GGUF fills in by rule what has no key (Gemma's score scale, BitNet's activation);
a configuration that breaks such a rule is refused, since the file would run and be subtly wrong.
Key names: the GGUF specification; what stands in which of them: llama.cpp's loader.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from pocketlm.errors import UnsupportedError
from pocketlm.gguf import Value
from pocketlm.models.config import ModelConfig
from pocketlm.models.rope import (
    Linear,
    Llama3,
    LongRope,
    Rope,
    Yarn,
    frequencies,
    yarn_attention_factor,
)
from pocketlm.models.sources import Floats

# family: GGUF architecture, and the activation that the architecture means
_ARCHITECTURES = {
    "llama": ("llama", "silu"),
    "mistral": ("llama", "silu"),
    "qwen2": ("qwen2", "silu"),
    "qwen3": ("qwen3", "silu"),
    "gemma3": ("gemma3", "gelu_tanh"),
    "phi3": ("phi3", "silu"),
    "bitnet": ("bitnet-b1.58", "relu2"),
}
_WITH_WINDOW = ("llama", "phi3")  # one window for all layers
_GEMMA_PATTERN = 6
_LAYERS_OF_GEMMA_27B = 62


@dataclass(frozen=True)
class Architecture:
    """What GGUF says of a configuration.

    Attributes:
        name: ``general.architecture``.
        keys: metadata, complete names.
        factors: tensors that rope needs, float32 [rope.dim / 2].
    """

    name: str
    keys: dict[str, Value]
    factors: dict[str, Floats]


def architecture_of(config: ModelConfig, path: Path) -> Architecture:
    """What a GGUF file must say so that its reader finds ``config``.

    Raises:
        UnsupportedError: GGUF has no way to say something in it. ``path`` is for the error.
    """
    name, activation = _ARCHITECTURES[config.family]
    if config.activation != activation:
        raise _unsayable(name, f"the activation {config.activation}", path)
    if config.family == "bitnet" and config.quantize != "row":
        raise UnsupportedError(
            "the BitNet model is in plain floats: its config.json has no quantization_config",
            path=path,
            hint="GGUF keeps BitNet models with ternary weights only. If the model was trained so, "
            "add the quantization_config of its makers.",
        )
    keys: dict[str, Value] = {
        "block_count": config.layers,
        "context_length": config.context,
        "embedding_length": config.hidden,
        "feed_forward_length": config.ffn,
        "attention.head_count": config.heads,
        "attention.head_count_kv": config.kv_heads,
        "attention.layer_norm_rms_epsilon": config.norm_eps,
        "attention.key_length": config.head_dim,
        "attention.value_length": config.head_dim,
        "vocab_size": config.vocab,
    }
    rope, factors = _rope(config.rope, name, path)
    keys |= rope | _windows(config, name, path) | _gemma(config, path)
    if config.attention_scale != _meant_scale(config):
        raise _unsayable(name, f"the score scale {config.attention_scale:g}", path)
    return Architecture(name, {f"{name}.{key}": value for key, value in keys.items()}, factors)


def _unsayable(architecture: str, what: str, path: Path) -> UnsupportedError:
    return UnsupportedError(
        f"{what} cannot be said in a GGUF file of the architecture '{architecture}'", path=path
    )


def _meant_scale(config: ModelConfig) -> float:
    """What readers take for the scale of the scores, which has no key they agree on."""
    if config.family == "gemma3" and config.layers == _LAYERS_OF_GEMMA_27B:
        return float((config.hidden / config.heads) ** -0.5)
    return float(config.head_dim**-0.5)


def _windows(config: ModelConfig, name: str, path: Path) -> dict[str, Value]:
    if config.family == "gemma3":
        return _gemma_windows(config, path)
    # a window that no sequence outgrows is none
    windows = {0 if window >= config.context else window for window in config.windows}
    if windows == {0}:
        return {"attention.sliding_window": 0} if name == "phi3" else {}
    if len(windows) > 1 or name not in _WITH_WINDOW:
        raise _unsayable(name, "a sliding window in these layers", path)
    return {"attention.sliding_window": windows.pop()}


def _gemma_windows(config: ModelConfig, path: Path) -> dict[str, Value]:
    """The window, and how many layers make one turn of the pattern where that is not six."""
    (window,) = set(config.windows) - {0} or {config.context}
    full = [i + 1 for i, size in enumerate(config.windows) if size == 0]
    period = full[0] if full else max(_GEMMA_PATTERN, config.layers + 1)
    if full != list(range(period, config.layers + 1, period)):
        raise _unsayable("gemma3", "this order of sliding and full layers", path)
    keys: dict[str, Value] = {"attention.sliding_window": window}
    if period != _GEMMA_PATTERN and (full or config.layers >= _GEMMA_PATTERN):
        keys["attention.sliding_window_pattern"] = period
    return keys


def _gemma(config: ModelConfig, path: Path) -> dict[str, Value]:
    keys: dict[str, Value] = {}
    if config.local_rope is not None:
        if replace(config.local_rope, theta=1.0) != Rope(1.0, config.rope.dim):
            raise _unsayable("gemma3", "scaled rope in the sliding layers", path)
        keys["rope.freq_base_swa"] = config.local_rope.theta
    if config.logit_softcap is not None:
        keys["final_logit_softcapping"] = config.logit_softcap
    plain = float(np.sqrt(np.float32(config.hidden)))
    if config.family == "gemma3" and config.embedding_scale != plain:
        # rounded to the checkpoint's type, as it was in training; readers that do not know the
        # key take the plain root
        keys["embedding_scale"] = config.embedding_scale
    return keys


def _rope(rope: Rope, name: str, path: Path) -> tuple[dict[str, Value], dict[str, Floats]]:
    keys: dict[str, Value] = {"rope.dimension_count": rope.dim, "rope.freq_base": rope.theta}
    scaling = rope.scaling
    if isinstance(scaling, Linear):
        keys |= {"rope.scaling.type": "linear", "rope.scaling.factor": scaling.factor}
    elif isinstance(scaling, Llama3):
        return keys, {"rope_freqs.weight": _divisors(rope)}
    elif isinstance(scaling, LongRope):
        keys |= {
            "rope.scaling.type": "longrope",
            "rope.scaling.original_context_length": scaling.original_context,
            "rope.scaling.attn_factor": rope.attention_factor,
        }
        return keys, {
            "rope_factors_long.weight": np.array(scaling.long, dtype=np.float32),
            "rope_factors_short.weight": np.array(scaling.short, dtype=np.float32),
        }
    elif isinstance(scaling, Yarn):
        keys |= _yarn(rope, scaling, name, path)
    return keys, {}


def _yarn(rope: Rope, scaling: Yarn, name: str, path: Path) -> dict[str, Value]:
    if not scaling.truncate:
        raise _unsayable(name, "YaRN without 'truncate'", path)
    keys: dict[str, Value] = {
        "rope.scaling.type": "yarn",
        "rope.scaling.factor": scaling.factor,
        "rope.scaling.original_context_length": scaling.original_context,
    }
    beyond = (
        ("rope.scaling.yarn_beta_fast", scaling.beta_fast, 32.0),
        ("rope.scaling.yarn_beta_slow", scaling.beta_slow, 1.0),
        # times what the factor gives, which the readers put in themselves
        (
            "rope.scaling.attn_factor",
            rope.attention_factor / yarn_attention_factor(scaling.factor),
            1.0,
        ),
    )
    return keys | {key: value for key, value, default in beyond if value != default}


def _divisors(rope: Rope) -> Floats:
    """What divides the plain frequencies to give Llama 3.1's, float32 [dim / 2]."""
    plain, _ = frequencies(replace(rope, scaling=None))
    scaled, _ = frequencies(rope)
    divided: Floats = (plain.astype(np.float64) / scaled.astype(np.float64)).astype(np.float32)
    return divided
