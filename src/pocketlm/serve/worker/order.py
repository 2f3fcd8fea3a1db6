"""What a worker is told to open: plain facts, made by the front process."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True, kw_only=True)
class Order:
    """Attributes:
    name: what the model is called.
    path: the file, or the folder of safetensors.
    digest, quantization: as the store knows them; "" where it does not.
    engine: fields of ``EngineOptions``.
    system: a system message for conversations that have none.
    template: a jinja2 chat template in the place of the file's.
    messages: that every conversation begins with.
    options: of sampling, for requests that do not give them.
    """

    name: str
    path: str
    digest: str = ""
    quantization: str = ""
    engine: Mapping[str, Any] = field(default_factory=dict)
    system: str | None = None
    template: str | None = None
    messages: Sequence[Mapping[str, Any]] = ()
    options: Mapping[str, Any] = field(default_factory=dict)
