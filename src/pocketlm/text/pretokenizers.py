"""How byte-level BPE cuts text into words, by the GGUF name of the cut (`tokenizer.ggml.pre`).

The facts are in `pretokenizers.toml`; this module reads them and turns one into the parts that the
`tokenizers` library runs. Used by `gguf_tokenizer`, and the other way round by conversion: a
tokenizer.json says all this itself, and only a GGUF file needs the name.
"""

from __future__ import annotations

import tomllib
from dataclasses import dataclass, replace
from functools import cache
from importlib import resources

from tokenizers import Regex, normalizers, pre_tokenizers

from pocketlm.errors import UnsupportedError


@dataclass(frozen=True)
class PreTokenizer:
    """One entry of the table; the fields are explained at the top of `pretokenizers.toml`."""

    names: tuple[str, ...]
    splits: tuple[str, ...] = ()
    digits: bool = False
    gpt2: bool = False
    nfc: bool = False
    ignore_merges: bool = False
    add_bos: bool = False

    def normalizer(self) -> normalizers.Normalizer | None:
        return normalizers.NFC() if self.nfc else None

    def build(self) -> pre_tokenizers.PreTokenizer:
        """The steps in order, ending with the byte alphabet that every such vocabulary uses."""
        steps: list[pre_tokenizers.PreTokenizer] = []
        if self.digits:
            steps.append(pre_tokenizers.Digits(individual_digits=True))
        steps += [pre_tokenizers.Split(Regex(split), "isolated") for split in self.splits]
        steps.append(pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=self.gpt2))
        return pre_tokenizers.Sequence(steps)


@cache
def _table() -> dict[str, PreTokenizer]:
    text = resources.files(__package__).joinpath("pretokenizers.toml").read_text("utf-8")
    table: dict[str, PreTokenizer] = {}
    for entry in tomllib.loads(text).values():
        lists = {key: tuple(entry.pop(key, ())) for key in ("names", "splits")}
        pre = PreTokenizer(names=lists["names"], splits=lists["splits"], **entry)
        table.update(dict.fromkeys(pre.names, pre))
    return table


def known_pre_tokenizers() -> list[str]:
    """Every `tokenizer.ggml.pre` that can be built, sorted."""
    return sorted(_table())


def pre_tokenizer(name: str) -> PreTokenizer:
    """The entry called `name`.

    Raises:
        UnsupportedError: the name is not in the table. Another cut would give other tokens and a
            quietly worse model, so none is substituted.
    """
    try:
        return _table()[name]
    except KeyError:
        raise UnsupportedError(
            f"the pre-tokenizer '{name}' (tokenizer.ggml.pre) is not one that PocketLM knows",
            hint=f"Known: {', '.join(known_pre_tokenizers())}.",
        ) from None


def name_of(
    *, splits: tuple[str, ...], digits: bool, gpt2: bool, nfc: bool, ignore_merges: bool
) -> str | None:
    """The GGUF name of a tokenizer.json that cuts like this, None when no name means it."""
    wanted = PreTokenizer((), splits, digits, gpt2, nfc, ignore_merges)
    for entry in _table().values():
        if replace(entry, names=(), add_bos=False) == wanted:
            return entry.names[0]
    return None
