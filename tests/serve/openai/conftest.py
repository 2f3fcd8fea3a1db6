"""What the tests of the OpenAI API share."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from tests.serve.openai.clients import client


@pytest.fixture(scope="module", autouse=True)
def _closed(server: tuple[object, str]) -> Iterator[None]:
    yield
    client(server[1]).close()
    client.cache_clear()
