"""What the page asks for itself."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from serve.page.site import Site


@pytest.fixture
def client(site: Site) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=site.url) as client:
        yield client


def test_the_models_are_those_on_disk_with_their_facts(client: httpx.Client) -> None:
    answer = client.get("/page/models")
    assert answer.headers["cache-control"] == "no-store"
    gemma, tiny = answer.json()["models"]
    assert tiny == {
        "name": "tiny:latest",
        "size": 97_523_380,
        "class": "Micro",
        "family": "llama",
        "parameters": 134_515_008,
        "quantization": "Q4_1",
        "licence": "apache-2.0",
        "context": 8192,
        "memory": None,
        "loaded": None,
    }
    assert (gemma["name"], gemma["licence"]) == ("gemma3:270m", "gemma")


def test_a_loaded_model_says_how_it_is_loaded(client: httpx.Client) -> None:
    def tiny() -> Any:
        return client.get("/page/models").json()["models"][1]

    client.post("/admin/load", json={"model": "tiny:latest"})
    assert tiny()["memory"] == 200_000_000
    assert tiny()["loaded"] == {
        "context": 4096,
        "capabilities": ["completion", "embedding", "insert", "thinking", "tools"],
        "pinned": False,
        "expires": "2026-01-02T03:04:05+00:00",
        "running": 0,
        "waiting": 0,
    }
    client.post("/admin/load", json={"model": "tiny:latest", "pin": True})
    assert tiny()["loaded"]["pinned"] is True
    assert tiny()["loaded"]["expires"] is None
    client.post("/admin/unload", json={"model": "tiny:latest"})
    assert tiny()["loaded"] is None


def test_a_model_that_is_served_from_a_file_is_listed_too(client: httpx.Client) -> None:
    client.post("/admin/load", json={"model": "qwen3:0.6b"})  # not in this store
    last = client.get("/page/models").json()["models"][-1]
    assert last["name"] == "qwen3:0.6b"
    assert (last["size"], last["licence"], last["class"]) == (None, None, "Micro")


def test_the_memory_of_a_model_is_known_before_it_is_loaded(
    client: httpx.Client, site: Site
) -> None:
    answer = client.get("/page/memory", params={"model": "tiny:latest"})
    assert answer.json() == {"model": "tiny:latest", "memory": 134_515_008}
    assert site.fleet.loaded_names == {}
    assert client.get("/page/memory", params={"model": "none"}).status_code == 404
    assert client.get("/page/memory", params={"model": ""}).status_code == 400


def test_the_catalog_says_what_can_be_pulled(client: httpx.Client) -> None:
    known = {one["name"]: one for one in client.get("/page/catalog").json()["models"]}
    assert known["smollm2:135m"]["class"] == "Micro"
    assert known["gemma3:270m"]["base"] is True


def test_a_live_sample_counts_requests_and_memory(client: httpx.Client, site: Site) -> None:
    client.post("/admin/load", json={"model": "tiny:latest"})
    site.fleet.running, site.fleet.waiting = 3, 2
    site.fleet.read, site.fleet.written = 100, 20
    first, second = (client.get("/page/live").json() for _ in range(2))
    assert (first["running"], first["waiting"], first["memory"]) == (3, 2, 200_000_000)
    assert (first["prompt_tokens"], first["output_tokens"]) == (100, 20)
    assert first["kv_usage"] == 0.25
    assert [one["name"] for one in first["models"]] == ["tiny:latest"]
    assert second["time"] >= first["time"]
