"""Configurations from config.json: published models, old spellings, hostile values."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from pocketlm.errors import ModelFileError, UnsupportedError
from pocketlm.gguf import BlockType
from pocketlm.models.families import FAMILIES
from pocketlm.models.family import Family, canonical_names, is_text
from pocketlm.models.fields import Fields
from pocketlm.models.program import Program
from pocketlm.models.rope import Linear, Llama3, LongRope, Rope
from pocketlm.models.sources import TensorSource
from pocketlm.models.spec import count_parameters

PATH = Path("config.json")


class Stored:
    """A source of which only the tensors' names and types matter."""

    def __init__(self, *names: str, type: BlockType = BlockType.BF16) -> None:
        self._names = names
        self._type = type

    def names(self) -> tuple[str, ...]:
        return self._names

    def type(self, name: str) -> BlockType:
        return self._type


def read(cls: str, config: dict[str, Any], source: Any = None) -> tuple[Any, Program]:
    family = family_of(cls)
    fields = Fields({**family.hf_defaults, **config}, PATH)
    stored: TensorSource = source or Stored("output.weight")
    model = family.config_from_hf(fields, stored)
    return model, family.program(model)


def family_of(cls: str) -> Family:
    return next(f for f in FAMILIES if cls in f.hf)


def shape(
    layers: int, hidden: int, heads: int, kv: int, ffn: int, vocab: int, **more: Any
) -> dict[str, Any]:
    return {
        "num_hidden_layers": layers,
        "hidden_size": hidden,
        "num_attention_heads": heads,
        "num_key_value_heads": kv,
        "intermediate_size": ffn,
        "vocab_size": vocab,
        **more,
    }


TIED = {"tie_word_embeddings": True}
PUBLISHED = [
    ("Qwen3ForCausalLM", shape(28, 1024, 16, 8, 3072, 151936, **TIED), 596_049_920),
    ("Qwen3ForCausalLM", shape(36, 4096, 32, 8, 12288, 151936), 8_190_735_360),
    ("Phi3ForCausalLM", shape(32, 3072, 24, 8, 8192, 200064, **TIED), 3_836_021_760),
    ("Phi3ForCausalLM", shape(40, 5120, 40, 10, 17920, 100352), 14_659_507_200),
    ("Gemma3ForCausalLM", shape(18, 640, 4, 1, 2048, 262144), 268_098_176),
    ("Gemma3ForCausalLM", shape(34, 2560, 8, 4, 10240, 262208), 3_880_263_168),
    (
        "Gemma3ForCausalLM",
        shape(62, 5376, 32, 16, 21504, 262208, head_dim=128),
        27_009_346_304,
    ),
    ("LlamaForCausalLM", shape(32, 4096, 32, 8, 14336, 128256), 8_030_261_248),
    ("LlamaForCausalLM", shape(16, 2048, 32, 8, 8192, 128256, **TIED), 1_235_814_400),
    ("LlamaForCausalLM", shape(30, 576, 9, 3, 1536, 49152, **TIED), 134_515_008),
    ("MistralForCausalLM", shape(32, 4096, 32, 8, 14336, 32768), 7_248_023_552),
    ("BitNetForCausalLM", shape(30, 2560, 20, 5, 6912, 128256, **TIED), 2_412_820_480),
    ("Qwen2ForCausalLM", shape(24, 896, 14, 2, 4864, 151936, **TIED), 494_032_768),
]


@pytest.mark.parametrize(("cls", "config", "parameters"), PUBLISHED)
def test_published_parameter_counts(cls: str, config: dict[str, Any], parameters: int) -> None:
    assert count_parameters(read(cls, config)[1]) == parameters


SMALL = shape(2, 64, 4, 2, 96, 100, rope_theta=500_000.0)


def test_old_and_new_rope_spelling_agree() -> None:
    scaling = {
        "factor": 8.0,
        "low_freq_factor": 1.0,
        "high_freq_factor": 4.0,
        "original_max_position_embeddings": 8192,
        "rope_type": "llama3",
    }
    old, _ = read("LlamaForCausalLM", {**SMALL, "rope_scaling": scaling})
    new = {**SMALL, "rope_parameters": {**scaling, "rope_theta": 500_000.0}}
    del new["rope_theta"]
    assert old.rope == read("LlamaForCausalLM", new)[0].rope
    assert old.rope == Rope(500_000.0, 16, Llama3(8.0, 1.0, 4.0, 8192))


def test_phi3_longrope() -> None:
    scaling = {"type": "longrope", "short_factor": [1.0] * 6, "long_factor": [2.0] * 6}
    config = {
        **SMALL,
        "rope_scaling": scaling,
        "partial_rotary_factor": 0.75,
        "original_max_position_embeddings": 4096,
        "max_position_embeddings": 131_072,
    }
    model, _ = read("Phi3ForCausalLM", config)
    assert model.rope.dim == 12
    assert model.rope.scaling == LongRope((1.0,) * 6, (2.0,) * 6, 4096)
    assert model.rope.attention_factor == pytest.approx(1.1902380714)
    assert model.rope_switch == 4096


def test_gemma3_nested_defaults_and_rounded_scale() -> None:
    """google/gemma-3-4b-it's config.json says five things and leaves the rest to the class."""
    config = {
        "hidden_size": 2560,
        "intermediate_size": 10240,
        "num_hidden_layers": 34,
        "rope_scaling": {"factor": 8.0, "rope_type": "linear"},
        "sliding_window": 1024,
    }
    model, program = read("Gemma3ForConditionalGeneration", config, Stored())
    assert count_parameters(program) == 3_880_263_168
    assert model.rope == Rope(1e6, 256, Linear(8.0))
    assert model.local_rope == Rope(1e4, 256)
    assert [i for i, w in enumerate(model.windows) if w == 0] == [5, 11, 17, 23, 29]
    assert model.tied
    assert model.attention_scale == 1 / 16
    assert model.embedding_scale == 50.5  # sqrt(2560) = 50.596 in bfloat16
    in_f32, _ = read("Gemma3ForConditionalGeneration", config, Stored(type=BlockType.F32))
    assert in_f32.embedding_scale == pytest.approx(50.59644, rel=1e-6)


