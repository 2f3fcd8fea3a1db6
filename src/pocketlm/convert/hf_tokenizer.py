"""A GGUF file's tokenizer as the files of a Hugging Face folder.

tokenizer.json holds the steps that ``text.gguf_tokenizer`` sets for the engine, the vocabulary and
its merges, and what only transformers needs: the decoder, and what is put around a text. A
SentencePiece vocabulary also gets its tokenizer.model, which keeps the scores.
"""

from __future__ import annotations

import json
from collections.abc import Mapping

import tokenizers
from tokenizers import decoders, models, processors

from pocketlm.convert.implied_merges import implied_merges
from pocketlm.convert.pieces import Piece, encode_pieces
from pocketlm.models.generation import folder_sampling
from pocketlm.text.encoders import BpeEncoder
from pocketlm.text.gguf_fields import GGUFVocabulary, TokenType, read_vocabulary
from pocketlm.text.gguf_tokenizer import is_gemma
from pocketlm.text.parts import TokenizerParts
from pocketlm.text.pretokenizers import pre_tokenizer

_SPACE = "\u2581"
_ADDED = dict.fromkeys(("single_word", "lstrip", "rstrip", "normalized"), False)

Json = dict[str, object]


def tokenizer_files(
    metadata: Mapping[str, object],
    parts: TokenizerParts,
    templates: Mapping[str, str],
    generation: Mapping[str, float],
    context: int,
    architecture: str,
) -> dict[str, bytes]:
    """The folder's tokenizer and generation files, by name.

    Args:
        metadata: of the GGUF file.
        parts: what ``text.gguf_tokenizer`` builds from it.
        templates: chat templates by name.
        generation: sampling defaults.
        context: positions of the model.
        architecture: ``general.architecture``.

    Raises:
        ModelFileError: a tokenizer key breaks the format.
    """
    vocabulary = read_vocabulary(metadata)
    files = {
        "tokenizer.json": _json(_tokenizer(vocabulary, parts, architecture), indent=None),
        "tokenizer_config.json": _json(_config(parts, templates, context)),
        "generation_config.json": _json(_generation(parts, generation)),
    }
    if vocabulary.scores is not None and parts.vocabulary.spelling == "sentencepiece":
        files["tokenizer.model"] = _pieces(vocabulary, parts)
    return files


def token_ids(parts: TokenizerParts) -> Json:
    """The named ids, for config.json and generation_config.json."""
    ends = sorted(parts.eos_ids - {parts.eos_id})
    if parts.eos_id is not None:
        ends.insert(0, parts.eos_id)
    named = {
        "bos_token_id": parts.bos_id,
        "eos_token_id": ends[0] if len(ends) == 1 else ends or None,
        "pad_token_id": parts.padding_id,
    }
    return {name: value for name, value in named.items() if value is not None}


def _json(value: Json, *, indent: int | None = 2) -> bytes:
    """UTF-8; without ``indent`` in one line, which is much faster for a vocabulary."""
    return json.dumps(value, indent=indent, ensure_ascii=False).encode()


def _unused(vocabulary: GGUFVocabulary) -> set[str]:
    """Tokens that only fill the embedding's rows: no tokenizer.json has them."""
    types = [] if vocabulary.types is None else vocabulary.types.tolist()
    return {
        vocabulary.tokens[i]
        for i, kind in enumerate(types)
        if kind == TokenType.UNUSED and vocabulary.tokens[i] == f"[PAD{i}]"
    } | {token for token in vocabulary.tokens if token.startswith("\ufdd0")}


