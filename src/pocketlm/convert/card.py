"""What the makers say of a model: the head of README.md as ``general.*`` keys of GGUF.

A model card opens with a block of YAML between two lines of ``---``. Only its plain part is read:
``key: text``, ``key: [a, b]`` and ``key:`` followed by ``- items``; nested mappings (evaluation
results) are passed over. Key names: the GGUF specification.
"""

from __future__ import annotations

import re
from pathlib import Path

from pocketlm.gguf import Value

_MAX_CARD = 4 << 20
_KEY = re.compile(r"([A-Za-z_][\w-]*):(?:\s+(.*))?")
_HUB = "https://huggingface.co/"

Card = dict[str, list[str]]


def read_card(folder: Path) -> Card:
    """Key to its texts, one or several; empty where there is no card, or none that can be read."""
    path = folder / "README.md"
    if not path.is_file() or path.stat().st_size > _MAX_CARD:
        return {}
    lines = path.read_text("utf-8", errors="replace").splitlines()
    if not lines or lines[0].strip() != "---":
        return {}
    card: Card = {}
    key = ""
    for line in lines[1:]:
        if line.strip() == "---":
            return card
        if match := _KEY.fullmatch(line.rstrip()):
            key = match[1]
            card[key] = _values(match[2] or "")
        elif key and re.match(r"\s*- ", line) and not _KEY.fullmatch(line.strip(" -")):
            card[key].append(_unquoted(line.strip().removeprefix("- ")))
    return {}  # never closed: not a head


def _values(text: str) -> list[str]:
    text = text.strip()
    if text.startswith("[") and text.endswith("]"):
        return [value for part in text[1:-1].split(",") if (value := _unquoted(part))]
    value = _unquoted(text)
    return [value] if value else []


def _unquoted(text: str) -> str:
    text = text.strip()
    if len(text) >= 2 and text[0] == text[-1] and text[0] in "'\"":
        return text[1:-1]
    text = re.sub(r"\s+#.*", "", text)
    return "" if text in ("|", ">", "null", "~") else text


def card_metadata(card: Card) -> dict[str, Value]:
    """The card's licence, languages, tags, base models and datasets under GGUF's keys."""
    metadata: dict[str, Value] = {}
    for key, ours in (
        ("license", "general.license"),
        ("license_name", "general.license.name"),
        ("license_link", "general.license.link"),
    ):
        if card.get(key):
            metadata[ours] = card[key][0]
    tags = list(dict.fromkeys([*card.get("tags", []), *card.get("pipeline_tag", [])]))
    if tags:
        metadata["general.tags"] = tags
    if card.get("language"):
        metadata["general.languages"] = card["language"]
    for key, ours, place in (
        ("base_model", "general.base_model", _HUB),
        ("datasets", "general.dataset", f"{_HUB}datasets/"),
    ):
        metadata |= _repositories(card.get(key, []), ours, place)
    return metadata


def _repositories(names: list[str], key: str, place: str) -> dict[str, Value]:
    metadata: dict[str, Value] = {f"{key}.count": len(names)} if names else {}
    for number, full in enumerate(names):
        organization, slash, name = full.rpartition("/")
        metadata[f"{key}.{number}.name"] = name
        if slash:
            metadata[f"{key}.{number}.organization"] = organization
            metadata[f"{key}.{number}.repo_url"] = place + full
    return metadata
