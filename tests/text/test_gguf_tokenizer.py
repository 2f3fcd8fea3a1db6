from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pocketlm.errors import ModelFileError, PocketLMError, UnsupportedError
from pocketlm.text import Tokenizer
from pocketlm.text.pretokenizers import known_pre_tokenizers, pre_tokenizer

Metadata = Callable[..., dict[str, Any]]


def spelled(tokenizer: Tokenizer, text: str) -> list[str]:
    return [tokenizer.token(i) for i in tokenizer.encode(text)]


def test_every_known_pre_tokenizer_builds(byte_level_metadata: Metadata) -> None:
    names = known_pre_tokenizers()
    wanted = {"llama-bpe", "llama3", "llama-v3", "qwen2", "qwen35", "gpt-4o", "smollm", "gpt-2"}
    assert wanted | {"default", "tekken", "dbrx", "deepseek-r1-qwen"} <= set(names)
    for name in names:
        tokenizer = Tokenizer.from_gguf(byte_level_metadata(**{"tokenizer.ggml.pre": name}), "any")
        text = "It's 12345 things, naïve\n\n  日本 (x)"
        assert tokenizer.decode(tokenizer.encode(text)) == text


def test_an_unknown_pre_tokenizer_is_refused(byte_level_metadata: Metadata) -> None:
    with pytest.raises(UnsupportedError, match=r"'martian' .*Known: .*smollm"):
        Tokenizer.from_gguf(byte_level_metadata(**{"tokenizer.ggml.pre": "martian"}), "llama")


def test_an_unknown_model_is_refused(byte_level_metadata: Metadata) -> None:
    with pytest.raises(UnsupportedError, match="'rwkv'"):
        Tokenizer.from_gguf(byte_level_metadata(**{"tokenizer.ggml.model": "rwkv"}), "llama")


def test_family_rules_are_in_the_table() -> None:
    assert pre_tokenizer("llama-bpe").ignore_merges
    assert pre_tokenizer("llama-bpe").add_bos
    assert not pre_tokenizer("smaug-bpe").ignore_merges
    assert pre_tokenizer("qwen2").nfc
    assert pre_tokenizer("smollm").digits


def test_ignore_merges_finds_words_no_merge_builds(byte_level_metadata: Metadata) -> None:
    tokens = [*byte_level_metadata()["tokenizer.ggml.tokens"], "Ġxyz"]
    types = [*byte_level_metadata()["tokenizer.ggml.token_type"], 1]
    for pre, expected in (("llama-bpe", ["Ġxyz"]), ("smaug-bpe", ["Ġ", "x", "y", "z"])):
        metadata = byte_level_metadata(
            **{
                "tokenizer.ggml.pre": pre,
                "tokenizer.ggml.tokens": tokens,
                "tokenizer.ggml.token_type": types,
            }
        )
        assert spelled(Tokenizer.from_gguf(metadata, "llama"), " xyz") == expected


def test_qwen_normalizes_to_nfc(byte_level_metadata: Metadata) -> None:
    metadata = byte_level_metadata(**{"tokenizer.ggml.pre": "qwen2"})
    tokenizer = Tokenizer.from_gguf(metadata, "qwen2")
    assert tokenizer.encode("e\u0301") == tokenizer.encode("é")


def test_bos_rules(byte_level_metadata: Metadata, sentencepiece_metadata: Metadata) -> None:
    def adds_bos(metadata: dict[str, Any], architecture: str = "llama") -> bool:
        return Tokenizer.from_gguf(metadata, architecture).adds_bos

    flag = "tokenizer.ggml.add_bos_token"
    assert adds_bos(byte_level_metadata(**{"tokenizer.ggml.pre": "llama-bpe"}))
    assert not adds_bos(byte_level_metadata(**{"tokenizer.ggml.pre": "llama-bpe", flag: False}))
    assert adds_bos(byte_level_metadata(**{flag: True}))
    assert not adds_bos(byte_level_metadata())
    assert adds_bos(sentencepiece_metadata())
    assert not adds_bos(sentencepiece_metadata(**{flag: False}))


def test_add_eos(sentencepiece_metadata: Metadata) -> None:
    metadata = sentencepiece_metadata(**{"tokenizer.ggml.add_eos_token": True})
    tokenizer = Tokenizer.from_gguf(metadata, "llama")
    assert tokenizer.encode("a", add_special=True)[-1] == tokenizer.eos_id


def test_gemma_spells_spaces_without_prefix(sentencepiece_metadata: Metadata) -> None:
    tokens = sentencepiece_metadata()["tokenizer.ggml.tokens"]
    tokens = [token if token != "▁▁" else "  " for token in tokens]
    metadata = sentencepiece_metadata(**{"tokenizer.ggml.tokens": tokens})
    tokenizer = Tokenizer.from_gguf(metadata, "gemma3")
    assert spelled(tokenizer, "hi  b") == ["hi", "▁▁", "b"]
    assert tokenizer.decode(tokenizer.encode(" hi")) == " hi"


