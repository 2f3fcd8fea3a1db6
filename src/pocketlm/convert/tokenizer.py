"""A folder's tokenizer as ``tokenizer.*`` metadata of a GGUF file.

Two kinds, as in ``text.gguf_tokenizer``: byte-level BPE keeps its merges and a name for how it cuts
words; SentencePiece BPE keeps a score for each token instead, from tokenizer.model where the folder
has one, else from the order of the merges. What was written is tried out: the tokenizer that a
GGUF reader builds from it must give the folder's own ids for a text full of what goes wrong.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from pocketlm.convert.pieces import read_pieces
from pocketlm.convert.pre_names import pre_name
from pocketlm.errors import ModelFileError, UnsupportedError
from pocketlm.gguf import Value
from pocketlm.text.folder_tokenizer import steps_of, tokenizer_parts
from pocketlm.text.gguf_fields import PREFIX, TokenType
from pocketlm.text.json_files import read_json
from pocketlm.text.parts import TokenizerParts
from pocketlm.text.template_sources import folder_templates
from pocketlm.text.tokenizer import Tokenizer
from pocketlm.text.vocabulary import end_of_turn_texts

_SPACE = "\u2581"
_STEERING_SCORE = -1000.0
PROBE = (
    "Hello, World! It's 2024: we'll pay $1,234.50 (or 99%) for 3 dogs.\n\n"
    "\tif (x_1 != 0x7F) { return a[i]->b; }  // trailing  spaces   \r\n"
    "Voilà, naïve cafe\u0301 — Straße, ÅNGSTRÖM; Привет, мир! 你好，世界。 こんにちは 안녕하세요 "
    "مرحبا שלום नमस्ते ไทย 👩‍👩‍👧 🙂 <b>&amp;</b> DON'T I'VE ''' \u00a0\u2003 end"
)


@dataclass(frozen=True)
class _Tokens:
    """One row of the embedding each."""

    texts: list[str]
    types: list[int]
    scores: list[float]


def tokenizer_metadata(folder: Path, rows: int, architecture: str) -> dict[str, Value]:
    """The ``tokenizer.*`` keys for the tokenizer in ``folder``.

    Args:
        folder: has tokenizer.json and the configs beside it.
        rows: of the embedding; tokens are filled up to it.
        architecture: GGUF's, which decides how readers spell spaces.

    Raises:
        ModelFileError: a file breaks its format, or has more tokens than the embedding has rows.
        UnsupportedError: a tokenizer that GGUF, or PocketLM's reader of it, cannot express.
    """
    file = folder / "tokenizer.json"
    parts = tokenizer_parts(folder)
    original = _said_by(Tokenizer(parts))
    metadata = _vocabulary(folder, parts, rows)
    metadata |= _special(parts, rows, file)
    metadata |= _templates(folder)
    del parts  # a big vocabulary takes 200 MB, and the next line makes another of it
    _compare(original, _said_by(Tokenizer.from_gguf(metadata, architecture)), file)
    return metadata


def _vocabulary(folder: Path, parts: TokenizerParts, rows: int) -> dict[str, Value]:
    """The kind of tokenizer, its tokens, and its merges or scores."""
    file = folder / "tokenizer.json"
    content = read_json(file)
    model = content.get("model")
    if not isinstance(model, dict) or model.get("type", "BPE") != "BPE":
        kind = model.get("type") if isinstance(model, dict) else None
        raise UnsupportedError(f"the tokenizer is a {kind} model, PocketLM converts BPE", path=file)
    tokens = _tokens(parts, rows, file)
    metadata: dict[str, Value] = {}
    if parts.vocabulary.spelling == "byte_level":
        metadata[f"{PREFIX}model"] = "gpt2"
        metadata[f"{PREFIX}pre"] = pre_name(content, file)
        _put_tokens(metadata, tokens)
        metadata[f"{PREFIX}merges"] = merge_lines(model, file)
    else:
        tokens = _scored(tokens, parts, model, folder)
        metadata[f"{PREFIX}model"] = "llama"
        metadata[f"{PREFIX}pre"] = "default"
        _put_tokens(metadata, tokens)
        metadata[f"{PREFIX}scores"] = np.array(tokens.scores, dtype=np.float32)
        metadata[f"{PREFIX}add_space_prefix"] = _space_prefix(content)
    return metadata


def _put_tokens(metadata: dict[str, Value], tokens: _Tokens) -> None:
    metadata[f"{PREFIX}tokens"] = tokens.texts
    metadata[f"{PREFIX}token_type"] = np.array(tokens.types, dtype=np.int32)


def _tokens(parts: TokenizerParts, rows: int, file: Path) -> _Tokens:
    """Texts and types by id, as many as the embedding has rows."""
    vocabulary = parts.vocabulary
    beyond = [i for i in range(rows, len(vocabulary)) if vocabulary.tokens[i]]
    if not vocabulary.added.issuperset(beyond):  # Gemma 3's text models name an image token there
        raise ModelFileError(
            f"the vocabulary has {len(vocabulary):,} tokens, the embedding {rows:,} rows", path=file
        )
    texts, types = [], []
    for i in range(rows):
        text = vocabulary.tokens[i] if i < len(vocabulary) else ""
        kind = TokenType.NORMAL
        if not text:
            text, kind = f"[PAD{i}]", TokenType.UNUSED
        elif i in vocabulary.control:
            kind = TokenType.CONTROL
        elif i in vocabulary.added:
            kind = TokenType.USER_DEFINED
        texts.append(text)
        types.append(int(kind))
    return _Tokens(texts, types, [])


def merge_lines(model: Mapping[str, Any], path: Path) -> list[str]:
    """The merges of tokenizer.json, pairs or lines, as lines."""
    merges = model.get("merges")
    if not isinstance(merges, list):
        raise ModelFileError("'merges' is not a list", path=path)
    lines = [" ".join(merge) if isinstance(merge, list) else merge for merge in merges]
    if not all(isinstance(line, str) and line.count(" ") == 1 for line in lines):
        raise ModelFileError("'merges' has something else than pairs of tokens", path=path)
    return lines


def _scored(
    tokens: _Tokens, parts: TokenizerParts, model: Mapping[str, Any], folder: Path
) -> _Tokens:
    """A SentencePiece vocabulary with scores, byte tokens, and spaces where GGUF has them."""
    texts, types = list(tokens.texts), list(tokens.types)
    scores = [_STEERING_SCORE if kind != TokenType.NORMAL else 0.0 for kind in types]
    for i, (text, kind) in enumerate(zip(tokens.texts, tokens.types, strict=True)):
        if kind == TokenType.NORMAL and len(text) == 6:
            if len(parts.vocabulary.token_bytes(i)) == 1:  # "<0x0A>"
                types[i] = int(TokenType.BYTE)
        elif kind == TokenType.USER_DEFINED:
            texts[i] = text.replace(_SPACE, " ")
    normal = [i for i, kind in enumerate(types) if kind == TokenType.NORMAL]
    path = folder / "tokenizer.model"
    given = {piece.text: piece.score for piece in read_pieces(path)} if path.is_file() else {}
    if given and all(texts[i] in given for i in normal):
        for i in normal:
            scores[i] = given[texts[i]]
        return _Tokens(texts, types, scores)
    ranks = _ranks(model, folder)
    last = len(ranks)
    for place, i in enumerate(sorted(normal, key=lambda i: (ranks.get(texts[i], last), i))):
        scores[i] = -float(place)
    return _Tokens(texts, types, scores)


def _ranks(model: Mapping[str, Any], folder: Path) -> dict[str, int]:
    """The rank of the first merge that builds a token."""
    ranks: dict[str, int] = {}
    merges = model.get("merges")
    for rank, merge in enumerate(merges if isinstance(merges, list) else []):
        pair = merge if isinstance(merge, list) else str(merge).split(" ")
        if len(pair) != 2 or not all(isinstance(half, str) for half in pair):
            raise ModelFileError(
                "'merges' has something else than pairs of tokens", path=folder / "tokenizer.json"
            )
        ranks.setdefault(pair[0] + pair[1], rank)
    return ranks


def _space_prefix(content: Mapping[str, Any]) -> bool:
    """Whether a space is put before a text: by a normalizer (Llama 2, Phi-3) or a Metaspace."""
    steps = steps_of(content.get("normalizer"), "normalizers")
    if any(step.get("type") == "Prepend" for step in steps):
        return True
    return any(
        step.get("type") == "Metaspace" and step.get("prepend_scheme", "always") != "never"
        for step in steps_of(content.get("pre_tokenizer"), "pretokenizers")
    )


def _special(parts: TokenizerParts, rows: int, file: Path) -> dict[str, Value]:
    """The named ids, and what is put around a text."""
    metadata: dict[str, Value] = {}
    # Ends of a turn that a reader finds neither as EOS nor by their text.
    texts = end_of_turn_texts()
    vocabulary = parts.vocabulary
    unnamed = sorted(
        i
        for i in parts.eos_ids - {parts.eos_id}
        if not (i in vocabulary.control and vocabulary.tokens[i] in texts)
    )
    eos_id = parts.eos_id
    if eos_id is None and unnamed:
        eos_id = unnamed.pop(0)
    named = [
        ("bos", parts.bos_id),
        ("eos", eos_id),
        ("unknown", parts.unknown_id),
        ("padding", parts.padding_id),
    ]
    named += list(zip(("eot", "eom"), unnamed, strict=False))
    if len(unnamed) > 2:
        raise UnsupportedError(
            f"{len(unnamed)} more ids end a turn than GGUF has names for", path=file
        )
    for name, token_id in named:
        if token_id is not None:
            if token_id >= rows:
                raise ModelFileError(f"the {name} id {token_id:,} has no embedding", path=file)
            metadata[f"{PREFIX}{name}_token_id"] = token_id
    for name, around, token_id in (
        ("bos", parts.prefix, parts.bos_id),
        ("eos", parts.suffix, parts.eos_id),
    ):
        if around not in ((), (token_id,)):
            raise UnsupportedError(f"texts are put between other tokens than {name}", path=file)
        metadata[f"{PREFIX}add_{name}_token"] = bool(around)
    return metadata


def _templates(folder: Path) -> dict[str, Value]:
    templates = folder_templates(folder)
    key = "tokenizer.chat_template"
    metadata: dict[str, Value] = {}
    others = sorted(set(templates) - {"default"})
    if others:
        metadata["tokenizer.chat_templates"] = others
    if "default" in templates:
        metadata[key] = templates["default"]
    return metadata | {f"{key}.{name}": templates[name] for name in others}


@dataclass(frozen=True)
class _Said:
    """What a tokenizer does with the probe, in whole and in parts, and what ends a turn."""

    ids: list[list[int]]
    ends: frozenset[int]


def _said_by(tokenizer: Tokenizer) -> _Said:
    texts = (PROBE, *PROBE.split(" ")[:8])
    return _Said([tokenizer.encode(text, add_special=True) for text in texts], tokenizer.eos_ids)


def _compare(original: _Said, made: _Said, file: Path) -> None:
    """Raises UnsupportedError unless a GGUF reader gets the folder's ids."""
    for wanted, found in zip(original.ids, made.ids, strict=True):
        if wanted != found:
            pairs = enumerate(zip(wanted, found, strict=False))
            at = next((i for i, (a, b) in pairs if a != b), min(len(wanted), len(found)))
            raise UnsupportedError(
                "the tokenizer would give other tokens in a GGUF file: "
                f"{wanted[at : at + 4]} became {found[at : at + 4]} at token {at}",
                path=file,
                hint="The tokenizer does something that GGUF has no field for.",
            )
    if original.ends != made.ends:
        raise UnsupportedError(
            f"the ids that end a turn, {sorted(original.ends)}, would become "
            f"{sorted(made.ends)} in a GGUF file",
            path=file,
        )
