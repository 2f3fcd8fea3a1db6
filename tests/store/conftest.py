"""Fixtures of the store's tests: a server on this machine, a store in a temporary folder."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from local_server import QUICK, LocalServer

from pocketlm.store import Store


@pytest.fixture
def server() -> Iterator[LocalServer]:
    with LocalServer() as server:
        yield server


@pytest.fixture
def elsewhere() -> Iterator[LocalServer]:
    """A second host, which in the eyes of a client another port is."""
    with LocalServer() as server:
        yield server


@pytest.fixture(autouse=True)
def sources_on_this_machine(
    server: LocalServer, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Every source points at the local server, and nothing of the user's settings is read."""
    for name in list(os.environ):
        if name.startswith("PIP_") or name.lower().endswith("_proxy") or name == "NETRC":
            monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    monkeypatch.setenv("PIP_INDEX_URL", f"{server.url}/simple")
    monkeypatch.setenv("HF_ENDPOINT", server.url)
    monkeypatch.setenv("POCKETLM_OLLAMA_REGISTRY", server.url)
    import huggingface_hub.constants

    # The client takes this path from the environment when it is imported, which is before now.
    monkeypatch.setattr(huggingface_hub.constants, "HF_TOKEN_PATH", str(tmp_path / "hf-token"))


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "home", patience=QUICK)
