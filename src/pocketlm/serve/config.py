"""How a server is set up: the options of ``pocketlm serve`` as plain facts."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from pocketlm.engine.options import EngineOptions

DEFAULT_PORT = 11435


@dataclass(frozen=True, kw_only=True)
class ServeConfig:
    """Attributes:
    host, port: where it listens. Port 0 is any free one.
    models: refs that are loaded at the start and stay; the first answers for requests that name
        no model.
    engine: how models are run.
    memory: bytes that all loaded models may take; None is what the machine has left.
    keep_alive: seconds that a model stays loaded after its last request; negative is for ever.
    queue: requests that may wait for one model; more are refused.
    drain: seconds that requests under way have to end once the server is told to stop.
    max_body: bytes of a request. max_messages: of a conversation. max_seconds: of one answer.
    strict: unknown parameters are refused instead of listed in a header.
    aliases: other names of models.
    insecure: serve other machines without keys.
    hosts, origins: further ones that requests may name.
    registries: hosts that models may be pulled from; empty is those of the built-in sources.
    tls_cert, tls_key: PEM files.
    log_json: logs as JSON lines.
    """

    host: str = "127.0.0.1"
    port: int = DEFAULT_PORT
    models: tuple[str, ...] = ()
    engine: EngineOptions = field(default_factory=lambda: EngineOptions(sequences=16))
    memory: int | None = None
    keep_alive: float = 300.0
    queue: int = 512
    drain: float = 30.0
    max_body: int = 16 << 20
    max_messages: int = 2048
    max_seconds: float = 3600.0
    strict: bool = False
    aliases: Mapping[str, str] = field(default_factory=dict)
    insecure: bool = False
    hosts: tuple[str, ...] = ()
    origins: tuple[str, ...] = ()
    registries: tuple[str, ...] = ()
    tls_cert: Path | None = None
    tls_key: Path | None = None
    log_json: bool = False
