"""Ollama registries as a source, against a server that speaks their protocol."""

from __future__ import annotations

import json

import pytest
from local_server import MANIFEST, LocalServer, Request, Resource, registry_model, sha256
from tiny_models import gguf

from pocketlm.errors import (
    IntegrityError,
    NotFoundError,
    RequestError,
    SourceError,
    UnsupportedError,
)
from pocketlm.store import Store

LAYERS = {
    "model": gguf(),
    "template": b"{{ .Prompt }}",
    "system": b"Be brief.",
    "params": b'{"stop": ["<|im_end|>"]}',
    "license": b"Apache License",
}


def test_a_model_comes_with_template_params_system_and_licence(
    server: LocalServer, store: Store
) -> None:
    document = registry_model(server, "qwen3", "0.6b", LAYERS)
    model = store.pull("ollama:qwen3:0.6b")
    assert model.path.name == "qwen3-0.6b.gguf"
    assert model.path.read_bytes() == gguf()
    assert model.manifest is not None
    roles = {file.role: file.name for file in model.manifest.files}
    folder = model.path.parent
    assert (folder / roles["template"]).read_bytes() == LAYERS["template"]
    assert (folder / roles["system"]).read_bytes() == LAYERS["system"]
    assert (folder / roles["params"]).read_bytes() == LAYERS["params"]
    assert (folder / roles["license"]).read_bytes() == LAYERS["license"]
    assert model.manifest.source.revision == f"sha256:{sha256(document)}"
    assert server.asked("/v2/library/qwen3/manifests/0.6b")[0].headers["accept"] == MANIFEST


def test_the_default_tag_is_latest(server: LocalServer, store: Store) -> None:
    registry_model(server, "m", "latest", LAYERS)
    assert store.pull("ollama:m").name == "ollama:m:latest"


def test_a_registry_named_in_the_ref_is_asked(
    elsewhere: LocalServer, server: LocalServer, store: Store
) -> None:
    registry_model(elsewhere, "m", "1", LAYERS)
    store.pull(f"ollama:127.0.0.1:{elsewhere.port}/m:1")
    assert elsewhere.requests
    assert not server.requests


def test_a_token_is_asked_for_where_the_registry_wants_one(
    server: LocalServer, store: Store
) -> None:
    registry_model(server, "m", "1", LAYERS, token="Bearer t0ken")
    challenge = f'Bearer realm="{server.url}/token",service="reg",scope="repository:library/m:pull"'
    _challenge(server, "/v2/library/m/manifests/1", challenge)
    server.put("/token", json.dumps({"token": "t0ken"}).encode())
    assert store.pull("ollama:m:1").path.read_bytes() == gguf()
    assert "service=reg" in server.asked("/token")[0].path
    assert "scope=repository%3Alibrary%2Fm%3Apull" in server.asked("/token")[0].path


def _challenge(server: LocalServer, path: str, challenge: str) -> None:
    """The 401 of a path says how to get a token."""
    resource = server.resources[path]
    assert not callable(resource)
    refusal = Resource(status=401, headers={"WWW-Authenticate": challenge})

    def answer(request: Request) -> Resource:
        return resource if request.headers.get("authorization") == resource.token else refusal

    server.resources[path] = answer


@pytest.mark.parametrize(
    ("challenge", "words"),
    [
        ('Bearer realm="http://127.0.0.1:1/token"', "a foreign realm is not trusted"),
        ('Bearer realm="https://evil.example/token"', "a foreign realm is not trusted"),
        ('Basic realm="x"', "a login that PocketLM does not know"),
        ("", "a login that PocketLM does not know"),
    ],
)
def test_a_foreign_realm_is_never_asked(
    server: LocalServer, store: Store, challenge: str, words: str
) -> None:
    registry_model(server, "m", "1", LAYERS, token="Bearer t0ken")
    _challenge(server, "/v2/library/m/manifests/1", challenge)
    with pytest.raises(SourceError, match=words):
        store.pull("ollama:m:1")


