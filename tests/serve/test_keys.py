"""A server with keys, as its users meet it: official clients, other headers, TLS."""

from __future__ import annotations

import contextlib
import ssl
import sys
from collections.abc import Iterator
from pathlib import Path

import anthropic
import httpx
import ollama
import openai
import pytest
import trustme

from engine.tiny_file import write_tiny_model
from pocketlm.serve.guard.keys import KeyFile, make_key
from pocketlm.store import Store

from .running import RunningServer, running_server, start

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")

MESSAGES = [{"role": "user", "content": "hi"}]


@pytest.fixture
def home(tmp_path: Path) -> Path:
    home = tmp_path / "served"
    Store(home).import_path(write_tiny_model(tmp_path / "tiny.gguf"), "tiny", copy=True)
    return home


@pytest.fixture
def key(home: Path) -> str:
    """One that may infer."""
    made, text = make_key("test")
    KeyFile(home, Store(home).shelf.locks).add(made)
    return text


@pytest.fixture
def server(home: Path, key: str) -> Iterator[RunningServer]:
    with running_server(home) as running:
        yield running


def test_official_clients_bring_their_key(
    server: RunningServer, key: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with openai.OpenAI(base_url=f"{server.url}/v1", api_key=key) as client:
        chat = client.chat.completions.create(model="tiny", messages=MESSAGES, max_tokens=3)  # type: ignore[call-overload]
        assert chat.usage.completion_tokens <= 3
    with anthropic.Anthropic(base_url=server.url, api_key=key) as client:
        message = client.messages.create(model="tiny", messages=MESSAGES, max_tokens=3)  # type: ignore[arg-type]
        assert message.role == "assistant"
    monkeypatch.setenv("OLLAMA_API_KEY", key)
    with contextlib.closing(ollama.Client(host=server.url)) as client:
        answer = client.chat(model="tiny", messages=MESSAGES, options={"num_predict": 3})
        assert answer.done


def test_every_header_and_no_other_way(server: RunningServer, key: str) -> None:
    url = f"{server.url}/v1/models"
    for headers in ({"Authorization": f"Bearer {key}"}, {"x-api-key": key}, {"api-key": key}):
        assert httpx.get(url, headers=headers).status_code == 200
    assert httpx.get(url).status_code == 401
    assert httpx.get(url, params={"api_key": key}).status_code == 401
    assert httpx.get(url, headers={"api-key": key[:-1]}).status_code == 401
    assert httpx.get(url, cookies={"api-key": key}).status_code == 401
    with (
        openai.OpenAI(base_url=f"{server.url}/v1", api_key="plm_wrong") as client,
        pytest.raises(openai.AuthenticationError),
    ):
        client.models.list()


def test_what_the_key_may_not(server: RunningServer, key: str) -> None:
    headers = {"Authorization": f"Bearer {key}"}
    for path, body in (("/admin/stop", {}), ("/api/pull", {"model": "x"})):
        answer = httpx.post(server.url + path, json=body, headers=headers)
        assert answer.status_code == 403
    assert httpx.get(f"{server.url}/health").status_code == 200


def test_tls(home: Path, key: str, tmp_path: Path) -> None:
    authority = trustme.CA()
    issued = authority.issue_cert("localhost", "127.0.0.1")
    issued.private_key_pem.write_to_path(str(tmp_path / "key.pem"))
    issued.cert_chain_pems[0].write_to_path(str(tmp_path / "cert.pem"))
    trusted = ssl.create_default_context()
    authority.configure_trust(trusted)
    options = ("--tls-cert", str(tmp_path / "cert.pem"), "--tls-key", str(tmp_path / "key.pem"))
    with running_server(home, *options) as server:
        assert server.url.startswith("https://")
        headers = {"x-api-key": key}
        answer = httpx.get(f"{server.url}/v1/models", headers=headers, verify=trusted)
        assert answer.json()["data"][0]["id"] == "tiny:latest"
        with pytest.raises(httpx.TransportError):
            httpx.get(server.url.replace("https", "http") + "/health")


def test_other_machines_need_a_key_or_insistence(home: Path) -> None:
    refused = start(home, "--port", "0", "--host", "0.0.0.0")
    _, said = refused.communicate(timeout=30)
    assert refused.returncode != 0
    assert "pocketlm key create" in said
    with running_server(home, "--host", "0.0.0.0", "--insecure") as server:
        url = server.url.replace("0.0.0.0", "127.0.0.1")
        assert httpx.get(f"{url}/health").status_code == 200
        server.process.terminate()
        _, said = server.end()
    assert "insecure" in said.lower()
