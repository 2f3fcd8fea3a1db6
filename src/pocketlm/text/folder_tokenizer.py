"""A tokenizer from a Hugging Face folder: tokenizer.json and the small configs beside it.

tokenizer.json says exactly how text becomes ids, so it is handed to the `tokenizers` library as it
is. Read here besides: which tokens begin and end a text (tokenizer_config.json), which ids end a
turn (generation_config.json, config.json), and how tokens become bytes (the file's decoder).
`Tokenizer.from_folder` is the entry point.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Literal

import tokenizers
from tokenizers import pre_tokenizers

from pocketlm.errors import ModelFileError, UnsupportedError
from pocketlm.text.backend import build_guard
from pocketlm.text.encoders import LibraryEncoder
from pocketlm.text.json_files import read_json
from pocketlm.text.parts import TokenizerParts
from pocketlm.text.vocabulary import Vocabulary, end_of_turn_texts

#: An id beyond this is a broken file, not a vocabulary (the list of tokens is as long as it).
_MAX_VOCABULARY = 4_000_000


def tokenizer_parts(path: Path) -> TokenizerParts:
    """Everything `Tokenizer` is made of, from the folder `path`.

    Raises:
        ModelFileError: tokenizer.json is missing, or a file breaks its format.
        UnsupportedError: the tokenizer is neither byte-level nor SentencePiece-like.
    """
    file = path / "tokenizer.json"
    content = read_json(file)
    content.pop("model", None)  # most of the file, which the library reads for itself
    config = _optional(path / "tokenizer_config.json")
    with build_guard(f"tokenizer.json in {path}"):
        backend = tokenizers.Tokenizer.from_file(str(file))
        backend.no_truncation()
        backend.no_padding()
    vocabulary = _vocabulary(backend, content, file)
    bos = _token_id(backend, path, config, "bos_token")
    eos = _token_id(backend, path, config, "eos_token")
    prefix, suffix = _around(backend)
    if isinstance(config.get("add_bos_token"), bool):
        prefix = (bos,) if config["add_bos_token"] and bos is not None else ()
    if isinstance(config.get("add_eos_token"), bool):
        suffix = (eos,) if config["add_eos_token"] and eos is not None else ()
    texts = end_of_turn_texts()
    ends = {i for i in vocabulary.control if vocabulary.tokens[i] in texts}
    ends |= _end_ids(path, len(vocabulary))
    return TokenizerParts(
        encoder=LibraryEncoder(backend, _continuation(content)),
        vocabulary=vocabulary,
        bos_id=bos,
        eos_id=eos,
        eos_ids=frozenset(ends if eos is None else ends | {eos}),
        unknown_id=_token_id(backend, path, config, "unk_token"),
        padding_id=_token_id(backend, path, config, "pad_token"),
        prefix=prefix,
        suffix=suffix,
    )


def _optional(file: Path) -> dict[str, Any]:
    return read_json(file) if file.is_file() else {}


def _vocabulary(backend: tokenizers.Tokenizer, content: dict[str, Any], file: Path) -> Vocabulary:
    ids = backend.get_vocab(with_added_tokens=True)
    if not ids:
        raise ModelFileError("tokenizer.json has no vocabulary", path=file)
    size = max(ids.values()) + 1
    if size > _MAX_VOCABULARY:
        raise ModelFileError(f"tokenizer.json has a token id of {size - 1:,}", path=file)
    tokens = [""] * size
    for token, i in ids.items():
        tokens[i] = token
    added = backend.get_added_tokens_decoder()
    spelling, strip = _spelling(content.get("decoder"))
    return Vocabulary(
        tokens,
        frozenset(i for i, token in added.items() if token.special),
        frozenset(added),
        spelling,
        strip,
    )


def steps_of(part: object, inner: str) -> list[dict[str, Any]]:
    """A component of tokenizer.json as the list of its steps, sequences opened."""
    if not isinstance(part, dict):
        return []
    if part.get("type") == "Sequence" and isinstance(part.get(inner), list):
        return [step for item in part[inner] for step in steps_of(item, inner)]
    return [part]


def _spelling(decoder: object) -> tuple[Literal["byte_level", "sentencepiece"], bool]:
    """How tokens are written, and whether the first space of a text is dropped."""
    steps = steps_of(decoder, "decoders")
    kinds = [step.get("type") for step in steps]
    if "ByteLevel" in kinds:
        return "byte_level", False
    for step in steps:
        if step.get("type") == "Metaspace":
            return "sentencepiece", step.get("prepend_scheme", "always") != "never"
    if "ByteFallback" in kinds or "Replace" in kinds:
        return "sentencepiece", any(step.get("start") == 1 for step in steps)
    raise UnsupportedError(
        f"the tokenizer's decoder ({', '.join(map(str, kinds)) or 'none'}) is not supported",
        hint="Supported: byte-level BPE and SentencePiece-like tokenizers.",
    )


def _continuation(content: dict[str, Any]) -> pre_tokenizers.PreTokenizer | None:
    """The pre-tokenizer without "a space before the first word", where the file's has it."""
    steps = steps_of(content.get("pre_tokenizer"), "pretokenizers")
    if not any(step.get("prepend_scheme") == "first" for step in steps):
        return None
    changed = [
        step | {"prepend_scheme": "never"} if step.get("prepend_scheme") == "first" else step
        for step in steps
    ]
    bare = {
        "version": "1.0",
        "added_tokens": [],
        "pre_tokenizer": {"type": "Sequence", "pretokenizers": changed},
        "model": {"type": "BPE", "vocab": {}, "merges": []},
    }
    with build_guard("pre_tokenizer in tokenizer.json"):
        built: pre_tokenizers.PreTokenizer | None
        built = tokenizers.Tokenizer.from_str(json.dumps(bare)).pre_tokenizer
        return built


def _around(backend: tokenizers.Tokenizer) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """The ids that the file's post-processor puts before and after a text."""
    with build_guard("post_processor in tokenizer.json"):
        encoding = backend.encode("a")
    added = encoding.special_tokens_mask
    ids: list[int] = encoding.ids
    if 0 not in added:  # "a" gives no token: nothing to tell the sides apart
        return (), ()
    begin = added.index(0)
    end = len(added) - added[::-1].index(0)
    return tuple(ids[:begin]), tuple(ids[end:])


def _token_id(
    backend: tokenizers.Tokenizer, path: Path, config: dict[str, Any], name: str
) -> int | None:
    """The id of a named token: tokenizer_config.json, else special_tokens_map.json."""
    value = config.get(name)
    if value is None:
        value = _optional(path / "special_tokens_map.json").get(name)
    if isinstance(value, dict):
        value = value.get("content")
    if value is None:
        return None
    if not isinstance(value, str):
        raise ModelFileError(
            f"{name} should be a token's text", path=path / "tokenizer_config.json"
        )
    found: int | None = backend.token_to_id(value)
    if found is None:
        raise ModelFileError(
            f"{name} is {value!r}, which is not in the vocabulary",
            path=path / "tokenizer_config.json",
        )
    return found


def _end_ids(path: Path, size: int) -> set[int]:
    """`eos_token_id` of generation_config.json, else of config.json: one id or a list."""
    for name in ("generation_config.json", "config.json"):
        value = _optional(path / name).get("eos_token_id")
        if value is None:
            continue
        ids = value if isinstance(value, list) else [value]
        for i in ids:
            if isinstance(i, bool) or not isinstance(i, int) or not 0 <= i < size:
                raise ModelFileError(
                    f"eos_token_id is {i!r}, but the vocabulary has {size:,} tokens",
                    path=path / name,
                )
        return set(ids)
    return set()
