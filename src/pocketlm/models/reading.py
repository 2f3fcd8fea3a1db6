"""What the families share in reading their configuration: from GGUF keys and from config.json.

``gguf_config`` and ``hf_config`` fill a ModelConfig with what every decoder has; a family then
replaces what it does otherwise. Both refuse what would change the arithmetic and is not supported,
because a model that runs and is subtly wrong is worse than one that does not run.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from pocketlm.errors import ModelFileError, UnsupportedError
from pocketlm.models.config import (
    MAX_CONTEXT,
    MAX_HEAD_DIM,
    MAX_HEADS,
    MAX_LAYERS,
    MAX_VOCABULARY,
    MAX_WIDTH,
    ModelConfig,
)
from pocketlm.models.fields import Fields, checked_numbers
from pocketlm.models.rope import (
    Divisors,
    Linear,
    Llama3,
    LongRope,
    Rope,
    Scaling,
    Yarn,
    longrope_attention_factor,
    yarn_attention_factor,
)
from pocketlm.models.sources import TensorSource

# Bounds of rope facts: wide enough for every published model, and arithmetic stays finite.
_THETA = {"low": 1.001, "high": 1e12}
_FACTOR = {"low": 1e-3, "high": 1e6}


def gguf_config(family: str, keys: Fields, source: TensorSource) -> ModelConfig:
    """The shape and rope of a GGUF file; ``keys`` looks under its architecture's prefix."""
    if keys.raw("expert_count"):
        raise UnsupportedError(
            f"'{keys.name('expert_count')}' makes this a mixture of experts, PocketLM runs dense "
            "models",
            path=keys.path,
        )
    hidden = keys.count("embedding_length", high=MAX_WIDTH)
    heads = keys.count("attention.head_count", high=MAX_HEADS)
    kv_heads = keys.count("attention.head_count_kv", heads, high=MAX_HEADS)
    head_dim = _head_dim(keys, "attention.key_length", "embedding_length", hidden, heads)
    _check_groups(keys, "attention.head_count_kv", heads, kv_heads)
    if keys.count("attention.value_length", head_dim, high=MAX_HEAD_DIM) != head_dim:
        raise UnsupportedError(
            f"'{keys.name('attention.value_length')}' differs from the key length", path=keys.path
        )
    embedding = source.shape("token_embd.weight")
    if len(embedding) != 2 or not 1 <= embedding[0] <= MAX_VOCABULARY:
        raise ModelFileError(f"'token_embd.weight' has the shape {embedding}", path=keys.path)
    layers = keys.count("block_count", high=MAX_LAYERS)
    context = keys.count("context_length", high=MAX_CONTEXT)
    rotary = keys.count("rope.dimension_count", head_dim, low=2, high=MAX_HEAD_DIM)
    if rotary > head_dim or rotary % 2:
        raise keys.wrong("rope.dimension_count", f"an even number up to the head size {head_dim}")
    return ModelConfig(
        family=family,
        layers=layers,
        hidden=hidden,
        heads=heads,
        kv_heads=kv_heads,
        head_dim=head_dim,
        ffn=keys.count("feed_forward_length", high=MAX_WIDTH),
        vocab=embedding[0],
        context=context,
        norm_eps=keys.number("attention.layer_norm_rms_epsilon", low=0.0, high=1.0),
        tied="output.weight" not in set(source.names()),
        rope=gguf_rope(keys, source, rotary, context),
        attention_scale=head_dim**-0.5,
        windows=(0,) * layers,
    )


def gguf_rope(keys: Fields, source: TensorSource, dim: int, context: int) -> Rope:
    """Rope of a GGUF file: scaling keys, or factors that the converter wrote as tensors."""
    theta = keys.number("rope.freq_base", 10_000.0, **_THETA)
    kind = keys.text("rope.scaling.type", "linear" if "rope.scale_linear" in keys else "none")
    attention = keys.number("rope.scaling.attn_factor", 0.0, low=0.0, high=100.0)
    names = set(source.names())
    if "rope_factors_long.weight" in names or kind == "longrope":
        original = keys.count("rope.scaling.original_context_length", low=2, high=MAX_CONTEXT)
        scaling: Scaling = LongRope(
            _factors(source, "rope_factors_short.weight", dim),
            _factors(source, "rope_factors_long.weight", dim),
            original,
        )
        attention = attention or longrope_attention_factor(context / original, original)
        return Rope(theta, dim, scaling, attention)
    if "rope_freqs.weight" in names:
        return Rope(theta, dim, Divisors(_factors(source, "rope_freqs.weight", dim)))
    if kind == "none":
        return Rope(theta, dim)
    if kind not in ("linear", "yarn"):
        raise _unknown_rope(keys.name("rope.scaling.type"), kind, keys.path)
    key = "rope.scaling.factor" if "rope.scaling.factor" in keys else "rope.scale_linear"
    factor = keys.number(key, **_FACTOR)
    if kind == "linear":
        return Rope(theta, dim, Linear(factor))
    yarn = Yarn(
        factor,
        keys.count("rope.scaling.original_context_length", low=2, high=MAX_CONTEXT),
        keys.number("rope.scaling.yarn_beta_fast", 32.0, **_FACTOR),
        keys.number("rope.scaling.yarn_beta_slow", 1.0, **_FACTOR),
    )
    return Rope(theta, dim, yarn, (attention or 1.0) * yarn_attention_factor(factor))


