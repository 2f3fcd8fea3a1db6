"""A tokenizer built from the metadata of a GGUF file.

The file carries the vocabulary, the merges and a few flags, but neither normalizer, word splitting
nor decoder: those are added here as the model's own tokenizer.json has them. Two kinds:

* `tokenizer.ggml.model = gpt2`: byte-level BPE; the word splitting is looked up by name
  (`pretokenizers`);
* `llama` and `gemma4`: SentencePiece-style BPE with byte fallback. `llama` files have no merges;
  they follow from the vocabulary, as transformers' `generate_merges` derives them.

`Tokenizer.from_gguf` is the entry point.
"""

from __future__ import annotations

from collections.abc import Mapping
from operator import itemgetter
from typing import cast

import tokenizers
from tokenizers import AddedToken, models, normalizers, pre_tokenizers

from pocketlm.errors import ModelFileError, UnsupportedError
from pocketlm.text.backend import build_guard
from pocketlm.text.gguf_fields import (
    MAX_PIECE_CHARS,
    PREFIX,
    GGUFVocabulary,
    TokenType,
    read_vocabulary,
)
from pocketlm.text.parts import TokenizerParts
from pocketlm.text.pretokenizers import pre_tokenizer
from pocketlm.text.vocabulary import Vocabulary, end_of_turn_texts

_SPACE = "\u2581"


def tokenizer_parts(metadata: Mapping[str, object], architecture: str) -> TokenizerParts:
    """Everything `Tokenizer` is made of, from GGUF metadata.

    Args:
        metadata: the file's key-value pairs.
        architecture: `general.architecture`; Gemma and Phi-3 spell spaces their own way.

    Raises:
        ModelFileError: a tokenizer key breaks the format; the message names it.
        UnsupportedError: a tokenizer model or pre-tokenizer that PocketLM does not know.
    """
    file = read_vocabulary(metadata)
    if file.model == "gpt2":
        return _byte_level(file)
    if file.model in ("llama", "gemma4"):
        if metadata.get(f"{PREFIX}precompiled_charsmap") is not None:
            raise UnsupportedError(f"{PREFIX}precompiled_charsmap is set: not supported yet")
        return _sentencepiece(file, architecture)
    raise UnsupportedError(
        f"the tokenizer model '{file.model}' (tokenizer.ggml.model) is not supported",
        hint="Supported: gpt2 (byte-level BPE), llama and gemma4 (SentencePiece BPE).",
    )


def _byte_level(file: GGUFVocabulary) -> TokenizerParts:
    if file.merges is None:
        raise ModelFileError(f"{PREFIX}merges is missing: a gpt2 tokenizer needs its merges")
    pre = pre_tokenizer(file.pre)
    control, added = _added_ids(file)
    merges = _given_merges(file.merges, {file.tokens[i] for i in control})
    vocab = dict(zip(file.tokens, range(len(file.tokens)), strict=True))
    with build_guard(f"{PREFIX}merges"):
        bpe = models.BPE(vocab, merges, ignore_merges=pre.ignore_merges)
        backend = tokenizers.Tokenizer(bpe)
    if (normalizer := pre.normalizer()) is not None:
        backend.normalizer = normalizer
    backend.pre_tokenizer = pre.build()
    _add_tokens(backend, file.tokens, control, added)
    vocabulary = Vocabulary(file.tokens, control, added, "byte_level")
    return _assemble(file, backend, vocabulary, default_bos=pre.add_bos)


