"""What a worker is told to open: plain facts, made by the front process."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True, kw_only=True)
class Order:
    """Attributes:
    name: what the model is called.
    path: the file, or the folder of safetensors.
    digest, quantization: as the store knows them; "" where it does not.
    engine: fields of ``EngineOptions``.
    setup: fields of ``store.Setup``, what the model's maker put beside the weights.
    """

    name: str
    path: str
    digest: str = ""
    quantization: str = ""
    engine: Mapping[str, Any] = field(default_factory=dict)
    setup: Mapping[str, Any] = field(default_factory=dict)
