"""Tokenizers of a few hundred tokens, made as the models' makers made theirs, in HF folders.

Each is written as tokenizer.json and tokenizer_config.json. ``byte_level`` has the whole byte
alphabet, so that every text can be told; ``sentencepiece`` falls back to bytes.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from tokenizers import (
    AddedToken,
    Regex,
    Tokenizer,
    decoders,
    models,
    normalizers,
    pre_tokenizers,
    processors,
)

from pocketlm.text.pretokenizers import pre_tokenizer
from pocketlm.text.vocabulary import byte_alphabet

SPACE = "\u2581"
CONTROL = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
CHATML = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n{{ message['content'] }}"
    "<|im_end|>\n{% endfor %}"
)
_WORDS = ("the", "of", "he", "el", "ll", "ello", "in", "ing", "er", "re", "an", "and", "or")


def _built(known: list[str], words: tuple[str, ...]) -> list[tuple[str, str]]:
    """Merges that build the words from what is known, left to right."""
    merges: list[tuple[str, str]] = []
    for word in words:
        left = word[0]
        for letter in word[1:]:
            if left + letter not in known:
                merges.append((left, letter))
                known.append(left + letter)
            left += letter
    return merges


def byte_level(pre: str = "llama-bpe", *, bos: bool = False, ascii_only: bool = False) -> Tokenizer:
    """Byte-level BPE, cut as GGUF's ``pre`` says; 3 control tokens first, one user's last.

    With ``ascii_only`` it has fewer than 160 tokens and drops what it has no letter for.
    """
    cut = pre_tokenizer(pre)
    letters = [c for c in byte_alphabet() if not ascii_only or c.isascii() or c in "\u0120\u010a"]
    known = [*CONTROL, *letters]
    merges = _built(known, (*_WORDS, "\u0120the", "\u0120an", "\u010a\u010a"))
    vocab = {token: i for i, token in enumerate(known)}
    tokenizer = Tokenizer(models.BPE(vocab, merges, ignore_merges=cut.ignore_merges))
    if (normalizer := cut.normalizer()) is not None:
        tokenizer.normalizer = normalizer
    tokenizer.pre_tokenizer = cut.build()
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens([AddedToken(text, normalized=False) for text in CONTROL])
    tokenizer.add_tokens([AddedToken("<think>", normalized=False)])
    if bos:
        tokenizer.post_processor = processors.TemplateProcessing(
            single="<|im_start|> $A", special_tokens=[("<|im_start|>", 1)]
        )
    return tokenizer


def sentencepiece(kind: str) -> Tokenizer:
    """SentencePiece BPE as "gemma", as "llama" (Llama 2, Mistral) or as "phi3" spell spaces."""
    control = ["<unk>", "<s>", "</s>"]
    if kind == "gemma":
        control = ["<pad>", "<eos>", "<bos>", "<unk>", "<end_of_turn>"]
    known = [*control, *(f"<0x{byte:02X}>" for byte in range(256))]
    letters = [SPACE, *"abcdefghijklmnopqrstuvwxyzHW!,."]
    scratch = letters.copy()
    merges = _built(scratch, (SPACE + "the", SPACE * 2, SPACE + "and", *_WORDS))
    # built tokens first, single letters last, as in the models' own vocabularies
    known += scratch[len(letters) :] + letters
    vocab = {token: i for i, token in enumerate(known)}
    tokenizer = Tokenizer(
        models.BPE(vocab, merges, unk_token="<unk>", fuse_unk=True, byte_fallback=True)
    )
    steps: list[Any] = [decoders.Replace(SPACE, " "), decoders.ByteFallback(), decoders.Fuse()]
    if kind == "gemma":
        tokenizer.normalizer = normalizers.Replace(" ", SPACE)
        tokenizer.pre_tokenizer = pre_tokenizers.Split(" ", "merged_with_previous")
    else:
        if kind == "llama":
            tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(SPACE, "first", split=False)
        else:
            prefix = [normalizers.Prepend(SPACE), normalizers.Replace(" ", SPACE)]
            tokenizer.normalizer = normalizers.Sequence(prefix)
        steps.append(decoders.Strip(" ", 1, 0))
    tokenizer.decoder = decoders.Sequence(steps)
    bos = "<bos>" if kind == "gemma" else "<s>"
    tokenizer.add_special_tokens([AddedToken(text, normalized=False) for text in control])
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{bos} $A", special_tokens=[(bos, vocab[bos])]
    )
    return tokenizer


def odd() -> Tokenizer:
    """A byte-level tokenizer that cuts as no published model does."""
    tokenizer = byte_level()
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(r"\p{Greek}+|\P{Greek}+"), "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    return tokenizer


def write_tokenizer(folder: Path, tokenizer: Tokenizer, **config: Any) -> None:
    """tokenizer.json and tokenizer_config.json, with the tokens that the kind names."""
    folder.mkdir(exist_ok=True)
    tokenizer.save(str(folder / "tokenizer.json"))
    named: dict[str, Any] = {"tokenizer_class": "PreTrainedTokenizerFast"}
    for name, texts in (
        ("bos_token", ("<|im_start|>", "<bos>", "<s>")),
        ("eos_token", ("<|im_end|>", "<eos>", "</s>")),
        ("unk_token", ("<unk>",)),
        ("pad_token", ("<pad>",)),
    ):
        known = [text for text in texts if tokenizer.token_to_id(text) is not None]
        if known:
            named[name] = known[0]
    (folder / "tokenizer_config.json").write_text(json.dumps({**named, **config}))
