"""What the tokens of a model say: the bytes of each id, and which ids are control tokens.

Built by `gguf_tokenizer` and `folder_tokenizer`, used by `Tokenizer.decode` and by `StreamDecoder`.
Decoding is ours (not the `tokenizers` library's) so that a stream and a whole text agree on every
byte, also on invalid ones: the bytes of all ids are joined and decoded as UTF-8, each maximal
invalid part giving one U+FFFD (the Unicode standard's recommended practice).
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import cache, cached_property
from importlib import resources
from typing import Literal

from pocketlm import _native

_BYTE_TOKEN = re.compile(r"<0x([0-9A-Fa-f]{2})>")
_SPACE = "\u2581"  # LOWER ONE EIGHTH BLOCK, SentencePiece's space


@cache
def byte_alphabet() -> dict[str, int]:
    """The printable character that stands for each byte in byte-level vocabularies (GPT-2).

    The 188 printable Latin-1 characters stand for themselves, the other 68 bytes, in order, for
    U+0100 onwards.
    """
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [byte for byte in range(256) if byte not in set(printable)]
    alphabet = {chr(byte): byte for byte in printable}
    alphabet.update({chr(0x100 + i): byte for i, byte in enumerate(others)})
    return alphabet


@dataclass(frozen=True)
class Vocabulary:
    """The tokens of a model by id.

    Attributes:
        tokens: every token as the model spells it; "" where an id has no token. A list, or the
            core's table of a GGUF file.
        control: ids that steer (`<|im_end|>`); never produced by plain text, skipped by decode.
        added: control and user-defined ids: matched whole before the merges run.
        spelling: how ordinary tokens are written, see `token_bytes`.
        strip_space: the first space of a decoded text is not the writer's (`add_space_prefix`).
    """

    tokens: list[str] | _native.Bpe
    control: frozenset[int]
    added: frozenset[int]
    spelling: Literal["byte_level", "sentencepiece"]
    strip_space: bool = False
    _bytes: dict[int, bytes] = field(default_factory=dict, repr=False, compare=False)

    def __len__(self) -> int:
        return len(self.tokens)

    def find(self, text: str) -> int | None:
        """The id of the token that is spelled `text`."""
        if isinstance(self.tokens, list):
            return self._ids.get(text)
        found = self.tokens.find(text)
        return found if found >= 0 else None

    @cached_property
    def _ids(self) -> dict[str, int]:
        return {token: i for i, token in enumerate(self.tokens) if token}

    def token_bytes(self, token_id: int) -> bytes:
        """The bytes that `token_id` stands for; b"" for an id outside the vocabulary.

        Models pad their embedding, so an id past the last token can be sampled; it says nothing.
        """
        known = self._bytes.get(token_id)
        if known is None:
            known = self._bytes[token_id] = self._spell(token_id)
        return known

    def all_bytes(self, count: int) -> list[bytes]:
        """``token_bytes`` of the first ``count`` ids, of which none is remembered."""
        return [self._spell(token_id) for token_id in range(count)]

    def _spell(self, token_id: int) -> bytes:
        if not 0 <= token_id < len(self.tokens):
            return b""
        token = self.tokens[token_id]
        if self.spelling == "sentencepiece":
            if match := _BYTE_TOKEN.fullmatch(token):
                return bytes([int(match[1], 16)])
            return token.replace(_SPACE, " ").encode()
        if token_id in self.added:
            return token.encode()
        alphabet = byte_alphabet()
        try:
            return bytes([alphabet[char] for char in token])
        except KeyError:  # a token written in plain text although not marked as added
            return token.encode()

    def decode(self, ids: Iterable[int], *, skip_special: bool) -> str:
        """The text of `ids`; with `skip_special`, control tokens are left out."""
        skip = self.control if skip_special else frozenset()
        data = b"".join([self.token_bytes(i) for i in ids if i not in skip])
        text = data.decode("utf-8", "replace")
        return text[1:] if self.strip_space and text.startswith(" ") else text


@cache
def end_of_turn_texts() -> frozenset[str]:
    """Texts of control tokens that end a turn (`end_of_turn.toml`)."""
    import tomllib

    text = resources.files(__package__).joinpath("end_of_turn.toml").read_text("utf-8")
    return frozenset(tomllib.loads(text)["texts"])
