"""Embeddings as the official client drives them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import pytest
from tests.serve.openai.clients import client, post
from tests.serve.scripted import ScriptedFleet, ScriptedModel

from pocketlm.serve.generation import Embeddings

Serve = Callable[..., str]


@pytest.fixture(autouse=True)
def _vectors(monkeypatch: pytest.MonkeyPatch) -> None:
    async def embed(
        self: ScriptedModel, inputs: Sequence[str | Sequence[int]], *, truncate: bool = False
    ) -> Embeddings:
        sizes = [len(one) for one in inputs]
        return Embeddings(vectors=[[0.5, 0.5, -0.5, n / 2] for n in sizes], tokens=sizes)

    monkeypatch.setattr(ScriptedModel, "embed", embed)


@pytest.mark.parametrize(
    ("given", "sizes"),
    [("ab", [2]), (["a", "bcd"], [1, 3]), ([1, 2], [2]), ([[1], [2, 3, 4]], [1, 3])],
)
@pytest.mark.parametrize("form", ["float", "base64", None])
def test_vectors_of_texts_and_tokens(
    serve: Serve, given: Any, sizes: list[int], form: str | None
) -> None:
    more: dict[str, Any] = {} if form is None else {"encoding_format": form}
    url = serve(ScriptedFleet())
    if form == "base64":
        raw = post(url, "/v1/embeddings", {"model": "tiny", "input": given, **more}).json()
        assert raw["data"][0]["embedding"].startswith("AAAAPwAAAD8AAAC/")
    else:
        found = client(url).embeddings.create(model="tiny", input=given, **more)
        assert [one.embedding for one in found.data] == [[0.5, 0.5, -0.5, n / 2] for n in sizes]
        assert found.usage.prompt_tokens == sum(sizes)


def test_dimensions_are_cut_and_normed(serve: Serve) -> None:
    url = serve(ScriptedFleet())
    found = client(url).embeddings.create(model="tiny", input="a", dimensions=2)
    assert found.data[0].embedding == pytest.approx([0.5**0.5, 0.5**0.5])


@pytest.mark.parametrize(
    "body",
    [
        {"input": ""},
        {"input": []},
        {"input": [""]},
        {"input": [[]]},
        {"input": "a", "dimensions": 5},
        {"input": "a", "dimensions": 0},
        {"input": [300]},
        {"input": "a", "encoding_format": "hex"},
        {},
    ],
)
def test_bad_requests_are_refused(serve: Serve, body: dict[str, Any]) -> None:
    answer = post(serve(ScriptedFleet()), "/v1/embeddings", {"model": "tiny", **body})
    assert answer.status_code == 400
