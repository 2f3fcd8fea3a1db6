"""One sample of what the server is doing, for the charts of the page."""

from __future__ import annotations

import time
from typing import Any

from pocketlm.serve.services import Services


def sample(services: Services) -> dict[str, Any]:
    """Requests and memory now; ``time`` is seconds of a clock that only goes forward."""
    loaded = services.fleet.loaded()
    return {
        "time": time.monotonic(),
        "running": sum(one.running for one in loaded),
        "waiting": sum(one.waiting for one in loaded),
        "memory": sum(one.memory for one in loaded),
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
