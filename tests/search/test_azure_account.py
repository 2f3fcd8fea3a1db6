"""What a subscription can deploy, through Azure's own client and a server that answers as ARM."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from contextlib import suppress
from datetime import timedelta
from typing import Any

import pytest

from pocketlm.errors import RequestError, SourceError, UnsupportedError
from pocketlm.search import Query, azure_account, search
from store.local_server import LocalServer, Request, Resource

Run = Callable[..., tuple[int, str, str]]
SUBSCRIPTION = "01234567-89ab-cdef-0123-456789abcdef"
PATH = (
    f"/subscriptions/{SUBSCRIPTION}/providers/Microsoft.CognitiveServices/locations/eastus/models"
)
QUERY = Query(source="azure", subscription=SUBSCRIPTION, location="eastus")


def model(name: str, **facts: Any) -> dict[str, Any]:
    return {
        "kind": "AIServices",
        "skuName": "S0",
        "model": {
            "publisher": "Microsoft",
            "format": "Microsoft",
            "name": name,
            "version": "1",
            "isDefaultVersion": True,
            "skus": [{"name": "GlobalStandard", "usageName": "AIServices.GlobalStandard"}],
            "capabilities": {"chatCompletion": "true", "maxContextToken": "131072"},
            "lifecycleStatus": "GenerallyAvailable",
            "modelCatalogAssetId": f"azureml://registries/azureml/models/{name}/versions/1",
            "systemData": {"createdAt": "2026-02-19T00:00:00Z"},
        }
        | facts,
    }


@pytest.fixture
def arm(server: LocalServer, monkeypatch: pytest.MonkeyPatch) -> LocalServer:
    """Azure's client, whose requests go to this machine instead: it insists on https."""
    requests = pytest.importorskip("requests")
    core = pytest.importorskip("azure.core")
    management = pytest.importorskip("azure.mgmt.cognitiveservices")
    transport = pytest.importorskip("azure.core.pipeline.transport")
    credentials = pytest.importorskip("azure.core.credentials")
    assert core

    class Here(requests.adapters.HTTPAdapter):  # type: ignore[misc, name-defined]
        def send(self, request: Any, **options: Any) -> Any:
            request.url = request.url.replace("https://management.azure.com", server.url)
            return super().send(request, **options)

    class Token:
        def get_token(self, *scopes: str, **options: Any) -> Any:
            return credentials.AccessToken("secret", 4102444800)

    def client(subscription: str) -> Any:
        session = requests.Session()
        session.mount("https://", Here())
        return management.CognitiveServicesManagementClient(
            Token(),
            subscription,
            transport=transport.RequestsTransport(session=session, session_owner=False),
            retry_total=0,
        )

    monkeypatch.setattr(azure_account, "client", client)
    return server


def put(server: LocalServer, *models: Any, **facts: Any) -> None:
    server.put(PATH, json.dumps({"value": list(models)}).encode(), **facts)


def test_the_facts_of_a_model(arm: LocalServer) -> None:
    put(arm, model("Phi-4-mini-instruct"))
    (found,) = search(QUERY).found
    assert found.ref == "azureml://registries/azureml/models/Phi-4-mini-instruct/versions/1"
    assert (found.publisher, found.context, found.tasks) == (
        "Microsoft", 131072, ("chat-completion",),
    )  # fmt: skip
    assert (found.catalog, found.deployments) == ("phi4-mini:3.8b", ("serverless",))
    assert arm.requests[0].headers["authorization"] == "Bearer secret"


def test_it_tells_whether_it_can_be_tuned(arm: LocalServer) -> None:
    put(
        arm,
        model("a", finetuneCapabilities={"FineTuneJobs": "10"}),
        model("b", capabilities={"fineTune": "true"}),
        model("c"),
    )
    found = {one.id: one.fine_tunable for one in search(QUERY).found}
    assert found == {"a": True, "b": True, "c": None}


def test_pages(arm: LocalServer) -> None:
    def page(request: Request) -> Resource:
        if "token=2" in request.path:
            return Resource(json.dumps({"value": [model("b")]}).encode())
        following = f"https://management.azure.com{PATH}?token=2&api-version=1"
        answer = {"value": [model("a")], "nextLink": following}
        return Resource(json.dumps(answer).encode())

    arm.resources[PATH] = page
    assert [found.id for found in search(QUERY).found] == ["a", "b"]


