from __future__ import annotations

from pathlib import Path

import pytest

from engine.tiny_file import write_tiny_model
from pocketlm.errors import ModelFileError, RequestError
from pocketlm.models import open_model
from pocketlm.text import Tokenizer, encode_fill, fill_ends, fill_tokens
from pocketlm.text.gguf_tokenizer import tokenizer_parts

QWEN = ["<|fim_prefix|>", "<|fim_middle|>", "<|fim_suffix|>"]


def source(path: Path, control: list[str], **more: object) -> dict[str, object]:
    spec = open_model(write_tiny_model(path / "m.gguf", control=control))
    assert not isinstance(spec.tokenizer_source, Path)
    return {**spec.tokenizer_source, **more}


def tokenizer(path: Path, control: list[str], **more: object) -> Tokenizer:
    return Tokenizer(tokenizer_parts(source(path, control, **more), "llama"))


def test_known_texts_in_the_order_prefix_suffix_middle(tmp_path: Path) -> None:
    found = tokenizer(tmp_path, QWEN)
    assert fill_tokens(found) == (257, 259, 258)
    ids = encode_fill(found, "def f(", "):\n")
    assert (
        found.decode(ids, skip_special=False)
        == "<|fim_prefix|>def f(<|fim_suffix|>):\n<|fim_middle|>"
    )
    assert fill_ends(found) == {257, 258, 259}


def test_the_files_own_ids_come_first(tmp_path: Path) -> None:
    names = ("fim_pre", "fim_suf", "fim_mid")
    ids = {f"tokenizer.ggml.{name}_token_id": 257 + i for i, name in enumerate(names)}
    found = tokenizer(tmp_path, ["<a>", "<b>", "<c>"], **ids)
    assert found.decode(encode_fill(found, "x", ""), skip_special=False) == "<a>x<b><c>"
    with pytest.raises(ModelFileError, match="fim_pre_token_id is 9,999"):
        tokenizer(tmp_path, QWEN, **{"tokenizer.ggml.fim_pre_token_id": 9999})


def test_bos_comes_first_where_the_model_wants_it(tmp_path: Path) -> None:
    found = tokenizer(tmp_path, QWEN, **{"tokenizer.ggml.add_bos_token": True})
    assert encode_fill(found, "", "")[0] == found.bos_id
    assert len(encode_fill(found, "", "")) == 4


def test_control_tokens_in_the_texts_stay_text(tmp_path: Path) -> None:
    found = tokenizer(tmp_path, QWEN)
    ids = encode_fill(found, "<|fim_suffix|>", "<|fim_middle|>")
    assert [i for i in ids if i >= 257] == [257, 259, 258]


def test_a_model_without_such_tokens_is_refused(tmp_path: Path) -> None:
    found = tokenizer(tmp_path, ["<|endoftext|>", "<|im_start|>", "<|im_end|>"])
    assert fill_tokens(found) is None
    with pytest.raises(RequestError, match="cannot fill in the middle"):
        encode_fill(found, "a", "b")
