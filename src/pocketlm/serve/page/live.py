"""One sample of what the server is doing, for the charts of the page."""

from __future__ import annotations

import time
from typing import Any

from pocketlm.serve.services import Services


def sample(services: Services) -> dict[str, Any]:
    """Requests and memory now, and tokens so far of all models that are loaded.

    ``time`` is seconds of a clock that only goes forward, ``kv_usage`` a part of 1, of the KV
    caches of all models together.
    """
    loaded = services.fleet.loaded()
    positions = sum(one.kv_tokens for one in loaded)
    return {
        "time": time.monotonic(),
        "running": sum(one.running for one in loaded),
        "waiting": sum(one.waiting for one in loaded),
        "prompt_tokens": sum(one.prompt_tokens for one in loaded),
        "output_tokens": sum(one.output_tokens for one in loaded),
        "memory": sum(one.memory for one in loaded),
        "kv_usage": sum(one.kv_used for one in loaded) / positions if positions else 0.0,
        "models": [
            {
                "name": one.facts.name,
                "running": one.running,
                "waiting": one.waiting,
                "memory": one.memory,
            }
            for one in loaded
        ],
    }