def test_a_realm_that_gives_no_token_is_a_source_error(server: LocalServer, store: Store) -> None:
    registry_model(server, "m", "1", LAYERS, token="Bearer t0ken")
    _challenge(server, "/v2/library/m/manifests/1", f'Bearer realm="{server.url}/token"')
    server.put("/token", b'{"token": ""}', status=403)
    with pytest.raises(SourceError, match="gave no token"):
        store.pull("ollama:m:1")


def test_a_redirect_to_another_host_goes_without_the_token(
    server: LocalServer, elsewhere: LocalServer, store: Store
) -> None:
    registry_model(server, "m", "1", LAYERS, token="Bearer t0ken")
    _challenge(server, "/v2/library/m/manifests/1", f'Bearer realm="{server.url}/token"')
    server.put("/token", json.dumps({"access_token": "t0ken"}).encode())
    path = f"/v2/library/m/blobs/sha256:{sha256(gguf())}"
    target = {"Location": f"{elsewhere.url}/bucket/blob"}
    server.put(path, status=307, headers=target, token="Bearer t0ken")
    server.resources[path] = Resource(status=307, headers=target)
    elsewhere.put("/bucket/blob", gguf(), cuts=[50_000])
    assert store.pull("ollama:m:1").path.read_bytes() == gguf()
    assert server.asked(path)[0].headers["authorization"] == "Bearer t0ken"
    assert [request.headers.get("range") for request in elsewhere.requests] == [
        None,
        "bytes=50000-",
    ]
    assert all("authorization" not in request.headers for request in elsewhere.requests)


def test_a_blob_that_is_not_its_digest_is_refused(server: LocalServer, store: Store) -> None:
    registry_model(server, "m", "1", LAYERS)
    server.put(f"/v2/library/m/blobs/sha256:{sha256(gguf())}", gguf(1))
    with pytest.raises(IntegrityError, match=sha256(gguf())):
        store.pull("ollama:m:1")
    assert not store.list()


def test_an_unknown_model_is_not_found(server: LocalServer, store: Store) -> None:
    with pytest.raises(NotFoundError, match="has no model ollama:nobody:latest"):
        store.pull("ollama:nobody")


@pytest.mark.parametrize(
    "digest",
    [
        "sha256:../../../../etc/passwd", "sha256:" + "0" * 63, "sha256-" + "0" * 64,
        "md5:" + "0" * 32, "sha256:" + "G" * 64, "sha256:" + "0" * 64 + "\n", 5, None,
    ],
)  # fmt: skip
def test_a_digest_that_is_none_never_becomes_a_path(
    server: LocalServer, store: Store, digest: object
) -> None:
    layer = {"mediaType": "application/vnd.ollama.image.model", "digest": digest, "size": 1}
    document = {"schemaVersion": 2, "layers": [layer]}
    server.put("/v2/library/m/manifests/1", json.dumps(document).encode())
    with pytest.raises(SourceError, match="is not a digest"):
        store.pull("ollama:m:1")
    assert len(server.requests) == 1


@pytest.mark.parametrize(
    "document",
    [b"", b"[]", b"{}", b'{"schemaVersion": 1, "layers": []}', b'{"schemaVersion": 2}',
     b'{"schemaVersion": 2, "layers": [3]}', b'{"schemaVersion": 2, "layers": {"a": 1}}',
     b"[" * 100_000],
)  # fmt: skip
def test_a_manifest_that_is_none_is_a_source_error(
    server: LocalServer, store: Store, document: bytes
) -> None:
    server.put("/v2/library/m/manifests/1", document)
    with pytest.raises(SourceError, match="the manifest of ollama:m:1 is not one"):
        store.pull("ollama:m:1")


def test_a_model_that_is_no_gguf_is_unsupported(server: LocalServer, store: Store) -> None:
    registry_model(server, "m", "cloud", {"license": b"x"})
    with pytest.raises(UnsupportedError, match="has no GGUF layer"):
        store.pull("ollama:m:cloud")


def test_plain_http_is_for_this_machine_only(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("POCKETLM_OLLAMA_REGISTRY", "http://registry.example")
    with pytest.raises(RequestError, match="over plain http"):
        store.pull("ollama:m:1")