def test_given_merges_win_over_scores(sentencepiece_metadata: Metadata) -> None:
    metadata = sentencepiece_metadata(
        **{"tokenizer.ggml.model": "gemma4", "tokenizer.ggml.merges": ["h i"]}
    )
    tokenizer = Tokenizer.from_gguf(metadata, "gemma4")
    assert spelled(tokenizer, "hi ab") == ["hi", "▁", "a", "b"]
    assert not tokenizer.adds_bos


def test_given_merges_never_build_a_control_token(byte_level_metadata: Metadata) -> None:
    tokens = byte_level_metadata()["tokenizer.ggml.tokens"]
    tokens = [token if token != "<|im_end|>" else "<e" for token in tokens]
    metadata = byte_level_metadata(
        **{"tokenizer.ggml.tokens": tokens, "tokenizer.ggml.merges": ["t h", "< e"]}
    )
    tokenizer = Tokenizer.from_gguf(metadata, "llama")
    assert spelled(tokenizer, "<eth") == ["<", "e", "th"]
    assert tokenizer.encode("<e", parse_special=True) == [tokenizer.eos_id]


def test_a_control_token_of_one_word_stays_text(byte_level_metadata: Metadata) -> None:
    """`ignore_merges` would find it in the vocabulary."""
    tokens = byte_level_metadata()["tokenizer.ggml.tokens"]
    tokens = [token if token != "<|im_end|>" else "stop" for token in tokens]
    metadata = byte_level_metadata(
        **{"tokenizer.ggml.tokens": tokens, "tokenizer.ggml.pre": "llama-bpe"}
    )
    tokenizer = Tokenizer.from_gguf(metadata, "llama")
    ids = tokenizer.encode("stop it, stop")
    assert tokenizer.special_ids.isdisjoint(ids)
    assert tokenizer.decode(ids) == "stop it, stop"


def test_remove_extra_whitespaces(sentencepiece_metadata: Metadata) -> None:
    metadata = sentencepiece_metadata(**{"tokenizer.ggml.remove_extra_whitespaces": True})
    assert spelled(Tokenizer.from_gguf(metadata, "llama"), "  hi   a ") == ["▁hi", "▁a"]


def test_end_of_turn_ids_come_from_keys_and_texts(byte_level_metadata: Metadata) -> None:
    metadata = byte_level_metadata(**{"tokenizer.ggml.eot_token_id": 3})
    tokenizer = Tokenizer.from_gguf(metadata, "llama")
    assert {tokenizer.token(i) for i in tokenizer.eos_ids} == {"$", "<|endoftext|>", "<|im_end|>"}


def test_numpy_arrays_are_taken(sentencepiece_metadata: Metadata) -> None:
    metadata = sentencepiece_metadata()
    metadata["tokenizer.ggml.scores"] = np.array(metadata["tokenizer.ggml.scores"], np.float32)
    metadata["tokenizer.ggml.token_type"] = np.array(
        metadata["tokenizer.ggml.token_type"], np.int32
    )
    assert spelled(Tokenizer.from_gguf(metadata, "llama"), "hi") == ["▁hi"]


def test_files_without_token_types_keep_their_control_tokens(
    sentencepiece_metadata: Metadata, byte_level_metadata: Metadata
) -> None:
    metadata = byte_level_metadata(**{"tokenizer.ggml.token_type": None})
    tokenizer = Tokenizer.from_gguf(metadata, "llama")
    assert {tokenizer.token(i) for i in tokenizer.special_ids} == {"<|im_start|>", "<|im_end|>"}


def test_empty_tokens_keep_their_ids(byte_level_metadata: Metadata) -> None:
    tokens = [*byte_level_metadata()["tokenizer.ggml.tokens"], "", ""]
    types = [*byte_level_metadata()["tokenizer.ggml.token_type"], 5, 5]
    metadata = byte_level_metadata(
        **{"tokenizer.ggml.tokens": tokens, "tokenizer.ggml.token_type": types}
    )
    assert Tokenizer.from_gguf(metadata, "llama").vocab_size == 269