def test_windows_of_qwen_and_mistral() -> None:
    off, _ = read("Qwen2ForCausalLM", {**SMALL, "sliding_window": 8})
    assert off.windows == (0, 0)
    sliding = {**SMALL, "use_sliding_window": True, "sliding_window": 8, "max_window_layers": 1}
    assert read("Qwen2ForCausalLM", sliding)[0].windows == (0, 8)
    typed = {**sliding, "layer_types": ["sliding_attention", "full_attention"]}
    assert read("Qwen3ForCausalLM", typed)[0].windows == (8, 0)
    assert read("MistralForCausalLM", SMALL)[0].windows == (4096, 4096)
    assert read("MistralForCausalLM", {**SMALL, "sliding_window": None})[0].windows == (0, 0)
    assert read("LlamaForCausalLM", {**SMALL, "sliding_window": 8})[0].windows == (0, 0)


def test_tied_when_flagged_or_when_no_head_is_stored() -> None:
    assert read("LlamaForCausalLM", {**SMALL, **TIED})[0].tied
    assert read("LlamaForCausalLM", SMALL, Stored())[0].tied
    assert not read("LlamaForCausalLM", SMALL)[0].tied


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("num_hidden_layers", 0),
        ("num_hidden_layers", 10**9),
        ("hidden_size", "64"),
        ("hidden_size", 65),
        ("num_attention_heads", -4),
        ("num_key_value_heads", 3),
        ("head_dim", 15),
        ("vocab_size", 2**40),
        ("rms_norm_eps", float("nan")),
        ("rope_theta", 0),
        ("max_position_embeddings", None),
        ("intermediate_size", True),
        ("tie_word_embeddings", "yes"),
        ("rope_scaling", "llama3"),
        ("partial_rotary_factor", 0.01),
    ],
)
def test_hostile_value_is_named(key: str, value: object) -> None:
    with pytest.raises(ModelFileError, match=f"'{key}'"):
        read("LlamaForCausalLM", {**SMALL, key: value})


@pytest.mark.parametrize(
    ("scaling", "named"),
    [
        ({"rope_type": "linear"}, "rope_scaling.factor"),
        ({"rope_type": "linear", "factor": float("inf")}, "rope_scaling.factor"),
        ({"rope_type": "llama3", "factor": 8.0}, "rope_scaling.low_freq_factor"),
        (
            {"rope_type": "llama3", "factor": 8, "low_freq_factor": 4, "high_freq_factor": 4},
            "rope_scaling.high_freq_factor",
        ),
        ({"rope_type": "longrope"}, "rope_scaling.short_factor"),
        (
            {"rope_type": "longrope", "short_factor": [1.0] * 7, "long_factor": [1.0] * 8},
            "rope_scaling.short_factor",
        ),
        (
            {"rope_type": "longrope", "short_factor": [1.0] * 8, "long_factor": [1, "x"]},
            "rope_scaling.long_factor",
        ),
    ],
)
def test_hostile_rope_scaling(scaling: dict[str, Any], named: str) -> None:
    with pytest.raises(ModelFileError, match=named):
        read("LlamaForCausalLM", {**SMALL, "rope_scaling": scaling})


@pytest.mark.parametrize(
    ("cls", "change", "message"),
    [
        ("LlamaForCausalLM", {"attention_bias": True}, "attention_bias"),
        ("LlamaForCausalLM", {"mlp_bias": True}, "mlp_bias"),
        ("LlamaForCausalLM", {"hidden_act": "gelu"}, "hidden_act"),
        ("LlamaForCausalLM", {"rope_scaling": {"rope_type": "dynamic", "factor": 2.0}}, "dynamic"),
        ("Gemma3ForCausalLM", {"attn_logit_softcapping": 50.0}, "capped"),
        ("Gemma3ForCausalLM", {"use_bidirectional_attention": True}, "both directions"),
        ("Qwen3ForCausalLM", {"rope_parameters": {"full_attention": {}}}, "layer type"),
        (
            "Qwen3ForCausalLM",
            {"use_sliding_window": True, "layer_types": ["chunked_attention"] * 2},
            "chunked_attention",
        ),
    ],
)
def test_unsupported(cls: str, change: dict[str, Any], message: str) -> None:
    with pytest.raises(UnsupportedError, match=message):
        read(cls, {**SMALL, **change})


@pytest.mark.parametrize("prefix", ["model.", "language_model.model.", "model.language_model."])
def test_names_of_text_models_and_of_text_models_inside_others(prefix: str) -> None:
    own = [f"{prefix}layers.3.mlp.up_proj.weight", f"{prefix}embed_tokens.weight"]
    names = canonical_names(own, family_of("LlamaForCausalLM").layer_names)
    assert list(names.values()) == ["blk.3.ffn_up.weight", "token_embd.weight"]


def test_names_without_a_place_keep_their_own() -> None:
    names = canonical_names(["model.layers.0.mlp.experts.weight", "lm_head.weight"], {})
    assert names == {"lm_head.weight": "output.weight"}
    assert not is_text("vision_tower.vision_model.x.weight")
    assert not is_text("model.multi_modal_projector.w")
    assert is_text("model.norm.weight")
