"""tags, show, ps, copy, delete, version and blobs over a store with a tiny model."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path

import httpx
import ollama
import pytest
from tests.serve.scripted import ScriptedFleet

from pocketlm.errors import CapacityError, NotFoundError
from pocketlm.store import Store, uploads


def hex_of(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def left_behind(store: Store) -> list[str]:
    folder = store.home / "partial"
    return [path.name for path in folder.iterdir()] if folder.is_dir() else []


@pytest.mark.parametrize("path", ["/api/version", "/api/tags", "/"])
def test_head_is_answered(url: str, path: str) -> None:
    assert httpx.head(url + path).status_code == 200


def test_the_version_is_one_of_ollama(url: str) -> None:
    version = httpx.get(f"{url}/api/version").json()["version"]
    assert [part.isdigit() for part in version.split(".")] == [True] * 3


def test_programs_are_greeted_as_by_ollama(url: str) -> None:
    assert httpx.get(url).text == "Ollama is running"


def test_tags(client: ollama.Client, store: Store) -> None:
    store.copy("tiny", "Zweite:x")
    first, second = client.list().models
    assert {first.model, second.model} == {"tiny:latest", "zweite:x"}
    assert first.digest == second.digest
    assert len(first.digest or "") == 64
    assert first.details is not None
    assert (first.details.family, first.details.format) == ("llama", "gguf")
    assert first.details.parameter_size == "78K"
    assert first.size == store.resolve("tiny").path.stat().st_size
    assert first.modified_at is not None


def test_show(client: ollama.Client, store: Store) -> None:
    shown = client.show("TINY")
    assert shown.modelinfo is not None
    assert shown.modelinfo["general.architecture"] == "llama"
    assert shown.modelinfo["general.parameter_count"] > 0
    assert shown.modelinfo["llama.context_length"] == 256
    assert shown.modelinfo["tokenizer.ggml.tokens"] is None
    assert shown.template is not None and "<|im_start|>" in shown.template  # noqa: PT018
    assert shown.capabilities == ["completion", "embedding"]
    assert shown.modelfile is not None and shown.modelfile.startswith("FROM tiny:latest")  # noqa: PT018
    assert shown.details is not None and shown.details.quantization_level  # noqa: PT018


def test_show_verbose_has_arrays_and_tensors(url: str, store: Store) -> None:
    shown = httpx.post(f"{url}/api/show", json={"name": "tiny", "verbose": True}).json()
    assert len(shown["model_info"]["tokenizer.ggml.tokens"]) == 260
    tensors = {one["name"]: one for one in shown["tensors"]}
    assert tensors["token_embd.weight"] == {
        "name": "token_embd.weight", "type": "F32", "shape": [64, 260],
    }  # fmt: skip


def test_ps(client: ollama.Client, store: Store, fleet: ScriptedFleet) -> None:
    assert client.ps().models == []
    client.generate("tiny")
    (model,) = client.ps().models
    assert (model.name, model.size, model.context_length) == ("tiny:latest", 200_000_000, 4096)
    assert model.digest == client.list().models[0].digest
    assert model.expires_at is not None
    assert model.details is not None and model.details.parameter_size == "134.52M"  # noqa: PT018


def test_copy(client: ollama.Client, store: Store) -> None:
    assert client.copy("Tiny", "mine:1").status == "success"
    assert store.resolve("mine:1").path.read_bytes() == store.resolve("tiny").path.read_bytes()
    with pytest.raises(ollama.ResponseError, match="already") as error:
        client.copy("tiny", "mine:1")
    assert error.value.status_code == 400


@pytest.mark.parametrize("name", ["", "../up", "/etc/passwd", "a b", "x" * 600, "~root", "a/../b"])
def test_names_that_are_none_are_refused(url: str, store: Store, name: str) -> None:
    for path, body in (
        ("copy", {"source": "tiny", "destination": name}),
        ("create", {"model": name, "from": "tiny"}),
        ("pull", {"model": name}),
    ):
        answer = httpx.post(f"{url}/api/{path}", json={**body, "stream": False})
        assert answer.status_code == 400, (path, answer.text)
    for path in ("show", "push"):
        answer = httpx.post(f"{url}/api/{path}", json={"model": name})
        assert answer.status_code in (400, 404), path


def test_delete_unloads_too(client: ollama.Client, store: Store, fleet: ScriptedFleet) -> None:
    client.generate("tiny")
    assert client.delete("tiny").status == "success"
    assert fleet.loaded_names == {}
    with pytest.raises(NotFoundError):
        store.resolve("tiny")
    assert list(store.shelf.blobs) == []


# Blobs


def test_a_blob_is_brought_once(client: ollama.Client, store: Store, tmp_path: Path) -> None:
    data = b"some bytes" * 1000
    (tmp_path / "given").write_bytes(data)
    digest = client.create_blob(tmp_path / "given")
    assert digest == f"sha256:{hex_of(data)}"
    assert store.shelf.blobs.path(hex_of(data)).read_bytes() == data
    assert not left_behind(store)


def test_blobs_are_looked_for(url: str, store: Store) -> None:
    there = next(iter(store.shelf.blobs))
    assert httpx.head(f"{url}/api/blobs/sha256:{there}").status_code == 200
    assert httpx.head(f"{url}/api/blobs/sha256-{there}").status_code == 200
    assert httpx.head(f"{url}/api/blobs/sha256:{'0' * 64}").status_code == 404
    assert httpx.post(f"{url}/api/blobs/sha256:{there}", content=b"").status_code == 200
    assert httpx.post(f"{url}/api/blobs/sha256:{hex_of(b'x')}", content=b"x").status_code == 201


def test_bytes_that_are_not_their_digest_leave_nothing(url: str, store: Store) -> None:
    before = list(store.shelf.blobs)
    answer = httpx.post(f"{url}/api/blobs/sha256:{'0' * 64}", content=b"other")
    assert answer.status_code == 400
    assert "digest mismatch" in answer.json()["error"]
    assert list(store.shelf.blobs) == before
    assert not left_behind(store)


@pytest.mark.parametrize(
    "digest",
    ["sha256:..", "sha256:" + "0" * 63, "md5:" + "0" * 64, "sha256:" + "g" * 64,
     "sha256-" + "0" * 64 + "%0a", "..%2f..%2fetc%2fpasswd"],
)  # fmt: skip
def test_digests_are_checked_before_they_are_paths(url: str, digest: str) -> None:
    for method in ("HEAD", "POST"):
        answer = httpx.request(method, f"{url}/api/blobs/{digest}", content=b"x")
        assert answer.status_code in (400, 404)


def test_an_upload_that_breaks_off_leaves_nothing(url: str, store: Store) -> None:
    def half() -> Iterator[bytes]:
        yield b"x" * 1000
        raise RuntimeError("the client breaks")

    with pytest.raises(RuntimeError, match="the client breaks"):
        httpx.post(f"{url}/api/blobs/sha256:{'0' * 64}", content=half())
    for _ in range(200):
        if not left_behind(store):
            break
        httpx.get(f"{url}/api/version")
    assert not left_behind(store)


def test_a_full_disk_is_a_clear_error(
    url: str, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(descriptor: int, data: bytes) -> None:
        raise CapacityError("the disk is full")

    monkeypatch.setattr(uploads, "write_all", full)
    answer = httpx.post(f"{url}/api/blobs/sha256:{hex_of(b'x')}", content=b"x")
    assert (answer.status_code, answer.json()) == (507, {"error": "the disk is full"})
    assert not left_behind(store)


def test_more_than_the_disk_has_is_refused_in_advance(
    url: str, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pocketlm.store.files.free_bytes", lambda folder: 10)
    answer = httpx.post(f"{url}/api/blobs/sha256:{hex_of(b'x' * 11)}", content=b"x" * 11)
    assert answer.status_code == 507
    monkeypatch.setattr(uploads, "_MOST_BYTES", 10)
    monkeypatch.setattr(uploads, "_ROOM", 1)
    answer = httpx.post(f"{url}/api/blobs/sha256:{hex_of(b'x' * 11)}", content=iter([b"x" * 11]))
    assert answer.status_code == 507
    assert not left_behind(store)


def test_an_upload_of_unknown_size_stops_before_the_disk_is_full(
    url: str, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[Path] = []

    def free_bytes(folder: Path) -> int:
        asked.append(folder)
        return 100_000 if len(asked) == 1 else 99_999

    monkeypatch.setattr("pocketlm.store.files.free_bytes", free_bytes)
    monkeypatch.setattr(uploads, "_ROOM", 100_000)
    monkeypatch.setattr("pocketlm.serve.ollama.uploads._PIECE", 20_000)
    blob = b"x" * 2_000_000
    parts = (blob[i : i + 20_000] for i in range(0, len(blob), 20_000))
    answer = httpx.post(f"{url}/api/blobs/sha256:{hex_of(blob)}", content=parts)
    assert answer.status_code == 507
    assert "99,999 are free" in answer.text
    assert not left_behind(store)