def account(name: str, kind: str = "AIServices") -> dict[str, Any]:
    place = f"/subscriptions/{SUBSCRIPTION}/resourceGroups/rg-{name}"
    return {
        "id": f"{place}/providers/Microsoft.CognitiveServices/accounts/{name}",
        "name": name,
        "kind": kind,
        "location": "eastus",
        "properties": {
            "customSubDomainName": name,
            "endpoint": f"https://{name}.cognitiveservices.azure.com/",
            "provisioningState": "Succeeded",
        },
    }


def test_what_is_deployed_is_found_by_the_ref_that_it_is_used_by(arm: LocalServer) -> None:
    accounts = [account("contoso"), account("old", "OpenAI"), account("bad_name")]
    root = f"/subscriptions/{SUBSCRIPTION}"
    arm.put(
        f"{root}/providers/Microsoft.CognitiveServices/accounts",
        json.dumps({"value": accounts}).encode(),
    )
    for one in accounts:
        deployment = {
            "id": f"{one['id']}/deployments/phi",
            "name": "phi",
            "sku": {"name": "GlobalStandard", "capacity": 1},
            "properties": {
                "model": {"format": "Microsoft", "name": "Phi-4-mini-instruct", "version": "1"},
                "provisioningState": "Succeeded",
                "capabilities": {"chatCompletion": "true"},
            },
        }
        arm.put(f"{one['id']}/deployments", json.dumps({"value": [deployment]}).encode())
    results = search(Query(source="azure", subscription=SUBSCRIPTION, tasks=("text-generation",)))
    assert {found.ref for found in results.found} == {
        "azure:contoso/phi", "azure:old.openai.azure.com/phi",
    }  # fmt: skip
    (found, _) = results.found
    assert (found.id, found.catalog) == ("Phi-4-mini-instruct", "phi4-mini:3.8b")
    assert found.deployments == ("serverless",)
    assert results.origins[0].looked_at == 3


@pytest.mark.parametrize(
    ("status", "headers", "says"),
    [
        (401, {}, "answered 401: .*az login"),
        (403, {}, "answered 403: .*must be a reader"),
        (404, {}, "answered 404"),
        (429, {"Retry-After": "77"}, "answered 429 and wants the next request in 77 seconds"),
        (500, {}, "answered 500"),
    ],
)
def test_refusals(status: int, headers: dict[str, str], says: str, arm: LocalServer) -> None:
    arm.put(PATH, b'{"error": {"code": "No", "message": "No."}}', status=status, headers=headers)
    with pytest.raises(SourceError, match=says):
        search(QUERY)


def test_what_is_kept_stands_in(
    arm: LocalServer, pocketlm: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    put(arm, model("a"))
    options = ("--source", "azure", "--subscription", SUBSCRIPTION, "--location", "eastus")
    pocketlm("search", *options)
    monkeypatch.setenv("POCKETLM_OFFLINE", "1")
    monkeypatch.setattr("pocketlm.search.answers.FRESH", timedelta())
    code, out, err = pocketlm("search", *options)
    assert code == 0
    assert "azure: cached just now" in out
    assert "PocketLM is offline" in err
    assert len(arm.requests) == 1


@pytest.mark.parametrize(
    "body", [b"", b"<html>", b"[]", b"{}", b'{"value": 3}', b'{"value": [3, null, {"model": 3}]}']
)
def test_answers_of_another_shape(body: bytes, arm: LocalServer) -> None:
    arm.put(PATH, body, headers={"Content-Type": "application/json"})
    with suppress(SourceError):
        assert search(QUERY).found == ()


def test_nobody_is_logged_in(arm: LocalServer, monkeypatch: pytest.MonkeyPatch) -> None:
    from azure.core.exceptions import ClientAuthenticationError

    client = azure_account.client(SUBSCRIPTION)

    def refuse(location: str) -> Any:
        raise ClientAuthenticationError("no credential of any kind")

    monkeypatch.setattr(client.models, "list", refuse)
    monkeypatch.setattr(azure_account, "client", lambda subscription: client)
    with pytest.raises(SourceError, match=r"could not be asked: no credential.*az login"):
        search(QUERY)


def test_without_the_extra_it_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "azure.identity", None)
    with pytest.raises(UnsupportedError, match=r"pip install 'pocketlm\[azure\]'"):
        search(QUERY)


@pytest.mark.parametrize(
    "query",
    [
        Query(source="azure", subscription="mine", location="eastus"),
        Query(source="azure", subscription=SUBSCRIPTION, location="../x"),
    ],
)
def test_what_cannot_be_a_subscription_or_location_is_not_asked(query: Query) -> None:
    with pytest.raises(RequestError, match="of Azure"):
        search(query)
