"""One model of the hub, described by its headers: the same facts as those of its pulled files."""

from __future__ import annotations

import json
import struct
from pathlib import Path

import pytest

from convert.tiny_folder import write_llama
from engine.tiny_file import write_tiny_model
from pocketlm.errors import (
    ModelFileError,
    NotFoundError,
    PocketLMError,
    RequestError,
    SourceError,
    UnsupportedError,
)
from pocketlm.gguf import GGUFFile
from pocketlm.search.hub_model import RemoteFolder, hub_model
from pocketlm.store import Store
from pocketlm.store.describe import describe_path
from pocketlm.store.egress import Egress
from store.local_server import LocalServer, hub_error, hub_repo
from store.tiny_models import safetensors

COMMIT = "0123456789abcdef0123456789abcdef01234567"


def files_of(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "given").mkdir()
    return write_llama(tmp_path / "given")


def test_a_folder_has_the_facts_of_a_pulled_one(server: LocalServer, folder: Path) -> None:
    hub_repo(server, "o/r", files_of(folder))
    found = hub_model("hf:o/r")
    assert found is not None
    asked = [request.path for request in server.requests if "/resolve/" in request.path]
    assert asked == [
        f"/o/r/resolve/{COMMIT}/config.json", f"/o/r/resolve/{COMMIT}/model.safetensors",
    ]  # fmt: skip
    assert isinstance(found.weights, RemoteFolder)
    pulled = Store().pull("hf:o/r")
    assert pulled.manifest is not None
    assert found.facts == pulled.manifest.facts
    assert found.facts.licence == "apache-2.0"
    assert found.size == sum(file.size for file in pulled.manifest.files)


def test_a_gguf_has_the_facts_of_the_file(server: LocalServer, tmp_path: Path) -> None:
    path = write_tiny_model(tmp_path / "given.gguf")
    hub_repo(server, "o/r", {"M-F32.gguf": path.read_bytes(), "M-Q8_0.gguf": b"?"}, tags=())
    found = hub_model("hf:o/r:f32")
    assert found is not None
    assert isinstance(found.weights, GGUFFile)
    assert (found.facts, found.size) == (describe_path(path), path.stat().st_size)


def test_other_refs_are_none_of_the_hubs(server: LocalServer) -> None:
    assert hub_model("smollm2:135m") is None
    assert hub_model("ollama:smollm2:135m") is None
    assert not server.requests


def test_offline_nothing_is_asked(server: LocalServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("POCKETLM_OFFLINE", "1")
    with pytest.raises(SourceError, match="hf:o/r was not asked for: PocketLM is offline"):
        hub_model("hf:o/r")
    assert not server.requests


def test_a_stores_egress_holds(server: LocalServer, tmp_path: Path) -> None:
    host = frozenset({"models.example.com"})
    with pytest.raises(PocketLMError, match=r"127\.0\.0\.1"):
        hub_model("hf:o/r", Store(tmp_path / "home", egress=Egress(host, host)))
    assert not server.requests


def test_terms_and_logins_are_asked_for(server: LocalServer, folder: Path) -> None:
    hub_repo(server, "o/r", files_of(folder))
    hub_error(server, f"/o/r/resolve/{COMMIT}/config.json", 403, "GatedRepo")
    with pytest.raises(SourceError, match="is gated: its terms") as raised:
        hub_model("hf:o/r")
    assert "HF_TOKEN" in str(raised.value.hint)
    server.put(f"/o/r/resolve/{COMMIT}/config.json", status=401)
    with pytest.raises(SourceError, match=r"does not allow .* \(401\)") as raised:
        hub_model("hf:o/r")
    assert "HF_TOKEN" in str(raised.value.hint)
    hub_error(server, "/api/models/o/r", 401, "GatedRepo")
    with pytest.raises(SourceError, match="o/r is gated"):
        hub_model("hf:o/r")


def test_a_token_is_sent_where_there_is_one(
    server: LocalServer, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hub_repo(server, "o/r", files_of(folder), token="Bearer secret")
    with pytest.raises(PocketLMError):
        hub_model("hf:o/r")
    monkeypatch.setenv("HF_TOKEN", "secret")
    assert hub_model("hf:o/r") is not None


def header(length: int, rest: bytes = b"{}") -> bytes:
    return struct.pack("<Q", length) + rest


CONFIG = json.dumps({"model_type": "llama"}).encode()
TENSORS = safetensors({"model.norm.weight": ("BF16", [8])})
SHARDS = {f"model-{n:05}-of-00025.safetensors": TENSORS for n in range(1, 26)}


@pytest.mark.parametrize(
    ("files", "error", "why"),
    [
        ({"model.safetensors": TENSORS}, NotFoundError, "no config.json"),
        ({"config.json": CONFIG, "pytorch_model.bin": b"?"}, NotFoundError, "no GGUF file and no"),
        ({"config.json": b"{", "model.safetensors": TENSORS}, ModelFileError, "is not JSON"),
        ({"config.json": b"[]", "model.safetensors": TENSORS}, ModelFileError, "not a JSON object"),
        ({"config.json": b"{}", "model.safetensors": TENSORS}, ModelFileError, "model_type"),
        (
            {"config.json": CONFIG, "model.safetensors": header(1 << 60)},
            ModelFileError,
            "claims a header",
        ),
        ({"config.json": CONFIG, "model.safetensors": header(2, b"no")}, ModelFileError, "JSON"),
        ({"a-Q4_0.gguf": b"?", "a-Q8_0.gguf": b"?"}, RequestError, "could be any of 2 files"),
        ({"a.gguf": b"not a gguf at all"}, ModelFileError, "no GGUF file"),
        ({"a.gguf": b"GGUF\3\0\0\0" + b"\xff" * 16}, ModelFileError, "n_tensors"),
        ({"config.json": CONFIG, **SHARDS}, UnsupportedError, "25 files"),
    ],
)
def test_what_is_not_understood_says_why(
    files: dict[str, bytes], error: type[Exception], why: str, server: LocalServer
) -> None:
    hub_repo(server, "o/r", files)
    with pytest.raises(error, match=why):
        hub_model("hf:o/r")


def test_no_such_repository(server: LocalServer) -> None:
    hub_error(server, "/api/models/o/r", 404, "RepoNotFound")
    with pytest.raises(NotFoundError, match="there is no repository o/r"):
        hub_model("hf:o/r")
