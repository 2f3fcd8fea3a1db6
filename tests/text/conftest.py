"""Two small vocabularies, made by hand so that ids and cuts are easy to see."""

from __future__ import annotations

from typing import Any

import pytest

from pocketlm.text import Tokenizer
from pocketlm.text.vocabulary import byte_alphabet

CONTROL = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]


def byte_level(**changes: Any) -> dict[str, Any]:
    """256 bytes, a few merged tokens, three control tokens and `<think>`."""
    merged = ["th", "the", "Ġthe", "in", "ing", "Ġa", "ĊĊ"]
    merges = ["t h", "th e", "Ġ the", "i n", "in g", "Ġ a", "Ċ Ċ"]
    tokens = [*byte_alphabet(), *merged, *CONTROL, "<think>"]
    metadata = {
        "tokenizer.ggml.model": "gpt2",
        "tokenizer.ggml.pre": "gpt-2",
        "tokenizer.ggml.tokens": tokens,
        "tokenizer.ggml.token_type": [1] * (256 + len(merged)) + [3, 3, 3, 4],
        "tokenizer.ggml.merges": merges,
        "tokenizer.ggml.bos_token_id": tokens.index("<|im_start|>"),
        "tokenizer.ggml.eos_token_id": tokens.index("<|im_end|>"),
    }
    return {k: v for k, v in (metadata | changes).items() if v is not None}


def sentencepiece(**changes: Any) -> dict[str, Any]:
    """Llama-like: three control tokens, 256 bytes, a few pieces with scores."""
    pieces = ["▁", "a", "b", "h", "i", "<", "s", ">", "s>", "▁a", "▁h", "▁hi", "hi", "ab", "▁▁"]
    tokens = ["<unk>", "<s>", "</s>", *(f"<0x{b:02X}>" for b in range(256)), *pieces]
    metadata = {
        "tokenizer.ggml.model": "llama",
        "tokenizer.ggml.tokens": tokens,
        "tokenizer.ggml.scores": [0.0] * 259 + [-float(i) for i in range(len(pieces))],
        "tokenizer.ggml.token_type": [2, 3, 3] + [6] * 256 + [1] * len(pieces),
    }
    return {k: v for k, v in (metadata | changes).items() if v is not None}


@pytest.fixture(scope="session")
def tokenizer() -> Tokenizer:
    return Tokenizer.from_gguf(byte_level(), "llama")


@pytest.fixture(scope="session")
def llama2() -> Tokenizer:
    return Tokenizer.from_gguf(sentencepiece(), "llama")


@pytest.fixture(scope="session")
def byte_level_metadata() -> Any:
    return byte_level


@pytest.fixture(scope="session")
def sentencepiece_metadata() -> Any:
    return sentencepiece