def _factors(source: TensorSource, name: str, dim: int) -> tuple[float, ...]:
    (length,) = source.shape(name) if len(source.shape(name)) == 1 else (-1,)
    error = ModelFileError(
        f"tensor '{name}' must hold {dim // 2} positive rope factors", path=source.path
    )
    if length != dim // 2:
        raise error
    return checked_numbers(source.vector(name).tolist(), error=error, **_FACTOR)


def hf_config(
    family: str,
    fields: Fields,
    source: TensorSource,
    *,
    activation_key: str = "hidden_act",
    rope: Rope | None = None,
) -> ModelConfig:
    """The shape of a config.json, which is expected to hold the class's defaults too.

    Its rope is read as well, unless the family brings it.
    """
    hidden = fields.count("hidden_size", high=MAX_WIDTH)
    heads = fields.count("num_attention_heads", high=MAX_HEADS)
    kv_heads = fields.count("num_key_value_heads", heads, high=MAX_HEADS)
    head_dim = _head_dim(fields, "head_dim", "hidden_size", hidden, heads)
    _check_groups(fields, "num_key_value_heads", heads, kv_heads)
    for flag in ("attention_bias", "mlp_bias"):
        if fields.flag(flag, False):
            raise UnsupportedError(
                f"'{fields.name(flag)}' is true, PocketLM has no {family} with these biases",
                path=fields.path,
            )
    layers = fields.count("num_hidden_layers", high=MAX_LAYERS)
    context = fields.count("max_position_embeddings", high=MAX_CONTEXT)
    tied = fields.flag("tie_word_embeddings", False)
    return ModelConfig(
        family=family,
        layers=layers,
        hidden=hidden,
        heads=heads,
        kv_heads=kv_heads,
        head_dim=head_dim,
        ffn=fields.count("intermediate_size", high=MAX_WIDTH),
        vocab=fields.count("vocab_size", high=MAX_VOCABULARY),
        context=context,
        norm_eps=fields.number("rms_norm_eps", low=0.0, high=1.0),
        tied=tied or "output.weight" not in set(source.names()),
        rope=rope or hf_rope(fields, head_dim, context),
        attention_scale=head_dim**-0.5,
        windows=(0,) * layers,
        activation=hf_activation(fields, activation_key),
    )


def hf_activation(fields: Fields, key: str) -> str:
    """Our name of the gate's activation."""
    names = {"silu": "silu", "gelu_pytorch_tanh": "gelu_tanh", "relu2": "relu2"}
    found = fields.text(key)
    if found not in names:
        raise UnsupportedError(
            f"'{fields.name(key)}' is '{found}', PocketLM runs {', '.join(names)}",
            path=fields.path,
        )
    return names[found]


def hf_windows(fields: Fields, layers: int) -> tuple[int, ...]:
    """Window of each layer: by ``layer_types`` where it is given, else one for all layers."""
    window = fields.count("sliding_window", 0, low=0, high=MAX_CONTEXT)
    kinds = fields.raw("layer_types")
    if kinds is None:
        return (window,) * layers
    known = {"full_attention": 0, "sliding_attention": window}
    if not isinstance(kinds, list) or len(kinds) != layers:
        raise fields.wrong("layer_types", f"a list of {layers} layer types")
    for kind in kinds:
        if kind not in known:
            raise UnsupportedError(
                f"'{fields.name('layer_types')}' has {kind!r}, PocketLM runs {', '.join(known)}",
                path=fields.path,
            )
    if "sliding_attention" in kinds and window == 0:
        raise fields.wrong("sliding_window", "a window for the sliding layers")
    return tuple(known[kind] for kind in kinds)


