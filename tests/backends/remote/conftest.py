from __future__ import annotations

from collections.abc import Iterator

import pytest

from backends.remote.endpoint import Endpoint, running


@pytest.fixture
def endpoint(monkeypatch: pytest.MonkeyPatch) -> Iterator[Endpoint]:
    """An endpoint, and an environment without the caller's keys."""
    for name in ("AZURE_OPENAI_API_KEY", "AZURE_OPENAI_AD_TOKEN", "POCKETLM_ENDPOINT_KEY"):
        monkeypatch.delenv(name, raising=False)
    with running() as started:
        yield started
