"""A server on a scripted fleet, with keys of its own."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient
from tests.serve.scripted import FACTS, ScriptedFleet

from pocketlm.serve.app import make_app
from pocketlm.serve.config import ServeConfig
from pocketlm.serve.guard.keys import KeyFile, make_key
from pocketlm.serve.services import Services
from pocketlm.store import Store

MESSAGE = {"model": "tiny", "max_tokens": 8, "messages": [{"role": "user", "content": "Hi"}]}


class Site:
    """The server, its client, and a way to make keys."""

    def __init__(self, home: Path, **options: Any) -> None:
        self.fleet = ScriptedFleet(names={"tiny:latest": FACTS, "other:1b": FACTS})
        self.store = Store(home)
        self.keys = KeyFile(home, self.store.shelf.locks)
        self.services = Services(self.fleet, self.store, ServeConfig(**options))
        self.app = make_app(self.services)
        self.client = TestClient(
            self.app, base_url="http://127.0.0.1:11435", raise_server_exceptions=False
        )

    def key(self, name: str = "test", **limits: Any) -> dict[str, str]:
        """A new key, as headers."""
        key, text = make_key(name, **limits)
        self.keys.add(key)
        return {"Authorization": f"Bearer {text}"}

    def refused(self) -> dict[str, float]:
        """How many requests were refused for which reason."""
        families = self.services.metrics.registry.collect()
        return {
            sample.labels["reason"]: sample.value
            for family in families
            if family.name == "pocketlm_requests_refused"
            for sample in family.samples
            if sample.name.endswith("_total")
        }


@pytest.fixture
def make_site(tmp_path: Path) -> Callable[..., Site]:
    return lambda **options: Site(tmp_path / "home", **options)


@pytest.fixture
def site(make_site: Callable[..., Site]) -> Site:
    return make_site()
