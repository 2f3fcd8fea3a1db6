"""Text to token ids and back: the one tokenizer class, over the `tokenizers` library.

Stands between a model's files (`gguf_tokenizer`, `folder_tokenizer`) and everyone who has text:
chat templates (`chat`), the engine, evaluation. Text is plain unless the caller says otherwise: a
user who types `<|im_end|>` gets the characters, not the control token.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from functools import cached_property
from pathlib import Path

from pocketlm import _native
from pocketlm.errors import RequestError
from pocketlm.text.backend import encode_guard
from pocketlm.text.parts import TokenizerParts


class Tokenizer:
    """A model's tokenizer. Safe to use from several threads.

    Attributes:
        vocab_size: tokens in the vocabulary; the model's embedding may have more rows (padding).
        bos_id, eos_id, unknown_id, padding_id: ids of the named control tokens, or None.
        eos_ids: every id that ends a turn or a document.
        special_ids: every control id.
        fill_ids: control ids before prefix, suffix and middle of a text with a gap, where the
            model's file names them (see `fill`).
    """

    def __init__(self, parts: TokenizerParts) -> None:
        self._encoder = parts.encoder
        self._prefix = list(parts.prefix)
        self._suffix = list(parts.suffix)
        self.vocabulary = parts.vocabulary
        self.vocab_size = len(parts.vocabulary)
        self.special_ids = parts.vocabulary.control
        self.bos_id = parts.bos_id
        self.eos_id = parts.eos_id
        self.eos_ids = parts.eos_ids
        self.unknown_id = parts.unknown_id
        self.padding_id = parts.padding_id
        self.fill_ids = parts.fill_ids

    @classmethod
    def from_gguf(cls, metadata: Mapping[str, object], architecture: str) -> Tokenizer:
        """The tokenizer in a GGUF file's metadata (`gguf_tokenizer.tokenizer_parts`).

        Raises:
            ModelFileError: a `tokenizer.ggml.*` key breaks the format.
            UnsupportedError: a tokenizer that PocketLM does not know.
        """
        from pocketlm.text.gguf_tokenizer import tokenizer_parts

        return cls(tokenizer_parts(metadata, architecture))

    @classmethod
    def from_folder(cls, path: Path) -> Tokenizer:
        """The tokenizer of a Hugging Face folder: tokenizer.json and the configs beside it.

        Raises:
            ModelFileError: a file is missing or breaks its format.
            UnsupportedError: a tokenizer that is neither byte-level nor SentencePiece-like.
        """
        from pocketlm.text.folder_tokenizer import tokenizer_parts

        return cls(tokenizer_parts(path))

    # --- text to ids -----------------------------------------------------------------------

    def encode(
        self, text: str, *, add_special: bool = False, parse_special: bool = False
    ) -> list[int]:
        """The ids of `text`.

        Args:
            text: any valid Unicode.
            add_special: put BOS/EOS around it as the model's files say.
            parse_special: read the texts of control tokens as control tokens. Only for text that
                nobody but the program wrote; user-defined tokens are always matched.

        Raises:
            RequestError: not valid Unicode, or too long for the library's regular expressions
                (tens of millions of characters).
        """
        ids = self._encode(text, parse_special=parse_special)
        if not parse_special and not self.special_ids.isdisjoint(ids):
            ids = self._encode_cut(text)
        return [*self._prefix, *ids, *self._suffix] if add_special else ids

    def encode_pieces(self, pieces: Sequence[str | int]) -> list[int]:
        """The ids of a text given as control ids and the plain stretches between them.

        Equal to `encode(joined text, parse_special=True)` when the stretches hold no control token
        text; where they do, it stays text.
        """
        ids: list[int] = []
        for at, piece in enumerate(pieces):
            if isinstance(piece, int):
                ids.append(piece)
                continue
            found = self._encode(piece, parse_special=False, first=at == 0)
            if not self.special_ids.isdisjoint(found):
                found = self._encode_cut(piece, first=at == 0)
            ids += found
        return ids

    def find_special(self, text: str) -> list[tuple[int, int, int]]:
        """Where control tokens are spelled out in `text`: (start, end, id), leftmost longest."""
        if not self.special_ids:
            return []
        with encode_guard(text):
            found = self._finder.find(text)
        ids = self._special_in_order
        return [(start, end, ids[which]) for start, end, which in found]

    def _encode(self, text: str, *, parse_special: bool, first: bool = True) -> list[int]:
        if not isinstance(text, str):
            raise RequestError(f"the text to tokenize is a {type(text).__name__}, not a string")
        with encode_guard(text):
            return self._encoder.encode(text, parse_special=parse_special, first=first)

    def _encode_cut(self, text: str, *, first: bool = True) -> list[int]:
        """Plain ids of a text out of which the model's own merges would build a control token."""
        ids: list[int] = []
        start = 0
        cuts = [begin + 1 for begin, _, _ in self.find_special(text)]
        for cut in [*cuts, len(text)]:
            ids += self._encode(text[start:cut], parse_special=False, first=first and start == 0)
            start = cut
        if not self.special_ids.isdisjoint(ids):
            found = next(i for i in ids if i in self.special_ids)
            raise RequestError(
                f"the text spells the control token {self.token(found)!r}, "
                "which this tokenizer cannot write as plain text"
            )
        return ids

    @cached_property
    def _finder(self) -> _native.TokenFinder:
        return _native.TokenFinder(list(self.special_texts))

    @cached_property
    def _special_in_order(self) -> list[int]:
        return sorted(self.special_ids)

    # --- ids to text -----------------------------------------------------------------------

    def decode(self, ids: Iterable[int], *, skip_special: bool = True) -> str:
        """The text of `ids`; bytes that are not UTF-8 become U+FFFD.

        `decode(encode(text)) == text` where the model's normalizer changes nothing (Qwen's makes
        text NFC; SentencePiece models with a space prefix drop one leading space).
        """
        return self.vocabulary.decode(ids, skip_special=skip_special)

    def token_bytes(self, token_id: int) -> bytes:
        """The bytes that one id stands for; b"" for an id outside the vocabulary."""
        return self.vocabulary.token_bytes(token_id)

    def token(self, token_id: int) -> str:
        """How the model spells `token_id` (`Ġthe`, `▁the`, `<|im_end|>`)."""
        if not 0 <= token_id < self.vocab_size:
            raise RequestError(f"token id {token_id:,} is not in 0 to {self.vocab_size - 1:,}")
        return self.vocabulary.tokens[token_id]

    def token_id(self, token: str) -> int | None:
        """The id of a token given as the model spells it, or None."""
        return self.vocabulary.find(token)

    @cached_property
    def special_texts(self) -> tuple[str, ...]:
        """The text of every control token, in the order of their ids."""
        return tuple(self.token(i) for i in self._special_in_order)

    @cached_property
    def special_edges(self) -> tuple[frozenset[str], frozenset[str]]:
        """All proper beginnings and all proper ends of the control tokens' texts."""
        texts = self.special_texts
        heads = frozenset(text[:n] for text in texts for n in range(1, len(text)))
        tails = frozenset(text[n:] for text in texts for n in range(1, len(text)))
        return heads, tails

    @property
    def adds_bos(self) -> bool:
        """Whether `add_special` puts BOS before a text."""
        return bool(self._prefix) and self._prefix[0] == self.bos_id
