"""Searching the catalog of Azure AI Foundry, against a server that answers as its services do."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest

from pocketlm.errors import SourceError
from pocketlm.search import Query, Range, azure, search
from store.local_server import LocalServer, Request, Resource

Run = Callable[..., tuple[int, str, str]]


def summary(name: str, **facts: Any) -> dict[str, Any]:
    """A record of the gallery."""
    return {
        "name": name,
        "displayName": name.replace("-", " "),
        "assetId": f"azureml://registries/azureml/models/{name}/versions/2",
        "version": "2",
        "registryName": "azureml",
        "publisher": "Microsoft",
        "labels": ["latest"],
        "license": "MIT",
        "inferenceTasks": ["chat-completion"],
        "fineTuningTasks": ["chat-completion"],
        "keywords": ["Multilingual"],
        "popularity": 1.5,
        "createdTime": "2026-02-19T22:00:00.1234567+00:00",
        "azureOffers": ["standard-paygo", "VM"],
        "deploymentSku": [{"name": "GlobalStandard", "locations": ["eastus"]}],
        "isDirectFromAzure": True,
        "modelLimits": {
            "supportedLanguages": ["en", "de"],
            "textLimits": {"inputContextWindow": 131072, "maxOutputTokens": 4096},
            "supportedInputModalities": ["text"],
        },
    } | facts


def entity(name: str, device: str = "cpu") -> dict[str, Any]:
    """A record of the index, as Foundry Local reads it."""
    return {
        "assetId": f"azureml://registries/azureml/models/{name}/versions/2",
        "entityId": f"azureml:{name}:2",
        "annotations": {
            "tags": {"alias": "phi-4-mini", "task": "chat-completion", "license": "MIT"},
            "systemCatalogData": {"publisher": "Microsoft", "displayName": "Phi 4 mini"},
        },
        "properties": {
            "name": name,
            "version": "2",
            "variantInfo": {
                "parents": [{"assetId": "azureml://registries/azureml/models/Phi-4-mini/1"}],
                "variantMetadata": {
                    "modelType": "ONNX",
                    "device": device,
                    "executionProvider": "CPUExecutionProvider",
                    "fileSizeBytes": 5_153_960_755,
                },
            },
        },
    }


class FakeAzure:
    """Both services; ``page`` records at a time."""

    def __init__(self, server: LocalServer) -> None:
        self.server = server
        self.summaries: list[Any] = []
        self.entities: list[Any] = []
        self.page = 100
        self.status = {"gallery": 200, "index": 200}
        self.headers: dict[str, str] = {}
        server.resources["/gallery"] = self._gallery
        server.resources["/westus2/index"] = self._index
        server.resources["/centralus/index"] = self._index

    def bodies(self, path: str) -> list[Any]:
        return [json.loads(request.content) for request in self.server.asked(path)]

    def _gallery(self, request: Request) -> Resource:
        body = json.loads(request.content)
        values, token = self._slice(self.summaries, body.get("continuationToken"))
        answer = {"summaries": values, "totalCount": len(self.summaries)}
        return self._answer("gallery", answer | {"continuationToken": token})

    def _index(self, request: Request) -> Resource:
        if request.headers.get("user-agent") != "AzureAiStudio":
            return Resource(status=400)
        asked = json.loads(request.content)["indexEntitiesRequest"]
        values, token = self._slice(self.entities, asked["continuationToken"])
        inner = {"totalCount": 1, "value": values, "nextSkip": 0, "continuationToken": token}
        return self._answer("index", {"indexEntitiesResponse": inner})

    def _slice(self, values: list[Any], token: str | None) -> tuple[list[Any], str | None]:
        start = int(token or 0)
        end = start + self.page
        return values[start:end], str(end) if end < len(values) else None

    def _answer(self, service: str, answer: object) -> Resource:
        headers = {"Content-Type": "application/json"} | self.headers
        return Resource(json.dumps(answer).encode(), self.status[service], headers)


@pytest.fixture
def foundry(server: LocalServer, monkeypatch: pytest.MonkeyPatch) -> FakeAzure:
    monkeypatch.setattr(azure, "GALLERY", f"{server.url}/gallery")
    monkeypatch.setattr(azure, "INDEX", server.url + "/{region}/index")
    return FakeAzure(server)


def test_the_facts_of_a_summary(foundry: FakeAzure) -> None:
    foundry.summaries = [summary("Phi-4-mini-instruct")]
    (found,) = search(Query(source="azure")).found
    assert found.ref == "azureml://registries/azureml/models/Phi-4-mini-instruct/versions/2"
    assert (found.publisher, found.licence, found.context) == ("Microsoft", "mit", 131072)
    assert (found.parameters, found.counted, found.catalog) == (
        3_836_021_760, "catalog", "phi4-mini:3.8b",
    )  # fmt: skip
    assert found.size_class == "Small"
    assert found.deployments == ("serverless", "managed")
    assert (found.fine_tunable, found.sold_by_azure) == (True, True)
    assert found.languages == ("en", "de")


@pytest.mark.parametrize(
    ("query", "fits"),
    [
        (Query(source="azure", publisher="micro"), True),
        (Query(source="azure", publisher="meta"), False),
        (Query(source="azure", tasks=("text-generation",)), True),
        (Query(source="azure", tasks=("chat-completion",)), True),
        (Query(source="azure", tasks=("embeddings",)), False),
        (Query(source="azure", licences=("MIT",)), True),
        (Query(source="azure", licences=("custom",)), False),
        (Query(source="azure", fine_tunable=True), True),
        (Query(source="azure", fine_tunable=False), False),
        (Query(source="azure", sold_by_azure=True), True),
        (Query(source="azure", sold_by_azure=False), False),
        (Query(source="azure", deployment="serverless"), True),
        (Query(source="azure", deployment="provisioned"), False),
        (Query(source="azure", device="cpu"), False),
        (Query(source="azure", parameters=Range(10**9, 4 * 10**9)), True),
        (Query(source="azure", parameters=Range(10**9, 2 * 10**9)), False),
        (Query(source="azure", text="phi mini"), True),
        (Query(source="azure", text="llama"), False),
    ],
)
def test_filters(query: Query, fits: bool, foundry: FakeAzure) -> None:
    foundry.summaries = [summary("Phi-4-mini-instruct")]
    assert bool(search(query).found) == fits


def test_what_is_asked(foundry: FakeAzure) -> None:
    search(Query(source="azure", publisher="Meta", licences=("mit",), sort="created"))
    assert foundry.bodies("/gallery") == [
        {
            "filters": [
                {"field": "labels", "operator": "eq", "values": ["latest"]},
                {"field": "publisher", "operator": "contains", "values": ["Meta"]},
                {"field": "license", "operator": "contains", "values": ["mit"]},
            ],
            "order": [{"field": "createdTime", "direction": "desc"}],
            "pageSize": 100,
        }
    ]


def test_pages_follow_the_continuation_token(foundry: FakeAzure) -> None:
    foundry.summaries = [summary(f"m{i}", popularity=-i) for i in range(5)]
    foundry.page = 2
    results = search(Query(source="azure", limit=3, sort="trending"))
    assert [found.id for found in results.found] == ["m0", "m1", "m2"]
    assert results.origins[0].more
    tokens = [body.get("continuationToken") for body in foundry.bodies("/gallery")]
    assert tokens == [None, "2", "4"]


def test_a_token_that_comes_again_ends_the_search(foundry: FakeAzure) -> None:
    page = {"summaries": [summary("a")], "continuationToken": "same"}
    foundry.server.put("/gallery", json.dumps(page).encode())
    assert len(search(Query(source="azure")).found) == 1
    assert len(foundry.server.asked("/gallery")) == 2


def test_the_index_answers_where_the_gallery_fails(foundry: FakeAzure) -> None:
    foundry.entities = [
        entity("Phi-4-mini-instruct-generic-cpu"),
        entity("Phi-4-mini-instruct-cuda-gpu", "gpu"),
    ]
    foundry.page = 1
    foundry.status["gallery"] = 404
    results = search(Query(source="azure", device="cpu", deployment="local"))
    (found,) = results.found
    assert (found.id, found.devices, found.size) == (
        "Phi-4-mini-instruct-generic-cpu", ("cpu",), 5_153_960_755,
    )  # fmt: skip
    assert (found.formats, found.catalog) == (("onnx",), "phi4-mini:3.8b")
    assert "its index answered" in results.notes[0]
    first, second = foundry.bodies("/centralus/index")
    assert first["resourceIds"] == [{"resourceId": "azureml", "entityContainerType": "Registry"}]
    fields = [one["field"] for one in first["indexEntitiesRequest"]["filters"]]
    assert fields == ["type", "kind", "labels", "properties/variantInfo/variantMetadata/device"]
    assert second["indexEntitiesRequest"]["continuationToken"] == "1"


def test_the_index_is_asked_in_the_region_that_the_gallery_names(foundry: FakeAzure) -> None:
    """It answers, but with nothing that could be read."""
    foundry.server.put(
        "/gallery",
        b'{"models": []}',
        headers={"azureml-served-by-cluster": "vienna-westus2-01"},
    )
    search(Query(source="azure"))
    assert foundry.server.asked("/westus2/index")


def test_a_busy_catalog_is_waited_for_or_said(
    foundry: FakeAzure, monkeypatch: pytest.MonkeyPatch
) -> None:
    naps: list[float] = []
    monkeypatch.setattr("time.sleep", naps.append)
    foundry.server.put("/gallery", status=429, headers={"Retry-After": "3600"})
    foundry.status["index"] = 404
    with pytest.raises(SourceError, match="wants the next one in 60 minutes"):
        search(Query(source="azure"))
    answer = json.dumps({"summaries": [summary("a")]}).encode()
    foundry.server.put("/gallery", answer, statuses=[429], headers={"Retry-After": "3"})
    assert len(search(Query(source="azure")).found) == 1
    assert naps == [3.0]


def test_where_both_fail_both_are_said(foundry: FakeAzure) -> None:
    foundry.status = {"gallery": 403, "index": 401}
    with pytest.raises(SourceError, match=r"\(403\).*\(401\)"):
        search(Query(source="azure"))


def test_offline_another_search_looks_among_what_was_seen_before(
    foundry: FakeAzure, monkeypatch: pytest.MonkeyPatch
) -> None:
    foundry.summaries = [summary("Phi-4-mini-instruct"), summary("Other", license="custom")]
    search(Query(source="azure"))
    monkeypatch.setenv("POCKETLM_OFFLINE", "1")
    results = search(Query(source="azure", licences=("mit",)))
    assert [found.id for found in results.found] == ["Phi-4-mini-instruct"]
    assert results.cached
    assert "looked among the 2 models that were seen before" in results.notes
    assert "offline" in (results.origins[0].failure or "")


def test_the_table(foundry: FakeAzure, pocketlm: Run) -> None:
    foundry.summaries = [summary("Phi-4-mini-instruct"), summary("Other", license="custom")]
    code, out, _ = pocketlm("search", "--source", "azure")
    assert code == 0
    rows = out.splitlines()
    assert rows[1].split()[:3] == ["Other", "not", "known"]
    assert rows[2].split()[:4] == ["Phi-4-mini-instruct", "3.8B", "Small", "mit"]
    assert "catalog: phi4-mini:3.8b; serverless,managed" in rows[2]


def test_all_sources_answer_beside_each_other(
    foundry: FakeAzure, server: LocalServer, pocketlm: Run
) -> None:
    """The hub is not there: the others are."""
    foundry.summaries = [summary("Phi-4-mini-instruct")]
    code, out, err = pocketlm("search", "phi", "--source", "all", "--json")
    assert code == 0
    found = json.loads(out)["found"]
    assert {one["source"] for one in found} == {"catalog", "azure"}
    assert "does not know its models (404)" in err
