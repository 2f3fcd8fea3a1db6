"""Rotary position embedding: its facts and the inverse frequencies they give.

Position p rotates the pair i of a head by the angle p * inv_freq[i], and cos and sin are multiplied
by the attention factor. The native core gets the finished frequencies, so a new kind of scaling is
Python only. Formulas: ``modeling_rope_utils.py`` of Hugging Face transformers, which is also where
the order of the float32 operations comes from (one rounding more and positions of 10^5 notice).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Linear:
    """Every frequency divided by one factor (Gemma 3 4B+, full-attention layers)."""

    factor: float


@dataclass(frozen=True)
class Llama3:
    """Llama 3.1: long wavelengths divided by the factor, short ones kept, a ramp between."""

    factor: float
    low_freq_factor: float
    high_freq_factor: float
    original_context: int


@dataclass(frozen=True)
class Yarn:
    """YaRN: interpolated below ``beta_slow`` turns in the original context, kept above
    ``beta_fast``."""

    factor: float
    original_context: int
    beta_fast: float = 32.0
    beta_slow: float = 1.0
    truncate: bool = True


@dataclass(frozen=True)
class LongRope:
    """One divisor a frequency, of two sets: ``long`` for all positions of any sequence longer than
    ``original_context``, else ``short`` (Phi-3/4-mini)."""

    short: tuple[float, ...]
    long: tuple[float, ...]
    original_context: int


@dataclass(frozen=True)
class Divisors:
    """One divisor a frequency, computed by whoever wrote the file (GGUF ``rope_freqs``)."""

    values: tuple[float, ...]


Scaling = Linear | Llama3 | Yarn | LongRope | Divisors


@dataclass(frozen=True)
class Rope:
    """What one kind of layer needs to rotate its heads.

    Attributes:
        theta: the base of the frequencies.
        dim: how many leading values of a head are rotated; even, at most head_dim.
        scaling: how frequencies are changed for long contexts, None for not at all.
        attention_factor: multiplies cos and sin.
    """

    theta: float
    dim: int
    scaling: Scaling | None = None
    attention_factor: float = 1.0


def yarn_attention_factor(factor: float) -> float:
    """YaRN's default: 0.1 ln(factor) + 1."""
    return 1.0 if factor <= 1 else 0.1 * math.log(factor) + 1.0


def longrope_attention_factor(factor: float, original_context: int) -> float:
    """LongRoPE's default: sqrt(1 + ln(factor) / ln(original_context))."""
    if factor <= 1:
        return 1.0
    return math.sqrt(1 + math.log(factor) / math.log(original_context))


def frequencies(rope: Rope) -> tuple[Floats, Floats | None]:
    """Inverse frequencies, float32 [dim / 2], and those of the long variant where there is one."""
    scaling = rope.scaling
    periods = _periods(rope)
    if isinstance(scaling, LongRope):
        short, long = (np.array(f, dtype=np.float32) for f in (scaling.short, scaling.long))
        return np.float32(1) / (short * periods), np.float32(1) / (long * periods)
    inv_freq: Floats = np.float32(1) / periods
    if isinstance(scaling, Linear):
        inv_freq = inv_freq / np.float32(scaling.factor)
    elif isinstance(scaling, Divisors):
        divisors: Floats = np.array(scaling.values, dtype=np.float32)
        inv_freq = inv_freq / divisors
    elif isinstance(scaling, Llama3):
        inv_freq = _llama3(inv_freq, scaling)
    elif isinstance(scaling, Yarn):
        inv_freq = _yarn(periods, rope, scaling)
    return inv_freq, None


def _periods(rope: Rope) -> Floats:
    """theta^(2i / dim): the exponent in float32, the power correctly rounded to float32."""
    exponents = np.arange(0, rope.dim, 2, dtype=np.float32) / np.float32(rope.dim)
    return np.power(np.float64(rope.theta), exponents.astype(np.float64)).astype(np.float32)


def _llama3(inv_freq: Floats, s: Llama3) -> Floats:
    wavelengths = np.float32(2 * math.pi) / inv_freq
    turns = np.float32(s.original_context) / wavelengths
    ramp = (turns - np.float32(s.low_freq_factor)) / np.float32(
        s.high_freq_factor - s.low_freq_factor
    )
    slow = inv_freq / np.float32(s.factor)
    mixed = (np.float32(1) - ramp) * inv_freq / np.float32(s.factor) + ramp * inv_freq
    result = np.where(wavelengths > s.original_context / s.low_freq_factor, slow, mixed)
    return np.where(wavelengths < s.original_context / s.high_freq_factor, inv_freq, result)


def _yarn(periods: Floats, rope: Rope, s: Yarn) -> Floats:
    def correction_dim(turns: float) -> float:
        return (
            rope.dim
            * math.log(s.original_context / (turns * 2 * math.pi))
            / (2 * math.log(rope.theta))
        )

    low, high = correction_dim(s.beta_fast), correction_dim(s.beta_slow)
    if s.truncate:
        low, high = math.floor(low), math.ceil(high)
    low, high = max(low, 0), min(high, rope.dim - 1)
    if low == high:
        high += 0.001
    steps = np.arange(rope.dim // 2, dtype=np.float32)
    ramp = np.clip((steps - np.float32(low)) / np.float32(high - low), 0, 1).astype(np.float32)
    kept = np.float32(1) - ramp
    interpolated = np.float32(1) / (np.float32(s.factor) * periods)
    mixed: Floats = interpolated * (np.float32(1) - kept) + (np.float32(1) / periods) * kept
    return mixed
