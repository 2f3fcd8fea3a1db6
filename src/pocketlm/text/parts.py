"""What a `Tokenizer` is made of, whichever file it came from."""

from __future__ import annotations

from dataclasses import dataclass

from pocketlm.text.encoders import Encoder
from pocketlm.text.vocabulary import Vocabulary


@dataclass(frozen=True)
class TokenizerParts:
    """Handed from `gguf_tokenizer` or `folder_tokenizer` to `Tokenizer`.

    Attributes:
        encoder: text to ids.
        vocabulary: ids to bytes.
        eos_ids: every id that ends a turn.
        prefix, suffix: ids put around a text that is encoded with `add_special`.
        fill_ids: control ids before prefix, suffix and middle of a text with a gap, if it says so.
    """

    encoder: Encoder
    vocabulary: Vocabulary
    bos_id: int | None
    eos_id: int | None
    eos_ids: frozenset[int]
    unknown_id: int | None = None
    padding_id: int | None = None
    prefix: tuple[int, ...] = ()
    suffix: tuple[int, ...] = ()
    fill_ids: tuple[int, int, int] | None = None
