"""What every API of the server works with, made once when it starts."""

from __future__ import annotations

from dataclasses import dataclass, field

from pocketlm.serve.config import ServeConfig
from pocketlm.serve.generation import Fleet
from pocketlm.serve.observe.metrics import Metrics
from pocketlm.store import Store


@dataclass(frozen=True)
class Services:
    """Attributes:
    fleet: the loaded models.
    store: the models on this disk.
    config: how the server was started.
    metrics: what is counted; a ``Watcher`` for the fleet.
    """

    fleet: Fleet
    store: Store
    config: ServeConfig
    metrics: Metrics = field(default_factory=Metrics)
