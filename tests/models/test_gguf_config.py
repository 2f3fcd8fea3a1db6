"""Configurations from GGUF keys: what each family reads, and what hostile keys lead to."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from pocketlm.errors import ModelFileError, UnsupportedError
from pocketlm.gguf import BlockType
from pocketlm.models.rope import Divisors, Linear, LongRope, Yarn

from .conftest import Open
from .synthetic import Info, gguf

ARCHITECTURES = [
    "llama",
    "qwen2",
    "qwen3",
    "gemma3",
    "phi3",
    "bitnet",
    "bitnet-b1.58",
    "bitnet-25",
]


@pytest.mark.parametrize("arch", ARCHITECTURES)
def test_every_architecture_opens(arch: str, open_synthetic: Open) -> None:
    file = gguf(arch)
    spec = open_synthetic(file)
    config = spec.config
    assert config.family == arch.split("-")[0]
    assert (config.layers, config.hidden, config.heads, config.kv_heads) == (2, 64, 4, 2)
    assert (config.head_dim, config.ffn, config.vocab, config.context) == (16, 96, 100, 512)
    assert config.tied
    assert config.rope_switch is None
    assert spec.parameters == sum(int(np.prod(info.shape)) for info in file.tensors.values())
    assert spec.tokenizer_source is file.metadata


def test_switches_that_no_key_says(open_synthetic: Open) -> None:
    assert open_synthetic(gguf("qwen2")).config.qkv_bias
    assert open_synthetic(gguf("qwen3")).config.qk_norm
    bitnet = open_synthetic(gguf("bitnet")).config
    assert (bitnet.activation, bitnet.quantize) == ("silu", "row")
    assert open_synthetic(gguf("bitnet-b1.58")).config.activation == "relu2"


def test_gemma3_layers_alternate(open_synthetic: Open) -> None:
    config = open_synthetic(gguf("gemma3", {"attention.sliding_window_pattern": 2})).config
    assert config.windows == (16, 0)
    assert config.rope.theta == 1e6
    assert config.local_rope is not None
    assert config.local_rope.theta == 1e4
    assert config.embedding_scale == 8.0
    as_list = gguf("gemma3", {"attention.sliding_window_pattern": [False, True]})
    assert open_synthetic(as_list).config.windows == (0, 16)
    assert open_synthetic(gguf("gemma3")).config.windows == (16, 16)


def test_gemma3_27b_scales_scores_by_hidden_over_heads(open_synthetic: Open) -> None:
    layer = {n: i for n, i in gguf("gemma3").tensors.items() if n.startswith("blk.0.")}
    more = {n.replace("blk.0.", f"blk.{i}."): info for i in range(62) for n, info in layer.items()}
    keys = {"block_count": 62, "attention.key_length": 16, "attention.value_length": 16}
    heads = gguf("gemma3", keys, tensors=more)
    assert open_synthetic(heads).config.attention_scale == (64 / 4) ** -0.5


@pytest.mark.parametrize(
    ("keys", "scaling"),
    [
        ({}, None),
        ({"rope.scaling.type": "none"}, None),
        ({"rope.scaling.type": "linear", "rope.scaling.factor": 4.0}, Linear(4.0)),
        ({"rope.scale_linear": 2.0}, Linear(2.0)),
        (
            {
                "rope.scaling.type": "yarn",
                "rope.scaling.factor": 4.0,
                "rope.scaling.original_context_length": 128,
            },
            Yarn(4.0, 128),
        ),
    ],
)
def test_rope_scaling_keys(keys: dict[str, Any], scaling: object, open_synthetic: Open) -> None:
    assert open_synthetic(gguf("qwen2", keys)).config.rope.scaling == scaling


def test_rope_factors_from_tensors(open_synthetic: Open) -> None:
    file = gguf("llama", tensors={"rope_freqs.weight": Info((8,))})
    file.values["rope_freqs.weight"] = [float(i + 1) for i in range(8)]
    assert open_synthetic(file).config.rope.scaling == Divisors((1, 2, 3, 4, 5, 6, 7, 8))

    names = ("rope_factors_short.weight", "rope_factors_long.weight")
    keys = {"rope.dimension_count": 4, "rope.scaling.original_context_length": 32}
    file = gguf("phi3", keys, tensors={name: Info((2,)) for name in names})
    file.values = {names[0]: [1.0, 2.0], names[1]: [3.0, 4.0]}
    config = open_synthetic(file).config
    assert config.rope.scaling == LongRope((1.0, 2.0), (3.0, 4.0), 32)
    assert config.rope_switch == 32
    assert config.rope.attention_factor == pytest.approx((1 + np.log(16) / np.log(32)) ** 0.5)


# Every key of a shape, and what a hostile file may say there.
BAD = ("text", -1, 0, 2**31, 2**63, 1.5, True, [4], None)
HOSTILE = [
    *[("llama", key, value) for key in ("block_count", "embedding_length") for value in BAD],
    *[("llama", key, value) for key in ("feed_forward_length", "context_length") for value in BAD],
    *[("llama", "attention.head_count", value) for value in (*BAD, 3, 5, 128)],
    *[("llama", "attention.head_count_kv", value) for value in (*BAD[:-1], 3, 8)],
    *[("llama", "attention.key_length", value) for value in (*BAD[:-1], 15)],
    *[("llama", "rope.dimension_count", value) for value in (*BAD[:-1], 1, 17, 18, 15)],
    *[
        ("llama", "attention.layer_norm_rms_epsilon", value)
        for value in ("text", -1.0, 2.0, float("nan"), float("inf"), None)
    ],
    *[
        ("llama", "rope.freq_base", value)
        for value in ("text", -1.0, 0.0, 1.0, float("nan"), float("inf"))
    ],
    ("llama", "rope.scaling.type", 7),
    ("gemma3", "attention.sliding_window", None),
    ("gemma3", "attention.sliding_window", -5),
    ("gemma3", "attention.sliding_window_pattern", 0),
    ("gemma3", "attention.sliding_window_pattern", [True]),
    ("gemma3", "rope.freq_base_swa", 0.0),
    ("gemma3", "final_logit_softcapping", -1.0),
    ("gemma3", "final_logit_softcapping", float("nan")),
    ("phi3", "attention.sliding_window", -1),
]


@pytest.mark.parametrize(("arch", "key", "value"), HOSTILE)
def test_hostile_key_is_named(arch: str, key: str, value: object, open_synthetic: Open) -> None:
    file = gguf(arch, {key: value})
    with pytest.raises(ModelFileError, match=f"'{arch}.({key}|embedding_length)'"):
        open_synthetic(file)
    assert file.closed


@pytest.mark.parametrize(
    ("keys", "named"),
    [
        ({"rope.scaling.type": "linear"}, "rope.scale_linear"),
        ({"rope.scaling.type": "linear", "rope.scaling.factor": 0.0}, "rope.scaling.factor"),
        ({"rope.scaling.type": "yarn", "rope.scaling.factor": 2.0}, "original_context_length"),
        ({"rope.scaling.type": "longrope"}, "original_context_length"),
    ],
)
def test_incomplete_rope_scaling(keys: dict[str, Any], named: str, open_synthetic: Open) -> None:
    with pytest.raises(ModelFileError, match=named):
        open_synthetic(gguf("llama", keys))


@pytest.mark.parametrize("values", [[1.0] * 7, [1.0] * 7 + [0.0], [1.0] * 7 + [float("nan")]])
def test_hostile_rope_factors(values: list[float], open_synthetic: Open) -> None:
    file = gguf("llama", tensors={"rope_freqs.weight": Info((len(values),))})
    file.values["rope_freqs.weight"] = values
    with pytest.raises(ModelFileError, match=r"rope_freqs\.weight"):
        open_synthetic(file)


@pytest.mark.parametrize(
    ("name", "info"),
    [
        ("token_embd.weight", Info((100, 65))),
        ("token_embd.weight", Info((0, 64))),
        ("token_embd.weight", Info((100,))),
        ("output_norm.weight", Info((65,))),
        ("output.weight", Info((99, 64))),
        ("blk.1.attn_q.weight", Info((63, 64))),
        ("blk.1.ffn_down.weight", Info((64, 96, 1))),
    ],
)
def test_tensor_of_another_shape(name: str, info: Info, open_synthetic: Open) -> None:
    with pytest.raises(ModelFileError, match=name):
        open_synthetic(gguf("llama", tensors={name: info}))


def test_missing_tensor(open_synthetic: Open) -> None:
    with pytest.raises(ModelFileError, match=r"blk\.1\.ffn_up\.weight.* missing"):
        open_synthetic(gguf("llama", drop=["blk.1.ffn_up.weight"]))
    with pytest.raises(ModelFileError, match=r"token_embd\.weight.* missing"):
        open_synthetic(gguf("llama", drop=["token_embd.weight"]))


def test_more_layers_than_tensors(open_synthetic: Open) -> None:
    with pytest.raises(ModelFileError, match=r"blk\.2\.attn_norm.*1000 layers"):
        open_synthetic(gguf("llama", {"block_count": 1000}))


def test_tokens_beyond_the_embedding(open_synthetic: Open) -> None:
    tokens = {"tokenizer.ggml.tokens": ["t"] * 101}
    with pytest.raises(ModelFileError, match=r"tokenizer\.ggml\.tokens"):
        open_synthetic(gguf("llama", top=tokens))


@pytest.mark.parametrize(
    ("file", "message"),
    [
        (gguf("qwen3moe"), "qwen3moe"),
        (gguf("llama", {"expert_count": 8}), "mixture of experts"),
        (gguf("llama", {"attention.key_length": 16, "attention.value_length": 8}), "value_length"),
        (gguf("llama", {"rope.scaling.type": "su"}), "'su'"),
        (gguf("llama", tensors={"blk.0.attn_q.bias": Info((64,))}), r"blk\.0\.attn_q\.bias"),
        (gguf("qwen2", tensors={"blk.2.attn_norm.weight": Info((64,))}), r"blk\.2\.attn_norm"),
        (
            gguf("llama", tensors={"blk.0.ffn_up.weight": Info((96, 64), BlockType.IQ2_XXS)}),
            r"blk\.0\.ffn_up\.weight.*IQ2_XXS",
        ),
    ],
)
def test_unsupported(file: Any, message: str, open_synthetic: Open) -> None:
    with pytest.raises(UnsupportedError, match=message):
        open_synthetic(file)


def test_no_architecture(open_synthetic: Open) -> None:
    with pytest.raises(ModelFileError, match=r"general\.architecture"):
        open_synthetic(gguf("llama", top={"general.architecture": None}))
