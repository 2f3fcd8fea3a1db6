"""Which name GGUF has for the way a tokenizer.json cuts text into words.

GGUF keeps a name (``tokenizer.ggml.pre``) where tokenizer.json keeps the steps. The steps are
reduced to the facts of ``text/pretokenizers.toml`` and looked up there. Nothing near enough is
taken instead: another cut gives other tokens and a quietly worse model.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pocketlm.errors import UnsupportedError
from pocketlm.text.folder_tokenizer import steps_of
from pocketlm.text.pretokenizers import known_pre_tokenizers, name_of


def pre_name(content: Mapping[str, Any], path: Path) -> str:
    """The name for a byte-level tokenizer.json, given as the parsed object.

    Raises:
        UnsupportedError: no name means what it does; the message says what was found.
    """
    steps = steps_of(content.get("pre_tokenizer"), "pretokenizers")
    normalizers = [step.get("type") for step in steps_of(content.get("normalizer"), "normalizers")]
    cut = _cut(steps)
    name = None
    if cut is not None and normalizers in ([], ["NFC"]):
        digits, splits, gpt2 = cut
        name = name_of(
            splits=splits,
            digits=digits,
            gpt2=gpt2,
            nfc=bool(normalizers),
            ignore_merges=bool(content["model"].get("ignore_merges")),
        )
    if name is None:
        found = [*(f"normalizer {kind}" for kind in normalizers), *map(_told, steps)]
        raise UnsupportedError(
            "GGUF has no name that PocketLM knows for this pre-tokenizer: "
            + ("; ".join(found) or "none")
            + ("; ignore_merges" if content["model"].get("ignore_merges") else ""),
            path=path,
            hint=f"Known: {', '.join(known_pre_tokenizers())}.",
        )
    return name


def _cut(steps: list[dict[str, Any]]) -> tuple[bool, tuple[str, ...], bool] | None:
    """Digits alone, regular expressions, GPT-2's own: what the steps do; None for anything else."""
    if not steps or steps[-1].get("type") != "ByteLevel" or steps[-1].get("add_prefix_space", True):
        return None
    gpt2 = bool(steps[-1].get("use_regex", True))
    first, rest = steps[0], steps[:-1]
    digits = first.get("type") == "Digits" and bool(first.get("individual_digits"))
    splits = [_expression(step) for step in rest[int(digits) :]]
    if None in splits:
        return None
    return digits, tuple(split for split in splits if split is not None), gpt2


def _expression(step: dict[str, Any]) -> str | None:
    """The regular expression of a step whose matches become words, None for another step."""
    pattern = step.get("pattern")
    if step.get("type") != "Split" or not isinstance(pattern, dict):
        return None
    ways = (("Isolated", False), ("Removed", True))  # the same where the expression matches all
    if (step.get("behavior"), bool(step.get("invert"))) not in ways:
        return None
    found = pattern.get("Regex")
    return found if isinstance(found, str) else None


def _told(step: dict[str, Any]) -> str:
    """A step for an error message."""
    more = ", ".join(f"{key} {value!r}" for key, value in step.items() if key != "type")
    text = f"{step.get('type')} ({more})"
    return text if len(text) <= 300 else text[:297] + "..."
