"""What a `Tokenizer` is made of, whichever file it came from."""

from __future__ import annotations

from dataclasses import dataclass

import tokenizers
from tokenizers import pre_tokenizers

from pocketlm.text.vocabulary import Vocabulary


@dataclass(frozen=True)
class TokenizerParts:
    """Handed from `gguf_tokenizer` or `folder_tokenizer` to `Tokenizer`.

    Attributes:
        backend: text to ids; every added token is known to it, control tokens as special ones.
        vocabulary: ids to bytes.
        eos_ids: every id that ends a turn.
        prefix, suffix: ids put around a text that is encoded with `add_special`.
        continuation: the pre-tokenizer for text that does not start a document, where that
            differs (SentencePiece's space before the first word); else None.
    """

    backend: tokenizers.Tokenizer
    vocabulary: Vocabulary
    bos_id: int | None
    eos_id: int | None
    eos_ids: frozenset[int]
    unknown_id: int | None = None
    padding_id: int | None = None
    prefix: tuple[int, ...] = ()
    suffix: tuple[int, ...] = ()
    continuation: pre_tokenizers.PreTokenizer | None = None