def _sentencepiece(file: GGUFVocabulary, architecture: str) -> TokenizerParts:
    gemma = architecture.startswith("gemma") or file.model == "gemma4"
    tokens = file.tokens
    if gemma:
        # Runs of spaces are stored as spaces in the file; the model's own files say U+2581.
        tokens = [
            token.replace(" ", _SPACE) if " " in token and token.isspace() else token
            for token in tokens
        ]
    control, added = _added_ids(file)
    texts = {tokens[i] for i in control}
    merges = (
        _given_merges(file.merges, texts)
        if file.merges is not None
        else _derived_merges(tokens, file.scores, control, by_index=gemma)
    )
    unknown = file.ids.get("unknown", 0)
    vocab = dict(zip(tokens, range(len(tokens)), strict=True))
    with build_guard(f"{PREFIX}merges"):
        bpe = models.BPE(
            vocab, merges, unk_token=tokens[unknown], fuse_unk=True, byte_fallback=True
        )
        backend = tokenizers.Tokenizer(bpe)
    prefix = not gemma and file.add_space_prefix is not False
    continuation = _set_space_rules(backend, file, gemma=gemma, prefix=prefix, arch=architecture)
    _add_tokens(backend, tokens, control, added)
    vocabulary = Vocabulary(tokens, control, added, "sentencepiece", strip_space=prefix)
    return _assemble(
        file, backend, vocabulary, default_bos=file.model == "llama", continuation=continuation
    )


def _set_space_rules(
    backend: tokenizers.Tokenizer, file: GGUFVocabulary, *, gemma: bool, prefix: bool, arch: str
) -> pre_tokenizers.PreTokenizer | None:
    """Set how spaces are spelled; returns what replaces the pre-tokenizer inside a text."""
    steps: list[normalizers.Normalizer] = []
    if file.remove_extra_whitespaces:
        steps += [
            normalizers.Strip(),
            normalizers.Replace(tokenizers.Regex(" {2,}"), " "),
        ]
    continuation = None
    if gemma:
        steps.append(normalizers.Replace(" ", _SPACE))
        backend.pre_tokenizer = pre_tokenizers.Split(" ", "merged_with_previous")
    elif arch == "phi3" and prefix:
        # Phi-3's tokenizer.json puts the space before every stretch of text, not only the first.
        steps += [normalizers.Prepend(_SPACE), normalizers.Replace(" ", _SPACE)]
    else:
        scheme = "first" if prefix else "never"
        if prefix and file.remove_extra_whitespaces:
            scheme = "always"  # "first" looks at the place in the text as it was before trimming
        backend.pre_tokenizer = pre_tokenizers.Metaspace(_SPACE, scheme, split=False)
        if scheme == "first":
            continuation = pre_tokenizers.Metaspace(_SPACE, "never", split=False)
    if steps:
        backend.normalizer = normalizers.Sequence(steps)
    return continuation


def _given_merges(lines: list[str], control: set[str]) -> list[tuple[str, str]]:
    """The file's merges, without any that would build a control token out of plain text."""
    building = {f"{text[:cut]} {text[cut:]}" for text in control for cut in range(1, len(text))}
    if not building.isdisjoint(lines):
        lines = [line for line in lines if line not in building]
    pairs = [tuple(line.split(" ")) for line in lines]
    if not set(map(len, pairs)) <= {2}:
        at = next(i for i, pair in enumerate(pairs) if len(pair) != 2)
        raise ModelFileError(
            f"{PREFIX}merges[{at}] should be two tokens with one space between them, "
            f"found {lines[at][:80]!r}"
        )
    return cast(list[tuple[str, str]], pairs)


