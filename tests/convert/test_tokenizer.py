"""Tokenizers on their way into GGUF, and the parts that this needs."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tokenizers import Regex, normalizers, pre_tokenizers

from pocketlm.convert.pieces import Piece, encode_pieces, read_pieces
from pocketlm.convert.tokenizer import tokenizer_metadata
from pocketlm.errors import ModelFileError, UnsupportedError
from pocketlm.text import Tokenizer
from pocketlm.text.pretokenizers import known_pre_tokenizers, pre_tokenizer

from .tiny_tokenizers import byte_level, odd, sentencepiece, write_tokenizer


@pytest.mark.parametrize("name", known_pre_tokenizers())
def test_every_known_cut_is_recognized(name: str, tmp_path: Path) -> None:
    write_tokenizer(tmp_path / "m", byte_level(name))
    found = tokenizer_metadata(tmp_path / "m", 320, "llama")["tokenizer.ggml.pre"]
    assert isinstance(found, str)
    assert pre_tokenizer(found) is pre_tokenizer(name)


def test_a_split_that_removes_the_inverse_is_the_same_cut(tmp_path: Path) -> None:
    tokenizer = byte_level("gpt-4o")
    content = json.loads(tokenizer.to_str())
    step = content["pre_tokenizer"]["pretokenizers"][0]
    step["behavior"], step["invert"] = "Removed", True
    write_tokenizer(tmp_path / "m", tokenizer)
    (tmp_path / "m" / "tokenizer.json").write_text(json.dumps(content))
    assert tokenizer_metadata(tmp_path / "m", 320, "phi3")["tokenizer.ggml.pre"] == "gpt-4o"


def test_an_unknown_cut_is_told(tmp_path: Path) -> None:
    write_tokenizer(tmp_path / "m", odd())
    with pytest.raises(UnsupportedError) as raised:
        tokenizer_metadata(tmp_path / "m", 320, "llama")
    assert r"\p{Greek}" in str(raised.value)
    assert "llama-bpe" in str(raised.value)


def test_an_unknown_normalizer_is_told(tmp_path: Path) -> None:
    tokenizer = byte_level("qwen2")
    tokenizer.normalizer = normalizers.NFKC()
    write_tokenizer(tmp_path / "m", tokenizer)
    with pytest.raises(UnsupportedError, match="normalizer NFKC"):
        tokenizer_metadata(tmp_path / "m", 320, "qwen2")


def test_what_gguf_has_no_field_for_is_found_out(tmp_path: Path) -> None:
    """Digits one by one, in a kind of tokenizer whose GGUF form has no name for its cut."""
    tokenizer = sentencepiece("gemma")
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Split(Regex("an"), "isolated"), tokenizer.pre_tokenizer]
    )
    tokenizer.normalizer = normalizers.Sequence([normalizers.Lowercase(), tokenizer.normalizer])
    write_tokenizer(tmp_path / "m", tokenizer)
    with pytest.raises(UnsupportedError, match="other tokens in a GGUF file"):
        tokenizer_metadata(tmp_path / "m", 400, "gemma3")


def test_scores_follow_the_merges(tmp_path: Path) -> None:
    write_tokenizer(tmp_path / "m", sentencepiece("llama"))
    metadata = tokenizer_metadata(tmp_path / "m", 400, "llama")
    tokens: Any = metadata["tokenizer.ggml.tokens"]
    scores: Any = metadata["tokenizer.ggml.scores"]
    types: Any = metadata["tokenizer.ggml.token_type"]
    assert metadata["tokenizer.ggml.add_space_prefix"] is True
    assert metadata["tokenizer.ggml.add_bos_token"] is True
    assert scores[tokens.index("<s>")] == -1000
    assert (types[tokens.index("<0x0A>")], scores[tokens.index("<0x0A>")]) == (6, 0)
    normal = [i for i, kind in enumerate(types) if kind == 1]
    assert scores[normal].tolist() == [-float(i) for i in range(len(normal))]


def test_scores_of_a_sentencepiece_model_win(tmp_path: Path) -> None:
    folder = tmp_path / "m"
    tokenizer = sentencepiece("llama")
    write_tokenizer(folder, tokenizer)
    tokens = [tokenizer.id_to_token(i) for i in range(tokenizer.get_vocab_size())]
    pieces = [Piece(token, -0.5 * i, 1) for i, token in enumerate(tokens)]
    model = encode_pieces(pieces, ids=(0, 1, 2, None), prefix=True)
    (folder / "tokenizer.model").write_bytes(model)
    scores: Any = tokenizer_metadata(folder, 400, "llama")["tokenizer.ggml.scores"]
    assert scores[300] == -150


def test_pieces_are_read_as_they_were_written(tmp_path: Path) -> None:
    pieces = [Piece("<unk>", 0.0, 2), Piece("\u2581the" * 60, -1.5, 1), Piece("é", -2.25, 4)]
    path = tmp_path / "tokenizer.model"
    path.write_bytes(encode_pieces(pieces, ids=(0, None, None, None), prefix=False))
    assert read_pieces(path) == pieces


@pytest.mark.parametrize("cut", [1, 5, 8, 40])
def test_a_damaged_sentencepiece_model_is_an_error(cut: int, tmp_path: Path) -> None:
    path = tmp_path / "tokenizer.model"
    data = encode_pieces([Piece("a" * 20, 0.0, 2)] * 2, ids=(0, 1, 2, 3), prefix=True)
    path.write_bytes(data[:cut])
    with pytest.raises(ModelFileError, match="not a SentencePiece model"):
        read_pieces(path)


def test_ends_of_a_turn_are_kept(tmp_path: Path) -> None:
    """An end that neither is EOS nor is known by its text gets a key of its own."""
    folder = tmp_path / "m"
    write_tokenizer(folder, byte_level())
    ends = [2, 1]
    (folder / "generation_config.json").write_text(json.dumps({"eos_token_id": ends}))
    metadata = tokenizer_metadata(folder, 320, "llama")
    assert metadata["tokenizer.ggml.eos_token_id"] == 2
    assert metadata["tokenizer.ggml.eot_token_id"] == 1
    assert Tokenizer.from_gguf(metadata, "llama").eos_ids == {0, 1, 2}


def test_an_end_that_only_the_configuration_names_becomes_eos(tmp_path: Path) -> None:
    folder = tmp_path / "m"
    write_tokenizer(folder, byte_level(), eos_token=None)
    (folder / "config.json").write_text(json.dumps({"eos_token_id": 1}))
    metadata = tokenizer_metadata(folder, 320, "llama")
    assert metadata["tokenizer.ggml.eos_token_id"] == 1
    assert "tokenizer.ggml.eot_token_id" not in metadata


def test_named_templates_are_kept(tmp_path: Path) -> None:
    folder = tmp_path / "m"
    templates = [
        {"name": "default", "template": "{{ messages }}"},
        {"name": "tool_use", "template": "{{ tools }}"},
    ]
    write_tokenizer(folder, byte_level(), chat_template=templates)
    metadata = tokenizer_metadata(folder, 320, "llama")
    assert metadata["tokenizer.chat_template"] == "{{ messages }}"
    assert metadata["tokenizer.chat_template.tool_use"] == "{{ tools }}"
    assert metadata["tokenizer.chat_templates"] == ["tool_use"]


def test_tokens_beyond_the_embedding_are_dropped_where_no_text_gives_them(tmp_path: Path) -> None:
    """Gemma 3's text models name a token for images past the embedding's last row."""
    folder = tmp_path / "m"
    write_tokenizer(folder, byte_level())
    size = byte_level().get_vocab_size()
    metadata = tokenizer_metadata(folder, size - 1, "llama")  # "<think>" is the last
    assert len(metadata["tokenizer.ggml.tokens"]) == size - 1  # type: ignore[arg-type]
    types = metadata["tokenizer.ggml.token_type"]
    assert isinstance(types, np.ndarray)
    assert 4 not in types
