from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import tokenizers
from tokenizers import AddedToken, decoders, models, normalizers, pre_tokenizers, processors

from pocketlm.errors import ModelFileError, UnsupportedError
from pocketlm.text import Tokenizer, folder_templates
from pocketlm.text.vocabulary import byte_alphabet


def byte_level_backend() -> tokenizers.Tokenizer:
    vocab = {token: i for i, token in enumerate([*byte_alphabet(), "th", "the"])}
    backend = tokenizers.Tokenizer(models.BPE(vocab, [("t", "h"), ("th", "e")]))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    backend.add_special_tokens(["<s>", "<|im_end|>"])
    backend.add_tokens([AddedToken("<think>", special=False)])
    backend.post_processor = processors.TemplateProcessing(
        single="<s> $A", special_tokens=[("<s>", 258)]
    )
    return backend


def llama_backend(scheme: str = "first") -> tokenizers.Tokenizer:
    pieces = ["<unk>", "<s>", "</s>", *(f"<0x{b:02X}>" for b in range(256)), "▁", "h", "i", "hi"]
    merges = [("h", "i")]
    vocab = {piece: i for i, piece in enumerate(pieces)}
    backend = tokenizers.Tokenizer(models.BPE(vocab, merges, unk_token="<unk>", byte_fallback=True))
    backend.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme=scheme, split=False)
    backend.decoder = decoders.Sequence(
        [
            decoders.Replace("▁", " "),
            decoders.ByteFallback(),
            decoders.Fuse(),
            decoders.Strip(" ", 1, 0),
        ]
    )
    backend.add_special_tokens(["<unk>", "<s>", "</s>"])
    return backend


def write(folder: Path, backend: tokenizers.Tokenizer | None = None, **files: Any) -> Path:
    if backend is not None:
        backend.save(str(folder / "tokenizer.json"))
    for name, content in files.items():
        text = content if isinstance(content, str) else json.dumps(content)
        (folder / f"{name}.json").write_text(text, "utf-8")
    return folder


def test_byte_level_folder(tmp_path: Path) -> None:
    folder = write(
        tmp_path,
        byte_level_backend(),
        tokenizer_config={"bos_token": "<s>", "eos_token": {"content": "<|im_end|>"}},
        generation_config={"eos_token_id": [258, 259]},
    )
    tokenizer = Tokenizer.from_folder(folder)
    assert (tokenizer.bos_id, tokenizer.eos_id) == (258, 259)
    assert tokenizer.eos_ids == {258, 259}
    assert tokenizer.special_ids == {258, 259}
    text = "the <|im_end|> <think> é"
    ids = tokenizer.encode(text)
    assert tokenizer.special_ids.isdisjoint(ids)
    assert 260 in ids
    assert tokenizer.decode(ids) == text
    assert tokenizer.encode("the", add_special=True) == [258, 257]
    assert tokenizer.encode("<|im_end|>", parse_special=True) == [259]


def test_config_decides_about_bos(tmp_path: Path) -> None:
    config = {"bos_token": "<s>", "eos_token": "<|im_end|>", "add_eos_token": True}
    write(tmp_path, byte_level_backend(), tokenizer_config={**config, "add_bos_token": False})
    tokenizer = Tokenizer.from_folder(tmp_path)
    assert tokenizer.encode("the", add_special=True) == [257, 259]


def test_special_tokens_map_and_config_json(tmp_path: Path) -> None:
    write(
        tmp_path,
        byte_level_backend(),
        special_tokens_map={"eos_token": "<|im_end|>"},
        config={"eos_token_id": 258},
    )
    assert Tokenizer.from_folder(tmp_path).eos_ids == {258, 259}