def hf_rope(fields: Fields, head_dim: int, context: int, *, params: Fields | None = None) -> Rope:
    """Rope of a config.json: ``rope_scaling`` with ``rope_theta``, or today's ``rope_parameters``.

    ``params`` is the section to read where the model has several (Gemma 3).
    """
    if params is None:
        params = fields.section("rope_scaling") or fields.section("rope_parameters")
    params = params or Fields({}, fields.path)
    if "full_attention" in params:
        raise UnsupportedError(
            "the rope parameters differ by layer type, which PocketLM runs for Gemma 3 only",
            path=fields.path,
        )
    holder = params if "rope_theta" in params else fields
    theta = holder.number("rope_theta", 10_000.0, **_THETA)
    holder = params if "partial_rotary_factor" in params else fields
    dim = int(head_dim * holder.number("partial_rotary_factor", 1.0, low=1e-3, high=1.0))
    if dim < 2 or dim % 2:
        raise holder.wrong("partial_rotary_factor", f"an even part of the head size {head_dim}")
    kind = params.text("rope_type", params.text("type", "default"))
    if kind == "default":
        return Rope(theta, dim)
    if kind == "linear":
        return Rope(theta, dim, Linear(params.number("factor", **_FACTOR)))
    # transformers lets the config's own value win over the section's
    holder = fields if "original_max_position_embeddings" in fields else params
    original = holder.count(
        "original_max_position_embeddings", max(context, 2), low=2, high=MAX_CONTEXT
    )
    if kind == "llama3":
        return Rope(theta, dim, _hf_llama3(params, original))
    attention = params.number("attention_factor", 0.0, low=0.0, high=100.0)
    factor = params.number("factor", context / original, **_FACTOR)
    if kind == "yarn":
        return Rope(
            theta, dim, _hf_yarn(params, factor, original), attention or _hf_mscale(params, factor)
        )
    if kind in ("longrope", "su"):
        short, long = (params.numbers(f"{k}_factor", **_FACTOR) for k in ("short", "long"))
        for key, factors in (("short_factor", short), ("long_factor", long)):
            if len(factors) != dim // 2:
                raise params.wrong(key, f"{dim // 2} factors")
        attention = attention or longrope_attention_factor(factor, original)
        return Rope(theta, dim, LongRope(short, long, original), attention)
    raise _unknown_rope(params.name("rope_type"), kind, fields.path)


def _hf_llama3(params: Fields, original: int) -> Llama3:
    low = params.number("low_freq_factor", **_FACTOR)
    high = params.number("high_freq_factor", **_FACTOR)
    if high <= low:
        raise params.wrong("high_freq_factor", f"more than the low_freq_factor of {low:g}")
    return Llama3(params.number("factor", **_FACTOR), low, high, original)


def _hf_yarn(params: Fields, factor: float, original: int) -> Yarn:
    return Yarn(
        factor,
        original,
        params.number("beta_fast", 32.0, **_FACTOR),
        params.number("beta_slow", 1.0, **_FACTOR),
        params.flag("truncate", True),
    )


def _hf_mscale(params: Fields, factor: float) -> float:
    for key in ("mscale", "mscale_all_dim"):
        if key in params:
            raise UnsupportedError(
                f"'{params.name(key)}' is given, PocketLM runs YaRN without it", path=params.path
            )
    return yarn_attention_factor(factor)


def _head_dim(keys: Fields, key: str, width_key: str, hidden: int, heads: int) -> int:
    if key not in keys and hidden % heads:
        raise keys.wrong(width_key, f"a multiple of the {heads} attention heads")
    head_dim = keys.count(key, hidden // heads, high=MAX_HEAD_DIM)
    if head_dim % 2:
        raise keys.wrong(key if key in keys else width_key, "heads of an even size")
    return head_dim


def _check_groups(keys: Fields, key: str, heads: int, kv_heads: int) -> None:
    if heads % kv_heads:
        raise keys.wrong(key, f"a divisor of the {heads} attention heads")


def _unknown_rope(key: str, kind: str, path: Path) -> UnsupportedError:
    return UnsupportedError(
        f"'{key}' is '{kind}', PocketLM runs none, linear, llama3, yarn and longrope", path=path
    )


def refuse_leftovers(found: Iterable[str], used: Iterable[str], family: str, path: Path) -> None:
    """Raises UnsupportedError when a file has weights that the family's program would ignore."""
    extra = sorted(set(found) - set(used))
    if extra:
        more = f" and {len(extra) - 1} more tensors" if len(extra) > 1 else ""
        raise UnsupportedError(
            f"'{extra[0]}'{more} would be ignored: PocketLM's {family} has no such weights",
            path=path,
            hint="The model is a variant that PocketLM does not run.",
        )
