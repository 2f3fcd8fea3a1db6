"""What is known of a stored model without loading it: the facts that ``tags`` and ``show`` give.

``show`` opens the weights' header. Nothing in it is trusted: the reader checks every count before
it uses it, and templates run in their sandbox.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from pocketlm.errors import PocketLMError
from pocketlm.serve.generation import ModelFacts
from pocketlm.store import Manifest, StoredModel

_LONGEST_ARRAY = 5
_FILL_TOKENS = {"<|fim_middle|>", "<fim_middle>", "<fim-middle>", "<｜fim▁end｜>"}


@dataclass(frozen=True, kw_only=True)
class Card:
    """What a model's own files say.

    Attributes:
        values: GGUF metadata, or what a folder's configuration comes to.
        tensors: name, type and shape of each.
        template: source of the chat template in the weights.
    """

    values: Mapping[str, Any]
    tensors: list[dict[str, Any]] = field(default_factory=list)
    template: str | None = None

    @property
    def width(self) -> int | None:
        """Length of an embedding."""
        found = self.values.get(f"{self.values.get('general.architecture')}.embedding_length")
        return found if isinstance(found, int) else None


def read_card(model: StoredModel, manifest: Manifest, *, tensors: bool = False) -> Card:
    """Raises ModelFileError where the files break their format."""
    if manifest.facts.format == "gguf":
        return _gguf_card(model, manifest, tensors)
    facts = manifest.facts
    values: dict[str, Any] = {
        "general.architecture": facts.family,
        "general.parameter_count": facts.parameters,
    }
    if facts.context is not None:
        values[f"{facts.family}.context_length"] = facts.context
    from pocketlm.text import folder_templates

    templates = folder_templates(model.path)
    return Card(values=values, template=templates.get("default"))


def _gguf_card(model: StoredModel, manifest: Manifest, tensors: bool) -> Card:
    from pocketlm.gguf import GGUFFile
    from pocketlm.text import gguf_templates

    with GGUFFile.open(model.path) as file:
        values = {name: _plain(value) for name, value in file.metadata.items()}
        values.setdefault("general.parameter_count", manifest.facts.parameters)
        listed = [
            {"name": name, "type": one.type.name, "shape": list(one.shape[::-1])}
            for name, one in (file.tensors.items() if tensors else ())
        ]
        templates = gguf_templates(file.metadata)
    return Card(values=values, tensors=listed, template=templates.get("default"))


def model_info(card: Card, *, verbose: bool) -> dict[str, Any]:
    """The values; long arrays are null unless ``verbose``. Never empty."""
    return {
        name: None if isinstance(value, list) and len(value) > _LONGEST_ARRAY and not verbose
        else value
        for name, value in card.values.items()
        if name != "tokenizer.chat_template"
    }  # fmt: skip


def capabilities(card: Card, template: str | None) -> list[str]:
    """What the model can do, by what its files say; see ``ordered``."""
    from pocketlm.text import ChatTemplate

    found = {"completion", "embedding"}
    try:
        compiled = ChatTemplate(template) if template is not None else None
        if compiled is not None and compiled.supports_tools:
            found.add("tools")
        if compiled is not None and compiled.supports_thinking:
            found.add("thinking")
    except PocketLMError:
        pass  # it will say so itself when it is run
    tokens = card.values.get("tokenizer.ggml.tokens")
    if "tokenizer.ggml.fim_mid_token_id" in card.values or (
        isinstance(tokens, list) and not _FILL_TOKENS.isdisjoint(tokens)
    ):
        found.add("insert")
    return ordered(found)


def ordered(found: set[str] | frozenset[str]) -> list[str]:
    """Capabilities in Ollama's order."""
    known = ("completion", "tools", "insert", "embedding", "thinking")
    return [name for name in known if name in found]


def digest_of(manifest: Manifest) -> str:
    """A hash of what the model is made of, hex: equal for equal models, whatever their names."""
    files = sorted((file.role, file.sha256, file.size) for file in manifest.files)
    return hashlib.sha256(json.dumps(files).encode()).hexdigest()


def details(manifest: Manifest) -> dict[str, Any]:
    """Family, size and quantization, as Ollama calls them."""
    facts = manifest.facts
    made: dict[str, Any] = {
        "parent_model": manifest.source.base or "",
        "format": facts.format,
        "family": facts.family,
        "families": [facts.family],
        "parameter_size": parameter_size(facts.parameters),
        "quantization_level": facts.quantization,
    }
    if facts.context is not None:
        made["context_length"] = facts.context
    return made


def served_details(facts: ModelFacts) -> dict[str, Any]:
    """The same of a loaded model, which need not be in the store."""
    return {
        "parent_model": "",
        "format": "gguf",
        "family": facts.family,
        "families": [facts.family],
        "parameter_size": parameter_size(facts.parameters),
        "quantization_level": facts.quantization,
        "context_length": facts.trained_context,
        "embedding_length": facts.width,
    }


def parameter_size(count: int) -> str:
    """A count as Ollama writes it: 134.52M, 1.2B."""
    for unit, size in (("T", 10**12), ("B", 10**9)):
        if count >= size:
            return f"{count / size:.1f}{unit}"
    if count >= 10**6:
        return f"{count / 10**6:.2f}M"
    return f"{count / 1000:.0f}K" if count >= 1000 else str(count)


def _plain(value: Any) -> Any:
    """A value as JSON has it: arrays are lists; JSON has no NaN and no infinity."""
    if hasattr(value, "tolist"):
        value = value.tolist()
    if isinstance(value, bytes):
        return value.decode(errors="replace")
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return [_plain(one) for one in value] if isinstance(value, list | tuple) else value