def _tokenizer(vocabulary: GGUFVocabulary, parts: TokenizerParts, architecture: str) -> Json:
    encoder, tokens = parts.encoder, list(parts.vocabulary.tokens)
    assert isinstance(encoder, BpeEncoder)
    backend = tokenizers.Tokenizer(models.BPE({}, []))
    if encoder.normalizer is not None:
        backend.normalizer = encoder.normalizer
    if encoder.pre_tokenizer is not None:
        backend.pre_tokenizer = encoder.pre_tokenizer
    byte_level = parts.vocabulary.spelling == "byte_level"
    if byte_level:
        backend.decoder = decoders.ByteLevel()
    else:
        steps = [decoders.Replace(_SPACE, " "), decoders.ByteFallback(), decoders.Fuse()]
        if parts.vocabulary.strip_space:
            steps.append(decoders.Strip(" ", 1, 0))
        backend.decoder = decoders.Sequence(steps)
    around = _around(parts)
    if around is not None:
        backend.post_processor = around
    content: Json = json.loads(backend.to_str())
    content["added_tokens"] = [
        {"id": i, "content": text, "special": i in parts.vocabulary.control} | _ADDED
        for i, text in encoder.added
    ]
    if vocabulary.merges is not None:
        merges = [line.split(" ", 1) for line in vocabulary.merges]
    else:
        scores = None if is_gemma(vocabulary, architecture) else vocabulary.scores
        ranked = None if scores is None else scores.tolist()
        merges = [list(pair) for pair in implied_merges(tokens, ranked, parts.vocabulary.control)]
    unused = _unused(vocabulary)
    content["model"] = {
        "type": "BPE",
        "unk_token": None if byte_level else tokens[vocabulary.ids.get("unknown", 0)],
        "fuse_unk": not byte_level,
        "byte_fallback": not byte_level,
        "ignore_merges": byte_level and pre_tokenizer(vocabulary.pre).ignore_merges,
        "vocab": {token: i for i, token in enumerate(tokens) if token not in unused},
        "merges": merges,
    }
    return content


def _around(parts: TokenizerParts) -> processors.TemplateProcessing | None:
    if not parts.prefix and not parts.suffix:
        return None
    tokens = parts.vocabulary.tokens
    special = [(tokens[i], i) for i in {*parts.prefix, *parts.suffix}]
    before, after = ([tokens[i] for i in ids] for ids in (parts.prefix, parts.suffix))
    return processors.TemplateProcessing(
        single=[*before, "$A", *after],
        pair=[*before, "$A", *after, *(f"{t}:1" for t in before), "$B:1"]
        + [f"{t}:1" for t in after],
        special_tokens=special,
    )


def _config(parts: TokenizerParts, templates: Mapping[str, str], context: int) -> Json:
    tokens = parts.vocabulary.tokens
    config: Json = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "clean_up_tokenization_spaces": False,
        "model_max_length": context,
        "add_bos_token": bool(parts.prefix),
        "add_eos_token": bool(parts.suffix),
    }
    for name, token_id in (
        ("bos_token", parts.bos_id),
        ("eos_token", parts.eos_id),
        ("unk_token", parts.unknown_id),
        ("pad_token", parts.padding_id),
    ):
        if token_id is not None:
            config[name] = tokens[token_id]
    if set(templates) == {"default"}:
        config["chat_template"] = templates["default"]
    elif templates:
        config["chat_template"] = [
            {"name": name, "template": source} for name, source in templates.items()
        ]
    return config


def _generation(parts: TokenizerParts, generation: Mapping[str, float]) -> Json:
    return {**token_ids(parts), **folder_sampling(generation)}


def _pieces(vocabulary: GGUFVocabulary, parts: TokenizerParts) -> bytes:
    assert vocabulary.scores is not None
    tokens = list(parts.vocabulary.tokens)
    normal = int(TokenType.NORMAL)
    types = [normal] * len(tokens) if vocabulary.types is None else vocabulary.types.tolist()
    scores = vocabulary.scores.tolist()
    pieces = [
        Piece(text, score, kind or normal)
        for text, score, kind in zip(tokens, scores, types, strict=True)
    ]
    ids = (parts.unknown_id, parts.bos_id, parts.eos_id, parts.padding_id)
    return encode_pieces(pieces, ids=ids, prefix=parts.vocabulary.strip_space)
