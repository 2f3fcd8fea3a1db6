"""A tokenizer built from the metadata of a GGUF file.

The file carries the vocabulary, the merges and a few flags, but neither normalizer nor word
splitting: those are added here as the model's own tokenizer.json has them. Two kinds:

* `tokenizer.ggml.model = gpt2`: byte-level BPE; the word splitting is looked up by name
  (`pretokenizers`);
* `llama` and `gemma4`: SentencePiece-style BPE with byte fallback. `llama` files have no merges;
  they follow from the vocabulary, as transformers' `generate_merges` derives them.

`Tokenizer.from_gguf` is the entry point.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import numpy.typing as npt
import tokenizers
from tokenizers import normalizers, pre_tokenizers

from pocketlm import _native
from pocketlm.errors import ModelFileError, UnsupportedError
from pocketlm.text.encoders import BpeEncoder
from pocketlm.text.gguf_fields import FILL_NAMES, PREFIX, GGUFVocabulary, TokenType, read_vocabulary
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


def is_gemma(file: GGUFVocabulary, architecture: str) -> bool:
    """Whether spaces and implied merges are Gemma's: spelled out, and ranked by token id."""
    return architecture.startswith("gemma") or file.model == "gemma4"


def _byte_level(file: GGUFVocabulary) -> TokenizerParts:
    if file.merges is None:
        raise ModelFileError(f"{PREFIX}merges is missing: a gpt2 tokenizer needs its merges")
    pre = pre_tokenizer(file.pre)
    control, added = _added_ids(file)
    bpe = _bpe(file, file.tokens, control, ignore_merges=pre.ignore_merges)
    encoder = BpeEncoder(bpe, _texts(file.tokens, added), control, pre.normalizer(), pre.build())
    vocabulary = Vocabulary(bpe, control, added, "byte_level")
    return _assemble(file, encoder, vocabulary, default_bos=pre.add_bos)


def _sentencepiece(file: GGUFVocabulary, architecture: str) -> TokenizerParts:
    gemma = is_gemma(file, architecture)
    tokens = file.tokens
    if gemma:
        # Runs of spaces are stored as spaces in the file; the model's own files say U+2581.
        tokens = [
            token.replace(" ", _SPACE) if " " in token and token.isspace() else token
            for token in tokens
        ]
    control, added = _added_ids(file)
    order = None
    if file.merges is None and not gemma:
        if file.scores is None:
            raise ModelFileError(f"{PREFIX}scores is missing: a llama tokenizer needs its scores")
        order = np.unique(-file.scores, return_inverse=True)[1].astype(np.uint32)
    bpe = _bpe(file, tokens, control, order, unknown=file.ids.get("unknown", 0))
    prefix = not gemma and file.add_space_prefix is not False
    normalizer, cut, continuation = _space_rules(
        file, gemma=gemma, prefix=prefix, architecture=architecture
    )
    encoder = BpeEncoder(bpe, _texts(tokens, added), control, normalizer, cut, continuation)
    vocabulary = Vocabulary(bpe, control, added, "sentencepiece", strip_space=prefix)
    return _assemble(file, encoder, vocabulary, default_bos=file.model == "llama")


def _bpe(
    file: GGUFVocabulary,
    tokens: list[str],
    control: frozenset[int],
    order: npt.NDArray[np.uint32] | None = None,
    *,
    ignore_merges: bool = False,
    unknown: int | None = None,
) -> _native.Bpe:
    """The core's table; with an unknown token there is byte fallback too. Merges that would build
    a control token out of plain text are left out."""
    try:
        return _native.Bpe(
            tokens,
            np.array(sorted(control), np.int32),
            file.merges,
            order,
            ignore_merges,
            unknown is not None,
            -1 if unknown is None else unknown,
        )
    except ModelFileError as error:
        raise ModelFileError(f"{PREFIX}{error.message}") from None
    except UnicodeEncodeError as error:
        raise ModelFileError(f"{PREFIX}tokens or merges are not valid Unicode: {error}") from error


def _space_rules(
    file: GGUFVocabulary, *, gemma: bool, prefix: bool, architecture: str
) -> tuple[
    normalizers.Normalizer | None,
    pre_tokenizers.PreTokenizer | None,
    pre_tokenizers.PreTokenizer | None,
]:
    """How spaces are spelled: the normalizer, the cut, and what replaces it inside a text."""
    steps: list[normalizers.Normalizer] = []
    cut: pre_tokenizers.PreTokenizer | None = None
    if file.remove_extra_whitespaces:
        steps += [
            normalizers.Strip(),
            normalizers.Replace(tokenizers.Regex(" {2,}"), " "),
        ]
    continuation = None
    if gemma:
        steps.append(normalizers.Replace(" ", _SPACE))
        cut = pre_tokenizers.Split(" ", "merged_with_previous")
    elif architecture == "phi3" and prefix:
        # Phi-3's tokenizer.json puts the space before every stretch of text, not only the first.
        steps += [normalizers.Prepend(_SPACE), normalizers.Replace(" ", _SPACE)]
    else:
        scheme = "first" if prefix else "never"
        if prefix and file.remove_extra_whitespaces:
            scheme = "always"  # "first" looks at the place in the text as it was before trimming
        cut = pre_tokenizers.Metaspace(_SPACE, scheme, split=False)
        if scheme == "first":
            continuation = pre_tokenizers.Metaspace(_SPACE, "never", split=False)
    return normalizers.Sequence(steps) if steps else None, cut, continuation


def _added_ids(file: GGUFVocabulary) -> tuple[frozenset[int], frozenset[int]]:
    """The control ids, and all ids that are matched whole before the merges run."""
    if file.types is None:  # very old files: only what the id keys name, if it looks the part
        control = frozenset(
            i for i in file.ids.values() if file.tokens[i][0] in "<[" and file.tokens[i][-1] in ">]"
        )
        return control, control
    steering = np.isin(file.types, (TokenType.CONTROL, TokenType.UNKNOWN))
    matched = steering | (file.types == TokenType.USER_DEFINED)
    return frozenset(np.flatnonzero(steering).tolist()), frozenset(np.flatnonzero(matched).tolist())


def _texts(tokens: list[str], added: frozenset[int]) -> list[tuple[int, str]]:
    return [(i, tokens[i]) for i in sorted(added)]


def _assemble(
    file: GGUFVocabulary,
    encoder: BpeEncoder,
    vocabulary: Vocabulary,
    *,
    default_bos: bool,
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
    fill = [file.ids[name] for name in FILL_NAMES if name in file.ids]
    return TokenizerParts(
        encoder=encoder,
        vocabulary=vocabulary,
        bos_id=bos,
        eos_id=eos,
        eos_ids=frozenset(ends if eos is None else ends | {eos}),
        unknown_id=file.ids.get("unknown"),
        padding_id=file.ids.get("padding"),
        prefix=(bos,) if add_bos and bos is not None else (),
        suffix=(eos,) if file.add_eos and eos is not None else (),
        fill_ids=(fill[0], fill[1], fill[2]) if len(fill) == 3 else None,
    )


def _default_id(vocabulary: Vocabulary, found: int | None, default: int) -> int | None:
    if found is not None:
        return found
    return default if default in vocabulary.control else None