HOSTILE_BYTE_LEVEL = [
    ("tokens", None, r"tokenizer\.ggml\.tokens is missing"),
    ("tokens", [], r"tokenizer\.ggml\.tokens is missing"),
    ("tokens", "a", r"tokenizer\.ggml\.tokens should be an array"),
    ("tokens", [b"\xff", "a"], r"tokenizer\.ggml\.tokens\[0\].*invalid UTF-8"),
    ("tokens", ["a", "b", "a", *map(str, range(264))], r"tokenizer\.ggml\.tokens\[2\] repeats"),
    ("tokens", np.zeros(3), r"tokenizer\.ggml\.tokens should be an array of strings"),
    ("token_type", [1, 1], r"tokenizer\.ggml\.token_type has 2 entries"),
    ("token_type", [99] * 267, r"tokenizer\.ggml\.token_type\[0\] is 99"),
    ("token_type", ["x"] * 267, r"tokenizer\.ggml\.token_type should be an array of numbers"),
    ("token_type", 3, r"tokenizer\.ggml\.token_type should be an array"),
    ("merges", None, r"tokenizer\.ggml\.merges is missing"),
    ("merges", ["th"], r"tokenizer\.ggml\.merges\[0\] should be two tokens"),
    ("merges", ["t h", "a b c"], r"tokenizer\.ggml\.merges\[1\] should be two tokens"),
    ("merges", ["nowhere t"], r"tokenizer\.ggml\.merges does not make a tokenizer"),
    ("merges", ["t t"], r"tokenizer\.ggml\.merges does not make a tokenizer"),
    ("merges", [1, 2], r"tokenizer\.ggml\.merges\[0\] should be a string"),
    ("bos_token_id", -1, r"tokenizer\.ggml\.bos_token_id is -1"),
    ("eos_token_id", 267, r"tokenizer\.ggml\.eos_token_id is 267, .* 267 tokens"),
    ("eot_token_id", 2**63, r"tokenizer\.ggml\.eot_token_id"),
    ("eom_token_id", 1.5, r"tokenizer\.ggml\.eom_token_id should be an integer"),
    ("unknown_token_id", True, r"tokenizer\.ggml\.unknown_token_id should be an integer"),
    ("add_bos_token", 1, r"tokenizer\.ggml\.add_bos_token should be a boolean"),
    ("model", None, r"tokenizer\.ggml\.model should be a string, found nothing"),
    ("model", 7, r"tokenizer\.ggml\.model should be a string"),
    ("pre", ["x"], r"tokenizer\.ggml\.pre should be a string"),
]


@pytest.mark.parametrize(("key", "value", "message"), HOSTILE_BYTE_LEVEL)
def test_hostile_byte_level(
    byte_level_metadata: Metadata, key: str, value: object, message: str
) -> None:
    with pytest.raises(ModelFileError, match=message):
        Tokenizer.from_gguf(byte_level_metadata(**{f"tokenizer.ggml.{key}": value}), "llama")


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("scores", None, r"tokenizer\.ggml\.scores is missing"),
        ("scores", [0.0], r"tokenizer\.ggml\.scores has 1 entries"),
        ("scores", [float("nan")] * 274, r"tokenizer\.ggml\.scores\[0\] is not a number"),
        ("tokens", ["a" * 300, *map(str, range(273))], r"tokenizer\.ggml\.tokens\[0\] has 300"),
        ("add_space_prefix", "yes", r"tokenizer\.ggml\.add_space_prefix should be a boolean"),
    ],
)
def test_hostile_sentencepiece(
    sentencepiece_metadata: Metadata, key: str, value: object, message: str
) -> None:
    with pytest.raises(ModelFileError, match=message):
        Tokenizer.from_gguf(sentencepiece_metadata(**{f"tokenizer.ggml.{key}": value}), "llama")


def test_bos_without_an_id(byte_level_metadata: Metadata) -> None:
    metadata = byte_level_metadata(
        **{"tokenizer.ggml.bos_token_id": None, "tokenizer.ggml.add_bos_token": True}
    )
    with pytest.raises(ModelFileError, match=r"add_bos_token is true, but there is no bos id"):
        Tokenizer.from_gguf(metadata, "llama")


JUNK = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(2**63), 2**64),
    st.floats(),
    st.text(max_size=5),
    st.lists(st.text(max_size=4), max_size=8),
    st.lists(st.integers(-3, 9), max_size=8),
    st.lists(st.floats(), max_size=8),
)
KEYS = ("tokens", "merges", "token_type", "scores", "bos_token_id", "add_bos_token", "pre", "model")


@given(
    junk=st.dictionaries(st.sampled_from([f"tokenizer.ggml.{key}" for key in KEYS]), JUNK),
    spm=st.booleans(),
)
def test_junk_is_an_error_of_ours_or_a_tokenizer(
    byte_level_metadata: Metadata,
    sentencepiece_metadata: Metadata,
    junk: dict[str, Any],
    spm: bool,
) -> None:
    metadata = (sentencepiece_metadata if spm else byte_level_metadata)(**junk)
    try:
        tokenizer = Tokenizer.from_gguf(metadata, "llama")
    except PocketLMError:
        return
    tokenizer.decode(tokenizer.encode("the <s> x", add_special=True, parse_special=True))
