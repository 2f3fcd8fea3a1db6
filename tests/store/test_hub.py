"""The hub as a source, against a server that answers as it does."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from local_server import LocalServer, hub_error, hub_repo, sha256
from tiny_models import gguf, safetensors

from pocketlm.errors import IntegrityError, NotFoundError, RequestError, SourceError
from pocketlm.store import Store

COMMIT = "0123456789abcdef0123456789abcdef01234567"
CONFIG = json.dumps({"model_type": "llama", "tie_word_embeddings": True}).encode()
TENSORS = safetensors(
    {"model.embed_tokens.weight": ("BF16", [100, 8]), "lm_head.weight": ("BF16", [100, 8])}
)
FOLDER = {
    "config.json": CONFIG,
    "model.safetensors": TENSORS,
    "tokenizer.json": b"{}",
    "LICENSE": b"Do what you like.",
    "pytorch_model.bin": b"a pickle",
    "onnx/model.onnx": b"another format",
    "README.md": b"# Model",
}


def test_a_gguf_is_pulled_at_the_commit_that_the_branch_is_at(
    server: LocalServer, store: Store
) -> None:
    hub_repo(server, "o/r", {"M-Q8_0.gguf": gguf(), "README.md": b"x"})
    model = store.pull("hf:o/r")
    assert model.path.name == "M-Q8_0.gguf"
    assert model.path.read_bytes() == gguf()
    assert model.manifest is not None
    assert model.manifest.source.revision == COMMIT
    assert model.manifest.facts.licence == "apache-2.0"
    assert server.asked(f"/o/r/resolve/{COMMIT}/M-Q8_0.gguf")


def test_a_folder_is_pulled_without_pickles(server: LocalServer, store: Store) -> None:
    hub_repo(server, "o/r", FOLDER)
    model = store.pull("hf:o/r")
    assert sorted(path.name for path in model.path.iterdir()) == [
        "LICENSE", "config.json", "model.safetensors", "tokenizer.json",
    ]  # fmt: skip
    assert model.manifest is not None
    assert model.manifest.facts.parameters == 800  # the tied head counts once
    assert {file.name: file.role for file in model.manifest.files}["LICENSE"] == "license"


def test_shards_come_with_their_index_and_without_copies(server: LocalServer, store: Store) -> None:
    shard = safetensors({"model.a": ("F32", [2, 3])})
    other = safetensors({"model.b": ("F32", [5])})
    files = {
        "config.json": CONFIG,
        "model-00001-of-00002.safetensors": shard,
        "model-00002-of-00002.safetensors": other,
        "model.safetensors.index.json": b'{"weight_map": {}}',
        "consolidated.safetensors": TENSORS,
    }
    hub_repo(server, "o/r", files)
    model = store.pull("hf:o/r")
    names = {path.name for path in model.path.iterdir()}
    assert names == set(files) - {"consolidated.safetensors"}
    assert model.manifest is not None
    assert model.manifest.facts.parameters == 11


def test_several_ggufs_are_told_apart(server: LocalServer, store: Store) -> None:
    files = {f"M-{kind}.gguf": gguf(n) for n, kind in enumerate(["Q4_K_M", "Q4_K_S", "Q8_0"])}
    hub_repo(server, "o/r", {**files, "mmproj-M-f16.gguf": gguf(9)})
    with pytest.raises(
        RequestError, match=r"M-Q4_K_M\.gguf, M-Q4_K_S\.gguf, M-Q8_0\.gguf\."
    ) as hint:
        store.pull("hf:o/r")
    assert hint.value.hint == "Choose one, such as 'hf:o/r:M-Q4_K_M.gguf'."
    assert store.pull("hf:o/r:M-Q8_0.gguf").path.read_bytes() == gguf(2)
    assert store.pull("hf:o/r:q4_k_m").path.read_bytes() == gguf(0)
    with pytest.raises(NotFoundError, match="no file that 'Q4_K' names"):
        store.pull("hf:o/r:Q4_K")
    assert store.pull("hf:o/r:mmproj-M-f16.gguf").path.read_bytes() == gguf(9)


def test_shards_of_a_gguf_are_pulled_whole(server: LocalServer, store: Store) -> None:
    files = {f"Q4/M-0000{n}-of-00002.gguf": gguf(n) for n in (1, 2)}
    hub_repo(server, "o/r", {**files, "Q8/M.gguf": gguf(3)})
    for ref in ("hf:o/r:Q4", "hf:o/r:Q4/M-00001-of-00002.gguf"):
        model = store.pull(ref)
        assert model.path.name == "M-00001-of-00002.gguf"
        assert model.path.with_name("M-00002-of-00002.gguf").read_bytes() == gguf(2)
    hub_repo(server, "o/s", {"M-00001-of-00002.gguf": gguf(1)})
    with pytest.raises(NotFoundError, match="1 of 2 shards"):
        store.pull("hf:o/s")


def test_a_repository_of_pickles_is_refused(server: LocalServer, store: Store) -> None:
    hub_repo(server, "o/r", {"config.json": CONFIG, "pytorch_model.bin": b"a pickle"})
    with pytest.raises(NotFoundError, match="no GGUF file and no safetensors") as raised:
        store.pull("hf:o/r")
    assert "can run code" in str(raised.value)


def test_a_revision_is_asked_for_and_pinned(server: LocalServer, store: Store) -> None:
    hub_repo(server, "o/r", {"m.gguf": gguf()}, revision="v1")
    model = store.pull("hf:o/r@v1")
    assert model.name == "hf:o/r@v1"
    assert server.asked("/api/models/o/r/revision/v1")
    hub_repo(server, "o/r", {"m.gguf": gguf()}, revision=COMMIT)
    store.pull(f"hf:o/r@{COMMIT}")
    server.requests.clear()
    store.pull(f"hf:o/r@{COMMIT}")
    assert not server.requests  # a commit cannot come to mean anything else


def test_a_branch_that_moved_is_followed_and_the_old_bytes_go(
    server: LocalServer, store: Store
) -> None:
    hub_repo(server, "o/r", {"m.gguf": gguf(1)})
    store.pull("hf:o/r")
    hub_repo(server, "o/r", {"m.gguf": gguf(2)}, commit="f" * 40)
    model = store.pull("hf:o/r")
    assert model.path.read_bytes() == gguf(2)
    assert list(store.shelf.blobs) == [sha256(gguf(2))]
    assert store.verify().ok
    assert not store.verify().leftovers


def test_bytes_that_are_not_the_published_ones_are_refused(
    server: LocalServer, store: Store
) -> None:
    hub_repo(server, "o/r", {"m.gguf": gguf(1)})
    server.put(f"/o/r/resolve/{COMMIT}/m.gguf", gguf(2))  # of the right size
    with pytest.raises(IntegrityError, match=sha256(gguf(1))):
        store.pull("hf:o/r")
    assert not list(store.shelf.blobs)


def test_small_files_are_held_to_their_git_hash(server: LocalServer, store: Store) -> None:
    hub_repo(server, "o/r", FOLDER)
    server.put(f"/o/r/resolve/{COMMIT}/tokenizer.json", b"[]")
    with pytest.raises(IntegrityError, match="git hash"):
        store.pull("hf:o/r")


def test_a_connection_cut_in_the_middle_is_resumed(server: LocalServer, store: Store) -> None:
    hub_repo(server, "o/r", {"m.gguf": gguf()})
    path = f"/o/r/resolve/{COMMIT}/m.gguf"
    resource = server.resources[path]
    assert not callable(resource)
    resource.cuts = [100_000]
    assert store.pull("hf:o/r").path.read_bytes() == gguf()
    assert [request.headers.get("range") for request in server.asked(path)] == [
        None,
        "bytes=100000-",
    ]


def test_the_token_goes_to_the_hub_and_not_to_its_storage(
    server: LocalServer, elsewhere: LocalServer, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    hub_repo(server, "o/r", {"m.gguf": gguf()}, token="Bearer hf_secret")
    elsewhere.put("/stored", gguf())
    path = f"/o/r/resolve/{COMMIT}/m.gguf"
    server.put(path, status=302, headers={"Location": f"{elsewhere.url}/stored"})
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    store.pull("hf:o/r")
    assert server.asked(path)[0].headers["authorization"] == "Bearer hf_secret"
    assert "authorization" not in elsewhere.requests[0].headers
    for file in store.home.rglob("*"):
        assert not file.is_file() or b"hf_secret" not in file.read_bytes()


def test_the_token_file_is_read(server: LocalServer, store: Store, tmp_path: Path) -> None:
    hub_repo(server, "o/r", {"m.gguf": gguf()}, token="Bearer hf_from_file")
    (tmp_path / "hf-token").write_text("hf_from_file\n")
    assert store.pull("hf:o/r").path.read_bytes() == gguf()


@pytest.mark.parametrize(
    ("status", "code", "error", "words"),
    [
        (401, "RepoNotFound", NotFoundError, "no repository o/r at .*, or it is private"),
        (404, "RepoNotFound", NotFoundError, "no repository o/r"),
        (403, "GatedRepo", SourceError, "is gated: its terms must be accepted"),
        (404, "RevisionNotFound", NotFoundError, "has no revision 'v9'"),
        (500, "", SourceError, "refused to describe o/r"),
    ],
)
def test_refusals_of_the_hub_are_told_in_our_words(
    server: LocalServer,
    store: Store,
    status: int,
    code: str,
    error: type[Exception],
    words: str,
) -> None:
    hub_error(server, "/api/models/o/r/revision/v9", status, code)
    with pytest.raises(error, match=words):
        store.pull("hf:o/r@v9")


@pytest.mark.parametrize(
    ("status", "code", "error", "words"),
    [
        (404, "EntryNotFound", NotFoundError, "EntryNotFound"),
        (403, "GatedRepo", SourceError, "terms must be accepted"),
        (401, "", SourceError, "does not allow"),
    ],
)
def test_refusals_of_a_file_are_told_in_our_words(
    server: LocalServer,
    store: Store,
    status: int,
    code: str,
    error: type[Exception],
    words: str,
) -> None:
    hub_repo(server, "o/r", {"m.gguf": gguf()})
    hub_error(server, f"/o/r/resolve/{COMMIT}/m.gguf", status, code)
    with pytest.raises(error, match=words):
        store.pull("hf:o/r")


@pytest.mark.parametrize(
    "name",
    ["../../m.gguf", "/etc/m.gguf", "a/../m.gguf", "C:\\m.gguf", ".hidden.gguf", "a\nb.gguf"],
)
def test_a_file_name_that_leaves_the_folder_is_refused(
    server: LocalServer, store: Store, name: str
) -> None:
    hub_repo(server, "o/r", {name: gguf()})
    with pytest.raises(IntegrityError, match="unsafe path"):
        store.pull("hf:o/r")
    assert not store.list()


def test_a_hub_that_is_not_there_is_a_source_error(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    with LocalServer() as gone:
        monkeypatch.setenv("HF_ENDPOINT", gone.url)
    with pytest.raises(SourceError, match="could not be reached"):
        store.pull("hf:o/r")


def test_offline_the_hub_is_not_asked(server: LocalServer, store: Store) -> None:
    hub_repo(server, "o/r", {"m.gguf": gguf()})
    with pytest.raises(SourceError, match="offline"):
        Store(store.home, offline=True).pull("hf:o/r")
    assert not server.requests
    store.pull("hf:o/r")
    assert Store(store.home, offline=True).resolve("hf:o/r").path.read_bytes() == gguf()
