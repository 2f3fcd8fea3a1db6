"""Fill in the middle: the prompt of a model that was trained to write what is missing between two
texts (Bavarian et al. 2022), in the order prefix, suffix, middle.

A GGUF file may name the three control tokens (`tokenizer.ggml.fim_pre_token_id`, `fim_suf`,
`fim_mid`); otherwise they are known by their texts.
"""

from __future__ import annotations

from pocketlm.errors import RequestError
from pocketlm.text.tokenizer import Tokenizer

# Texts that stand before the prefix, before the suffix and before what is written.
_KNOWN = (
    ("<|fim_prefix|>", "<|fim_suffix|>", "<|fim_middle|>"),  # Qwen, CodeGemma
    ("<fim_prefix>", "<fim_suffix>", "<fim_middle>"),  # StarCoder
    ("<fim-prefix>", "<fim-suffix>", "<fim-middle>"),  # SantaCoder
    ("<｜fim▁begin｜>", "<｜fim▁hole｜>", "<｜fim▁end｜>"),  # DeepSeek, with its wide bars
)
# What such models end with beside their end-of-turn tokens: the rest of the file is another one's.
_ENDS = ("<|fim_pad|>", "<fim_pad>", "<|file_sep|>", "<file_sep>", "<|repo_name|>")


def fill_tokens(tokenizer: Tokenizer) -> tuple[int, int, int] | None:
    """The ids before the prefix, before the suffix and before the middle; None without them."""
    if tokenizer.fill_ids is not None:
        return tokenizer.fill_ids
    for texts in _KNOWN:
        before, after, middle = (tokenizer.token_id(text) for text in texts)
        if before is not None and after is not None and middle is not None:
            return before, after, middle
    return None


def encode_fill(tokenizer: Tokenizer, prefix: str, suffix: str) -> list[int]:
    """The prompt after which a model writes what stands between two texts.

    Control tokens spelled out in them stay text. Raises RequestError for a model that has no
    tokens for it, and for texts that are not valid Unicode.
    """
    found = fill_tokens(tokenizer)
    if found is None:
        raise RequestError(
            "this model cannot fill in the middle: its vocabulary has no tokens for it",
            hint="Leave the suffix out, or use a model for code such as Qwen2.5-Coder.",
        )
    before, after, middle = found
    start = [tokenizer.bos_id] if tokenizer.adds_bos and tokenizer.bos_id is not None else []
    return start + tokenizer.encode_pieces([before, prefix, after, suffix, middle])


def fill_ends(tokenizer: Tokenizer) -> frozenset[int]:
    """Ids that end what was filled in, beside the end-of-turn tokens: for ``stop_ids``."""
    return frozenset(
        token for text in _ENDS if (token := tokenizer.token_id(text)) is not None
    ).union(fill_tokens(tokenizer) or ())
