"""What endpoints tell of their models, in the shapes that they have, and in others."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime

import pytest

from backends.remote.endpoint import Asked, Endpoint, Reply, document
from pocketlm.backends.remote.facts import RemoteFacts, remote_facts, remote_models
from pocketlm.errors import NotFoundError, SourceError
from pocketlm.store.remote_refs import RemoteRef, parse_place, parse_remote

AZURE_MODEL = {
    "id": "gpt-4.1-mini", "object": "model", "created": 1744675200,
    "capabilities": {"chat_completion": True, "inference": True, "fine_tune": False},
    "lifecycle_status": "generally-available", "deprecation": {"inference": 1791936000},
}  # fmt: skip
DEPLOYMENT = {
    "name": "chat", "type": "ModelDeployment", "modelName": "Phi-4", "modelVersion": "7",
    "modelPublisher": "Microsoft", "capabilities": {"chat_completion": "true", "x": "false"},
    "sku": {"name": "GlobalStandard", "capacity": 1}, "connectionName": "c",
}  # fmt: skip


def azure(endpoint: Endpoint, ref: RemoteRef) -> RemoteRef:
    return replace(ref, base=f"{endpoint.url}/openai/v1")


@pytest.fixture(autouse=True)
def key(monkeypatch: pytest.MonkeyPatch, endpoint: Endpoint) -> None:
    monkeypatch.setenv("AZURE_OPENAI_API_KEY", "key")
    monkeypatch.setenv("AZURE_OPENAI_AD_TOKEN", "entra")


def test_a_model_of_azure(endpoint: Endpoint) -> None:
    endpoint.answers = [document(AZURE_MODEL)]
    ref = azure(endpoint, parse_remote("azure:contoso/gpt-4.1-mini"))
    assert remote_facts(ref) == RemoteFacts(
        "azure:contoso/gpt-4.1-mini",
        model="gpt-4.1-mini",
        status="generally-available",
        created=datetime(2025, 4, 15, tzinfo=UTC),
        retires=datetime(2026, 10, 14, tzinfo=UTC),
        capabilities=("chat_completion", "inference"),
    )
    (asked,) = endpoint.asked
    assert (asked.method, asked.path) == ("GET", "/openai/v1/models/gpt-4.1-mini")
    assert asked.headers["api-key"] == "key"


def test_a_deployment_of_a_project(endpoint: Endpoint) -> None:
    endpoint.answers = [document(DEPLOYMENT)]
    ref = azure(endpoint, parse_remote("azure:contoso/shop/chat"))
    assert remote_facts(ref) == RemoteFacts(
        "azure:contoso/shop/chat",
        model="Phi-4",
        version="7",
        publisher="Microsoft",
        kind="GlobalStandard",
        capabilities=("chat_completion",),
    )
    (asked,) = endpoint.asked
    assert asked.path == "/api/projects/shop/deployments/chat?api-version=v1"
    assert asked.headers["authorization"] == "Bearer entra"  # projects take no keys


def test_deployments_are_listed_page_by_page(endpoint: Endpoint) -> None:
    more = f"{endpoint.url}/api/projects/shop/deployments?api-version=v1&skip=1"
    last = {"value": [DEPLOYMENT | {"name": "b"}, "nonsense", {"name": 3}]}
    endpoint.answers = [document({"value": [DEPLOYMENT], "nextLink": more}), document(last)]
    found = remote_models(azure(endpoint, parse_place("azure:contoso/shop")))
    assert [facts.ref for facts in found] == ["azure:contoso/shop/chat", "azure:contoso/shop/b"]
    assert endpoint.asked[1].path.endswith("skip=1")


@pytest.mark.parametrize("link", ["https://evil.example.com/x", 7])
def test_a_page_of_another_host_is_not_asked(endpoint: Endpoint, link: object) -> None:
    endpoint.answers = [document({"value": [], "nextLink": link})]
    with pytest.raises(SourceError, match="another host"):
        remote_models(azure(endpoint, parse_place("azure:contoso/shop")))


def test_pages_end(endpoint: Endpoint) -> None:
    endless = {"value": [], "nextLink": f"{endpoint.url}/api/x"}
    endpoint.answers = [document(endless)]
    with pytest.raises(SourceError, match="more than 50 pages"):
        remote_models(azure(endpoint, parse_place("azure:contoso/shop")))


def test_models_of_any_server(endpoint: Endpoint) -> None:
    served = {"id": "a/b", "owned_by": "vllm", "max_model_len": 4096, "root": "a/b"}
    endpoint.answers = [document({"data": [served, {"id": None}, 3]})]
    (facts,) = remote_models(parse_place(f"openai:{endpoint.url}/v1"))
    assert facts == RemoteFacts(
        f"openai:{endpoint.url}/v1#a/b", model="a/b", publisher="vllm", context=4096
    )
    assert endpoint.asked[0].path == "/v1/models"


def test_a_server_that_only_lists_is_asked_for_its_list(endpoint: Endpoint) -> None:
    def answer(asked: Asked) -> Reply:
        if asked.path == "/v1/models":
            return document({"data": [{"id": "phi-4", "context_length": 99}]})
        return document({"error": "no route"}, 404)

    endpoint.answers = [answer]
    assert remote_facts(parse_remote(endpoint.ref)).context == 99
    with pytest.raises(NotFoundError, match="'other'"):
        remote_facts(parse_remote(f"openai:{endpoint.url}/v1#other"))


@pytest.mark.parametrize("value", [[], {}, {"data": 3}, {"data": {"id": "x"}}, "x", None, 7])
def test_a_list_in_another_shape_is_an_error(endpoint: Endpoint, value: object) -> None:
    endpoint.answers = [document(value)]
    with pytest.raises(SourceError, match="no list of models"):
        remote_models(parse_place(f"openai:{endpoint.url}/v1"))


def test_facts_in_other_shapes_are_not_said(endpoint: Endpoint) -> None:
    odd = {
        "id": 7, "model": ["x"], "created": 1e300, "deprecation": 3, "capabilities": [],
        "owned_by": "", "lifecycle_status": None, "max_model_len": True,
    }  # fmt: skip
    endpoint.answers = [document(odd)]
    assert remote_facts(parse_remote(endpoint.ref)) == RemoteFacts(endpoint.ref)


def test_what_is_no_json_and_what_is_too_long(
    endpoint: Endpoint, monkeypatch: pytest.MonkeyPatch
) -> None:
    endpoint.answers = [Reply(200, {}, [b"{"])]
    with pytest.raises(SourceError, match="no JSON"):
        remote_facts(parse_remote(endpoint.ref))
    monkeypatch.setattr("pocketlm.backends.remote.connection.MAX_DOCUMENT", 10)
    endpoint.answers = [document({"id": "a long one"})]
    with pytest.raises(SourceError, match="exceeds 10 bytes"):
        remote_facts(parse_remote(endpoint.ref))