def test_sentencepiece_folder(tmp_path: Path) -> None:
    write(tmp_path, llama_backend(), tokenizer_config={"bos_token": "<s>", "eos_token": "</s>"})
    tokenizer = Tokenizer.from_folder(tmp_path)
    assert [tokenizer.token(i) for i in tokenizer.encode("hi</s>hi", parse_special=True)] == [
        "▁", "hi", "</s>", "hi",
    ]  # fmt: skip
    assert [tokenizer.token(i) for i in tokenizer.encode_pieces(["hi", 2, "hi"])] == [
        "▁", "hi", "</s>", "hi",
    ]  # fmt: skip
    assert tokenizer.decode(tokenizer.encode("hi é 日")) == "hi é 日"


def test_no_space_prefix_is_kept(tmp_path: Path) -> None:
    backend = llama_backend("never")
    backend.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.ByteFallback()])
    tokenizer = Tokenizer.from_folder(write(tmp_path, backend))
    assert tokenizer.decode(tokenizer.encode(" hi")) == " hi"


def test_truncation_in_the_file_is_ignored(tmp_path: Path) -> None:
    backend = byte_level_backend()
    backend.enable_truncation(4)
    backend.enable_padding(length=8)
    tokenizer = Tokenizer.from_folder(write(tmp_path, backend))
    assert len(tokenizer.encode("x y z " * 10)) == 60


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({}, r"tokenizer\.json is missing"),
        ({"tokenizer": "{"}, r"tokenizer\.json is not valid JSON"),
        ({"tokenizer": "[" * 100_000}, r"tokenizer\.json is not valid JSON"),
        ({"tokenizer": "[]"}, r"should hold an object"),
        ({"tokenizer": {"model": 3}}, r"does not make a tokenizer"),
        ({"tokenizer_config": {"eos_token": "nowhere"}}, r"eos_token is 'nowhere'"),
        ({"tokenizer_config": {"bos_token": 3}}, r"bos_token should be a token's text"),
        ({"tokenizer_config": "x"}, r"tokenizer_config\.json is not valid JSON"),
        ({"generation_config": {"eos_token_id": 261}}, r"eos_token_id is 261"),
        ({"generation_config": {"eos_token_id": [-1]}}, r"eos_token_id is -1"),
        ({"generation_config": {"eos_token_id": "x"}}, r"eos_token_id is 'x'"),
    ],
)
def test_broken_folders(tmp_path: Path, files: dict[str, Any], message: str) -> None:
    backend = None if not files or "tokenizer" in files else byte_level_backend()
    write(tmp_path, backend, **files)
    with pytest.raises(ModelFileError, match=message):
        Tokenizer.from_folder(tmp_path)


def test_other_kinds_are_unsupported(tmp_path: Path) -> None:
    backend = tokenizers.Tokenizer(models.WordLevel({"a": 0, "[UNK]": 1}, unk_token="[UNK]"))
    backend.normalizer = normalizers.Lowercase()
    with pytest.raises(UnsupportedError, match="decoder"):
        Tokenizer.from_folder(write(tmp_path, backend))


def test_folder_templates(tmp_path: Path) -> None:
    assert folder_templates(tmp_path) == {}
    write(tmp_path, tokenizer_config={"chat_template": "a"})
    assert folder_templates(tmp_path) == {"default": "a"}
    named = [{"name": "default", "template": "b"}, {"name": "tool_use", "template": "c"}]
    write(tmp_path, tokenizer_config={"chat_template": named})
    assert folder_templates(tmp_path) == {"default": "b", "tool_use": "c"}
    (tmp_path / "chat_template.jinja").write_text("d", "utf-8")
    (tmp_path / "additional_chat_templates").mkdir()
    (tmp_path / "additional_chat_templates" / "rag.jinja").write_text("e", "utf-8")
    assert folder_templates(tmp_path) == {"default": "d", "tool_use": "c", "rag": "e"}
    for broken in (3, [3], [{"name": "x"}], {"a": 1}):
        write(tmp_path, tokenizer_config={"chat_template": broken})
        with pytest.raises(ModelFileError, match="chat_template should be"):
            folder_templates(tmp_path)
