"""Configurations as GGUF keys and as config.json: what each says, and what neither can."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from pocketlm.convert.architecture import architecture_of
from pocketlm.convert.card import card_metadata, read_card
from pocketlm.convert.folder import size_label
from pocketlm.convert.hf_config import hf_config, llama3_from_divisors, plain
from pocketlm.errors import UnsupportedError
from pocketlm.models.config import ModelConfig
from pocketlm.models.rope import Divisors, Linear, Llama3, LongRope, Rope, Yarn, frequencies

PATH = Path("model")
LLAMA = ModelConfig(
    family="llama",
    layers=4,
    hidden=64,
    heads=4,
    kv_heads=2,
    head_dim=16,
    ffn=128,
    vocab=100,
    context=512,
    norm_eps=1e-5,
    tied=False,
    rope=Rope(10_000.0, 16),
    attention_scale=16**-0.5,
    windows=(0,) * 4,
)
GEMMA = replace(
    LLAMA,
    family="gemma3",
    layers=7,
    windows=(32, 32, 32, 32, 32, 0, 32),
    local_rope=Rope(10_000.0, 16),
    rope=Rope(1e6, 16, Linear(8.0)),
    embedding_scale=8.0,
    qk_norm=True,
    activation="gelu_tanh",
    logit_softcap=30.0,
)


def test_gemmas_keys() -> None:
    keys = architecture_of(GEMMA, PATH).keys
    assert keys["gemma3.attention.sliding_window"] == 32
    assert keys["gemma3.rope.freq_base"] == 1e6
    assert keys["gemma3.rope.freq_base_swa"] == 10_000.0
    assert keys["gemma3.rope.scaling.type"] == "linear"
    assert keys["gemma3.rope.scaling.factor"] == 8.0
    assert keys["gemma3.final_logit_softcapping"] == 30.0
    assert "gemma3.attention.sliding_window_pattern" not in keys
    assert "gemma3.embedding_scale" not in keys
    rounded = architecture_of(replace(GEMMA, embedding_scale=8.25), PATH).keys
    assert rounded["gemma3.embedding_scale"] == 8.25


def test_gemmas_pattern_is_said_where_it_is_not_six() -> None:
    config = replace(GEMMA, windows=(32, 32, 0, 32, 32, 0, 32))
    keys = architecture_of(config, PATH).keys
    assert keys["gemma3.attention.sliding_window_pattern"] == 3


def test_gemma_27b_scales_scores_by_its_width() -> None:
    windows = tuple(0 if i % 6 == 5 else 9 for i in range(62))
    scale = float(np.sqrt(np.float32(96)))
    config = replace(GEMMA, layers=62, windows=windows, hidden=96, embedding_scale=scale)
    with pytest.raises(UnsupportedError, match="the score scale"):
        architecture_of(config, PATH)
    architecture_of(replace(config, attention_scale=(96 / 4) ** -0.5), PATH)


@pytest.mark.parametrize(
    ("config", "why"),
    [
        (replace(LLAMA, activation="gelu_tanh"), "the activation gelu_tanh"),
        (replace(LLAMA, windows=(0, 0, 64, 64)), "a sliding window in these layers"),
        (replace(LLAMA, family="qwen3", windows=(64,) * 4), "a sliding window in these layers"),
        (replace(LLAMA, attention_scale=0.3), "the score scale 0.3"),
        (
            replace(LLAMA, rope=Rope(1e4, 16, Yarn(4.0, 128, truncate=False))),
            "YaRN without 'truncate'",
        ),
        (replace(GEMMA, windows=(0, 32, 32, 32, 32, 0, 32)), "this order of sliding"),
        (replace(GEMMA, local_rope=Rope(1e4, 16, Linear(2.0))), "scaled rope in the sliding"),
    ],
)
def test_what_gguf_cannot_say_is_refused(config: ModelConfig, why: str) -> None:
    with pytest.raises(UnsupportedError, match=why):
        architecture_of(config, PATH)


def test_a_window_that_no_sequence_outgrows_is_none() -> None:
    config = replace(LLAMA, family="qwen2", windows=(0, 512, 4096, 512))
    assert "qwen2.attention.sliding_window" not in architecture_of(config, PATH).keys


def test_longrope_and_yarn() -> None:
    factors = LongRope((1.0,) * 8, tuple(float(i + 1) for i in range(8)), 128)
    phi3 = replace(LLAMA, family="phi3", rope=Rope(1e4, 16, factors, 1.25))
    said = architecture_of(phi3, PATH)
    assert said.keys["phi3.rope.scaling.attn_factor"] == 1.25
    assert said.keys["phi3.rope.scaling.original_context_length"] == 128
    assert said.factors["rope_factors_long.weight"].tolist() == list(range(1, 9))
    config = hf_config(phi3, "float32", PATH)
    assert config["original_max_position_embeddings"] == 128
    assert config["rope_scaling"]["attention_factor"] == 1.25  # type: ignore[index]

    yarn = replace(LLAMA, rope=Rope(1e4, 16, Yarn(4.0, 128, 16.0), 1.3))
    keys = architecture_of(yarn, PATH).keys
    assert keys["llama.rope.scaling.yarn_beta_fast"] == 16.0
    assert "llama.rope.scaling.yarn_beta_slow" not in keys
    assert keys["llama.rope.scaling.attn_factor"] == pytest.approx(1.3 / (1 + 0.1 * np.log(4)))


@pytest.mark.parametrize(
    ("dim", "theta", "scaling"),
    [
        (128, 500_000.0, Llama3(8.0, 1.0, 4.0, 8192)),  # Llama 3.1 8B
        (64, 500_000.0, Llama3(32.0, 1.0, 4.0, 8192)),  # Llama 3.2 1B
        (64, 10_000.0, Llama3(4.0, 1.0, 3.0, 2048)),
    ],
)
def test_llama3s_formula_is_found_from_its_factors(dim: int, theta: float, scaling: Llama3) -> None:
    rope = Rope(theta, dim, scaling)
    config = replace(LLAMA, head_dim=dim, rope=rope, attention_scale=dim**-0.5)
    factors = architecture_of(config, PATH).factors["rope_freqs.weight"]
    assert factors.min() == 1
    assert factors.max() == np.float32(scaling.factor)
    found = llama3_from_divisors(rope, Divisors(tuple(factors.tolist())), PATH)
    assert found.factor == scaling.factor
    np.testing.assert_allclose(
        frequencies(replace(rope, scaling=found))[0], frequencies(rope)[0], rtol=1e-5
    )
    if scaling.original_context == 8192:
        assert found == scaling


def test_floats_are_said_as_people_say_them() -> None:
    assert plain(float(np.float32(1e-5))) == 1e-5
    assert plain(float(np.float32(1e-6))) == 1e-6
    assert plain(500_000.0) == 500_000.0


@pytest.mark.parametrize(
    ("count", "label"),
    [(134_515_008, "135M"), (1_720_574_976, "1.7B"), (8_030_261_248, "8B"), (999_999_999, "1B"),
     (26_100, "26K"), (9_960_000_000, "10B"), (27_009_346_304, "27B"), (312, "312")],
)  # fmt: skip
def test_size_labels(count: int, label: str) -> None:
    assert size_label(count) == label


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("no head at all", {}),
        ("---\nlicense: mit\n", {}),  # never closed
        ("---\nlicense: 'mit' \n---\n", {"general.license": "mit"}),
        ("---\nlicense: mit # open\n---\n", {"general.license": "mit"}),
        ("---\nlanguage: no\n---\n", {"general.languages": ["no"]}),
        ("---\nlicense:\n---\n", {}),
        (
            "---\nlicense: other\nlicense_name: lfm1.0\nlicense_link: LICENSE\n---\n",
            {
                "general.license": "other",
                "general.license.name": "lfm1.0",
                "general.license.link": "LICENSE",
            },
        ),
    ],
)
def test_cards(text: str, wanted: dict[str, object], tmp_path: Path) -> None:
    (tmp_path / "README.md").write_text(text)
    assert card_metadata(read_card(tmp_path)) == wanted


def test_no_card_says_nothing(tmp_path: Path) -> None:
    assert read_card(tmp_path) == {}
