"""The `tokenizer.ggml.*` metadata of a GGUF file, checked.

Nothing in a file is trusted: every value is brought here to a known type, length and range before
`gguf_tokenizer` indexes with it, and a value that does not fit is a ModelFileError that names its
key. Key names: the GGUF specification and llama.cpp's converter.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import IntEnum
from typing import Any

import numpy as np
import numpy.typing as npt

from pocketlm.errors import ModelFileError

PREFIX = "tokenizer.ggml."


class TokenType(IntEnum):
    """`tokenizer.ggml.token_type`, the numbers of sentencepiece's ModelProto."""

    NORMAL = 1
    UNKNOWN = 2
    CONTROL = 3
    USER_DEFINED = 4
    UNUSED = 5
    BYTE = 6


@dataclass(frozen=True)
class GGUFVocabulary:
    """The tokenizer part of a GGUF file; `ids` maps 'bos', 'eos', ... to ids within `tokens`.

    Whether `tokens` repeat is left to whoever makes a table of them.
    """

    model: str
    pre: str
    tokens: list[str]
    types: npt.NDArray[np.int8] | None
    scores: npt.NDArray[np.float64] | None
    merges: list[str] | None
    ids: Mapping[str, int]
    add_bos: bool | None
    add_eos: bool | None
    add_space_prefix: bool | None
    remove_extra_whitespaces: bool


_ID_NAMES = ("bos", "eos", "eot", "eom", "unknown", "padding", "seperator", "mask")
FILL_NAMES = ("fim_pre", "fim_suf", "fim_mid")


def read_vocabulary(metadata: Mapping[str, object]) -> GGUFVocabulary:
    """Check and collect the tokenizer keys of `metadata`.

    Raises:
        ModelFileError: a key is missing, of the wrong type, too short or out of range.
    """
    tokens = _tokens(metadata)
    count = len(tokens)
    ids = {}
    for name in (*_ID_NAMES, *FILL_NAMES):
        value = _special_id(metadata, f"{PREFIX}{name}_token_id", count)
        if value is not None:
            ids[name] = value
    return GGUFVocabulary(
        model=_text(metadata, "model", required=True),
        pre=_text(metadata, "pre") or "default",
        tokens=tokens,
        types=_types(metadata, count),
        scores=_scores(metadata, count),
        merges=_strings(metadata, f"{PREFIX}merges"),
        ids=ids,
        add_bos=_flag(metadata, "add_bos_token"),
        add_eos=_flag(metadata, "add_eos_token"),
        add_space_prefix=_flag(metadata, "add_space_prefix"),
        remove_extra_whitespaces=bool(_flag(metadata, "remove_extra_whitespaces")),
    )


def _text(metadata: Mapping[str, object], name: str, *, required: bool = False) -> str:
    value = metadata.get(PREFIX + name)
    if value is None and not required:
        return ""
    if not isinstance(value, str):
        raise ModelFileError(
            f"{PREFIX}{name} should be a string, found {_kind(value)}",
            hint=None if value is not None else "The file carries no tokenizer.",
        )
    return value


def _flag(metadata: Mapping[str, object], name: str) -> bool | None:
    value = metadata.get(PREFIX + name)
    if value is None or isinstance(value, bool):
        return value
    raise ModelFileError(f"{PREFIX}{name} should be a boolean, found {_kind(value)}")


def _special_id(metadata: Mapping[str, object], key: str, count: int) -> int | None:
    value = metadata.get(key)
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int):
        raise ModelFileError(f"{key} should be an integer, found {_kind(value)}")
    if not 0 <= value < count:
        raise ModelFileError(f"{key} is {value:,}, but the vocabulary has {count:,} tokens")
    return value


def _strings(metadata: Mapping[str, object], key: str) -> list[str] | None:
    value = metadata.get(key)
    if value is None:
        return None
    if not isinstance(value, list):
        raise ModelFileError(f"{key} should be an array of strings, found {_kind(value)}")
    if not set(map(type, value)) <= {str}:
        at = next(i for i, item in enumerate(value) if not isinstance(item, str))
        found = "invalid UTF-8" if isinstance(value[at], bytes) else _kind(value[at])
        raise ModelFileError(f"{key}[{at}] should be a string, found {found}")
    return value


def _tokens(metadata: Mapping[str, object]) -> list[str]:
    key = f"{PREFIX}tokens"
    tokens = _strings(metadata, key)
    if not tokens:
        raise ModelFileError(f"{key} is missing or empty", hint="The file carries no tokenizer.")
    if "" in tokens:
        # Some converters fill holes with empty strings; a name nothing can produce keeps ids apart.
        tokens = [token or f"\ufdd0{i}" for i, token in enumerate(tokens)]
    return tokens


def _numbers(metadata: Mapping[str, object], key: str, count: int) -> npt.NDArray[Any] | None:
    value = metadata.get(key)
    if value is None:
        return None
    if not isinstance(value, list | np.ndarray):
        raise ModelFileError(f"{key} should be an array of numbers, found {_kind(value)}")
    if len(value) != count:
        raise ModelFileError(f"{key} has {len(value):,} entries, but {PREFIX}tokens has {count:,}")
    numbers = np.asarray(value)
    if numbers.ndim != 1 or numbers.dtype.kind not in "iuf":
        raise ModelFileError(f"{key} should be an array of numbers")
    return numbers


def _types(metadata: Mapping[str, object], count: int) -> npt.NDArray[np.int8] | None:
    numbers = _numbers(metadata, f"{PREFIX}token_type", count)
    if numbers is None:
        return None
    known = np.isin(numbers, range(7))  # 0 is llama.cpp's "undefined"
    if not known.all():
        at = int(known.argmin())
        raise ModelFileError(f"{PREFIX}token_type[{at}] is {numbers[at]}, not one of 0 to 6")
    return numbers.astype(np.int8)


def _scores(metadata: Mapping[str, object], count: int) -> npt.NDArray[np.float64] | None:
    numbers = _numbers(metadata, f"{PREFIX}scores", count)
    if numbers is None:
        return None
    scores = numbers.astype(np.float64)
    if np.isnan(scores).any():
        raise ModelFileError(f"{PREFIX}scores[{int(np.isnan(scores).argmax())}] is not a number")
    return scores


def _kind(value: object) -> str:
    return "nothing" if value is None else type(value).__name__