def _derived_merges(
    tokens: list[str], scores: list[float] | None, control: frozenset[int], *, by_index: bool
) -> list[tuple[str, str]]:
    """Merges that a SentencePiece BPE vocabulary implies: every way to cut a token in two tokens.

    Their rank is that of the token they build. Gemma's tokenizer.json ranks by index, shorter left
    half first; Llama's by score, highest first, longer left half first (transformers'
    `generate_merges` without and with scores). Control tokens are not built by merges.
    """
    longest = max(tokens, key=len)
    if len(longest) > MAX_PIECE_CHARS:
        at = tokens.index(longest)
        raise ModelFileError(
            f"{PREFIX}tokens[{at}] has {len(longest):,} characters; "
            f"a SentencePiece token has at most {MAX_PIECE_CHARS}"
        )
    known = dict(zip(tokens, tokens, strict=True))  # so that halves are the tokens' own strings
    cuts = [range(1, length) for length in range(len(longest) + 1)]
    pieces = [token for i, token in enumerate(tokens) if i not in control]
    if by_index:
        return [
            (left, right)
            for piece in pieces
            for cut in cuts[len(piece)]
            if (left := known.get(piece[:cut])) and (right := known.get(piece[cut:]))
        ]
    if scores is None:
        raise ModelFileError(f"{PREFIX}scores is missing: a llama tokenizer needs its scores")
    rank = [score for i, score in enumerate(scores) if i not in control]
    ranked = [
        (score, cut, len(piece) - cut, left, right)
        for piece, score in zip(pieces, rank, strict=True)
        for cut in cuts[len(piece)]
        if (left := known.get(piece[:cut])) and (right := known.get(piece[cut:]))
    ]
    ranked.sort(key=itemgetter(0, 1, 2), reverse=True)
    return [(left, right) for _, _, _, left, right in ranked]


def _added_ids(file: GGUFVocabulary) -> tuple[frozenset[int], frozenset[int]]:
    """The control ids, and all ids that are matched whole before the merges run."""
    if file.types is None:  # very old files: only what the id keys name, if it looks the part
        control = frozenset(
            i for i in file.ids.values() if file.tokens[i][0] in "<[" and file.tokens[i][-1] in ">]"
        )
        return control, control
    steering = (TokenType.CONTROL, TokenType.UNKNOWN)
    control = frozenset(i for i, kind in enumerate(file.types) if kind in steering)
    user = frozenset(i for i, kind in enumerate(file.types) if kind == TokenType.USER_DEFINED)
    return control, control | user


def _add_tokens(
    backend: tokenizers.Tokenizer,
    tokens: list[str],
    control: frozenset[int],
    added: frozenset[int],
) -> None:
    backend.add_special_tokens(
        [AddedToken(tokens[i], special=True, normalized=False) for i in sorted(control)]
    )
    backend.add_tokens(
        [AddedToken(tokens[i], special=False, normalized=False) for i in sorted(added - control)]
    )


def _assemble(
    file: GGUFVocabulary,
    backend: tokenizers.Tokenizer,
    vocabulary: Vocabulary,
    *,
    default_bos: bool,
    continuation: pre_tokenizers.PreTokenizer | None = None,
) -> TokenizerParts:
    bos, eos = file.ids.get("bos"), file.ids.get("eos")
    if file.model == "llama":  # sentencepiece's own defaults, for files that name neither
        bos, eos = _default_id(vocabulary, bos, 1), _default_id(vocabulary, eos, 2)
    for flag, token_id, name in ((file.add_bos, bos, "bos"), (file.add_eos, eos, "eos")):
        if flag and token_id is None:
            raise ModelFileError(f"{PREFIX}add_{name}_token is true, but there is no {name} id")
    add_bos = default_bos if file.add_bos is None else file.add_bos
    if file.model == "gemma4":
        add_bos = False  # its chat template writes <bos>; the published tokenizer adds none
    texts = end_of_turn_texts()
    ends = {i for i in vocabulary.control if vocabulary.tokens[i] in texts}
    ends |= {file.ids[name] for name in ("eot", "eom") if name in file.ids}
    return TokenizerParts(
        backend=backend,
        vocabulary=vocabulary,
        bos_id=bos,
        eos_id=eos,
        eos_ids=frozenset(ends if eos is None else ends | {eos}),
        unknown_id=file.ids.get("unknown"),
        padding_id=file.ids.get("padding"),
        prefix=(bos,) if add_bos and bos is not None else (),
        suffix=(eos,) if file.add_eos and eos is not None else (),
        continuation=continuation,
    )


def _default_id(vocabulary: Vocabulary, found: int | None, default: int) -> int | None:
    if found is not None:
        return found
    return default if default in vocabulary.control else None
