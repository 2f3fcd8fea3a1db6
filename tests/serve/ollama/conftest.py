"""A store with a tiny model, a registry on loopback, and Ollama's own client."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import ollama
import pytest
from tests.serve.ollama.registry import Registry
from tests.serve.scripted import ScriptedFleet

from engine.tiny_file import write_tiny_model
from pocketlm.store import Store


@pytest.fixture(scope="session")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny_model(tmp_path_factory.mktemp("weights") / "tiny.gguf")


@pytest.fixture
def store(tmp_path: Path, weights: Path) -> Store:
    """Where the server's store is; it holds ``tiny:latest``."""
    store = Store(tmp_path)
    store.import_path(weights, "tiny", copy=True)
    return store


@pytest.fixture
def fleet() -> ScriptedFleet:
    return ScriptedFleet()


@pytest.fixture
def url(serve: Callable[..., str], fleet: ScriptedFleet) -> str:
    return serve(fleet, registries=("127.0.0.1",))


@pytest.fixture
def connect() -> Iterator[Callable[[str], ollama.Client]]:
    """Clients of a URL, closed after the test."""
    with ExitStack() as opened:
        yield lambda url: opened.enter_context(ollama.Client(host=url))


@pytest.fixture
def client(url: str, connect: Callable[[str], ollama.Client]) -> ollama.Client:
    return connect(url)


@pytest.fixture
def registry(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Registry]:
    """Ollama's registry, as far as this process knows."""
    monkeypatch.setenv("HOME", str(tmp_path))
    for name in list(os.environ):
        if name.lower().endswith("_proxy"):
            monkeypatch.delenv(name)
    with Registry() as registry:
        monkeypatch.setenv("POCKETLM_OLLAMA_REGISTRY", registry.url)
        yield registry
