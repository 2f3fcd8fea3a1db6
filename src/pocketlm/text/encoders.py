"""Text to ids: what a `Tokenizer` encodes with, whichever files it came from.

`BpeEncoder` is for GGUF files: normalizing and cutting into words are the `tokenizers` library's,
vocabulary and merges are the core's, which holds them in a tenth of the memory and is ready in a
tenth of the time. `LibraryEncoder` runs a tokenizer.json, whatever its steps are.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Protocol

import tokenizers
from tokenizers import normalizers, pre_tokenizers

from pocketlm import _native


class Encoder(Protocol):
    """Safe to use from several threads."""

    def encode(self, text: str, *, parse_special: bool, first: bool) -> list[int]:
        """The ids of `text`, nothing put around it.

        Args:
            text: any string; whatever is wrong with it may be raised as any exception.
            parse_special: read control tokens' texts as control tokens.
            first: the text begins a document.
        """


@dataclass(frozen=True)
class BpeEncoder:
    """Byte-level or SentencePiece-style BPE.

    Attributes:
        bpe: vocabulary and merges.
        added: ids that are matched whole before the merges run, with their texts.
        control: those of them that are read as text unless control tokens are asked for.
        normalizer, pre_tokenizer: run on each stretch between added tokens, where there are any.
        continuation: replaces the pre-tokenizer for a stretch that does not begin a document
            (SentencePiece's space before the first word); None where nothing differs.
    """

    bpe: _native.Bpe
    added: Sequence[tuple[int, str]]
    control: frozenset[int]
    normalizer: normalizers.Normalizer | None
    pre_tokenizer: pre_tokenizers.PreTokenizer | None
    continuation: pre_tokenizers.PreTokenizer | None = None

    def encode(self, text: str, *, parse_special: bool, first: bool) -> list[int]:
        ids: list[int] = []
        start = 0
        for begin, end, which in self._finder.find(text):
            token_id = self.added[which][0]
            if parse_special or token_id not in self.control:
                ids += self._stretch(text[start:begin], first=first and start == 0)
                ids.append(token_id)
                start = end
        ids += self._stretch(text[start:], first=first and start == 0)
        return ids

    @cached_property
    def _finder(self) -> _native.TokenFinder:
        return _native.TokenFinder([text for _, text in self.added])

    def _stretch(self, text: str, *, first: bool) -> list[int]:
        if not text:
            return []
        if self.normalizer is not None:
            text = self.normalizer.normalize_str(text)
        cut = self.pre_tokenizer if first or self.continuation is None else self.continuation
        if cut is None:
            return self.bpe.encode([text])
        return self.bpe.encode([word for word, _ in cut.pre_tokenize_str(text)])


class LibraryEncoder:
    """A tokenizer of the `tokenizers` library.

    Args:
        backend: every added token is known to it, control tokens as special ones.
        continuation: as `BpeEncoder` has it.
    """

    def __init__(
        self, backend: tokenizers.Tokenizer, continuation: pre_tokenizers.PreTokenizer | None
    ) -> None:
        self._backend = backend
        self._first = backend.pre_tokenizer
        self._continuation = continuation
        # Whether control tokens are matched is a setting of the backend, not of a call.
        self._lock = threading.Lock()

    def encode(self, text: str, *, parse_special: bool, first: bool) -> list[int]:
        swap = self._continuation is not None and not first
        with self._lock:
            self._backend.encode_special_tokens = not parse_special
            if not swap:
                return self._ids(text)
            self._backend.pre_tokenizer = self._continuation
            try:
                return self._ids(text)
            finally:
                self._backend.pre_tokenizer = self._first

    def _ids(self, text: str) -> list[int]:
        ids: list[int] = self._backend.encode(text, add_special_tokens=False).ids
        return ids
