"""SentencePiece's tokenizer.model, as far as a GGUF file needs it: pieces, scores and types.

The file is a protobuf message (sentencepiece_model.proto): field 1 of it is repeated, a piece with
its text (1), score (2) and type (3). Folders come with it beside tokenizer.json, which does not
carry the scores. Written too, so that a folder made from a GGUF file keeps them.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from pocketlm.errors import ModelFileError

_MAX_BYTES = 256 << 20
_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5


@dataclass(frozen=True)
class Piece:
    """One token; ``type`` has the numbers of ``text.gguf_fields.TokenType``."""

    text: str
    score: float
    type: int


def read_pieces(path: Path) -> list[Piece]:
    """The pieces of a tokenizer.model, by id.

    Raises:
        ModelFileError: it is not such a message.
    """
    if path.stat().st_size > _MAX_BYTES:
        raise ModelFileError("too large to be a tokenizer", path=path)
    try:
        message = memoryview(path.read_bytes())
        pieces = [_piece(body) for number, body in _fields(message) if number == 1]
    except (IndexError, ValueError, struct.error) as error:
        raise ModelFileError(f"not a SentencePiece model: {error}", path=path) from error
    if not pieces:
        raise ModelFileError("the SentencePiece model has no pieces", path=path)
    return pieces


def _piece(body: int | memoryview) -> Piece:
    body = _bytes(body)
    text, score, kind = "", 0.0, 1  # the message's defaults
    short = len(body) > 6 and body[0] == 0x0A and body[1] < 0x80
    if short and body[1] + 7 == len(body) and body[-5] == 0x15:
        # by far the most: a short text and a score, in this order
        return Piece(bytes(body[2:-5]).decode(), struct.unpack("<f", body[-4:])[0], kind)
    for number, value in _fields(body):
        if number == 1:
            text = bytes(_bytes(value)).decode()
        elif number == 2:
            (score,) = struct.unpack("<f", _bytes(value))
        elif number == 3 and isinstance(value, int):
            kind = value
    return Piece(text, score, kind)


def _bytes(value: int | memoryview) -> memoryview:
    if isinstance(value, int):
        raise ValueError("a number stands where bytes should")
    return value


def _fields(message: memoryview) -> Iterator[tuple[int, int | memoryview]]:
    """Number and value of each field: an int for varints, the bytes for all others."""
    at = 0
    while at < len(message):
        tag, at = _varint(message, at)
        kind = tag & 7
        if kind == _VARINT:
            value, at = _varint(message, at)
            yield tag >> 3, value
            continue
        if kind == _BYTES:
            size, at = _varint(message, at)
        elif kind in (_FIXED32, _FIXED64):
            size = 4 if kind == _FIXED32 else 8
        else:
            raise ValueError(f"wire type {kind}")
        if at + size > len(message):
            raise ValueError("a field ends beyond the file")
        yield tag >> 3, message[at : at + size]
        at += size


def _varint(message: memoryview, at: int) -> tuple[int, int]:
    value = 0
    for shift in range(0, 64, 7):
        byte = message[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, at
    raise ValueError("a number is too long")


def encode_pieces(pieces: Iterable[Piece], *, ids: Sequence[int | None], prefix: bool) -> bytes:
    """A tokenizer.model of a BPE vocabulary.

    Args:
        pieces: by id.
        ids: of unknown, BOS, EOS and padding; None for none.
        prefix: whether a space is put before a text.
    """
    parts = [_length(1, _encode(piece)) for piece in pieces]
    trainer = _number(3, 2) + _number(35, 1)  # model_type BPE, byte_fallback
    for field, token_id in zip((40, 41, 42, 43), ids, strict=True):
        trainer += _number(field, -1 if token_id is None else token_id)
    normalizer = _length(1, b"identity") + _number(3, int(prefix)) + _number(4, 0) + _number(5, 1)
    return b"".join([*parts, _length(2, trainer), _length(3, normalizer)])


def _encode(piece: Piece) -> bytes:
    head = _length(1, piece.text.encode()) + b"\x15" + struct.pack("<f", piece.score)
    return head if piece.type == 1 else head + _number(3, piece.type)


def _length(number: int, body: bytes) -> bytes:
    return _raw(number << 3 | _BYTES) + _raw(len(body)) + body


def _number(number: int, value: int) -> bytes:
    return _raw(number << 3 | _VARINT) + _raw(value % (1 << 64))


def _raw(value: int) -> bytes:
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)
