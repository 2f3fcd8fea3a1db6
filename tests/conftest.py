"""Fixtures of all tests: no network, a store of their own, the real models where they are here."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from pocketlm.settings import Settings

if TYPE_CHECKING:
    from store.local_server import LocalServer

# The real models live in the user's store, which the tests read but never write.
USER_SETTINGS = Settings.from_environment()


@pytest.fixture(autouse=True)
def clean_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Each test gets an empty store and none of the caller's settings."""
    for name in list(os.environ):
        if name.startswith(("POCKETLM_", "HF_", "OLLAMA_")) and name != "POCKETLM_ISA":
            monkeypatch.delenv(name)
    monkeypatch.setenv("POCKETLM_HOME", str(tmp_path / "home"))


@pytest.fixture(autouse=True)
def loopback_only(monkeypatch: pytest.MonkeyPatch) -> None:
    """A test that reaches beyond this machine fails."""
    connect = socket.socket.connect

    def guarded(self: socket.socket, address: object) -> None:
        host = address[0] if isinstance(address, tuple) else None
        if host is not None and host not in ("127.0.0.1", "::1", "localhost"):
            raise AssertionError(f"a test tried to reach {host}")
        connect(self, address)  # type: ignore[arg-type]

    monkeypatch.setattr(socket.socket, "connect", guarded)


@pytest.fixture
def local_hub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[LocalServer]:
    """A server that is the hub; ``store.local_server.hub_repo`` puts repositories on it."""
    from store.local_server import LocalServer

    for name in [name for name in os.environ if name.lower().endswith("_proxy")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(tmp_path))
    import huggingface_hub.constants

    # The client takes this path from the environment when it is imported, which is before now.
    monkeypatch.setattr(huggingface_hub.constants, "HF_TOKEN_PATH", str(tmp_path / "hf-token"))
    with LocalServer() as server:
        monkeypatch.setenv("HF_ENDPOINT", server.url)
        yield server


@pytest.fixture(scope="session")
def real_model() -> Callable[[str], Path]:
    """``real_model("smollm2:135m")``: the weights file from the user's store, or a skip."""

    def find(name: str) -> Path:
        from pocketlm.errors import NotFoundError
        from pocketlm.store import Store

        try:
            return Store(USER_SETTINGS.home).resolve(name).path
        except NotFoundError:
            pytest.skip(
                f"{name} is not in {USER_SETTINGS.home}; 'pocketlm pull {name}' puts it there"
            )

    return find
