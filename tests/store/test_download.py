"""The download: resumed, verified, and never sending a secret to the wrong host."""

from __future__ import annotations

import errno
import json
import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from local_server import QUICK, LocalServer, Resource, sha256

from pocketlm.errors import CapacityError, IntegrityError, NotFoundError, SourceError
from pocketlm.progress import Progress, silent
from pocketlm.store import files
from pocketlm.store.download import Fetched, Remote, fetch
from pocketlm.store.web import Web

DATA = bytes(range(256)) * 4000  # 1,024,000 bytes
ETAG = f'"{sha256(DATA)[:20]}"'


@pytest.fixture
def web() -> Iterator[Web]:
    with Web() as web:
        yield web


def remote(
    server: LocalServer, *, size: int | None = len(DATA), digest: str | None = None
) -> Remote:
    return Remote(f"{server.url}/m.gguf", "m.gguf", size, digest)


def get(what: Remote, folder: Path, web: Web) -> Fetched:
    return fetch(what, folder, web, silent, QUICK)


def test_the_bytes_arrive_with_their_hash_and_progress(
    server: LocalServer, web: Web, tmp_path: Path
) -> None:
    server.put("/m.gguf", DATA, etag=ETAG)
    seen: list[Progress] = []
    found = fetch(remote(server, digest=sha256(DATA)), tmp_path, web, seen.append, QUICK)
    assert found.path.read_bytes() == DATA
    assert (found.size, found.sha256) == (len(DATA), sha256(DATA))
    assert seen[-1] == Progress("download m.gguf", len(DATA), len(DATA), sha256(DATA))
    assert [p.done for p in seen] == sorted(p.done for p in seen)


def test_a_cut_connection_is_resumed_where_it_broke(
    server: LocalServer, web: Web, tmp_path: Path
) -> None:
    server.put("/m.gguf", DATA, etag=ETAG, cuts=[300_000, 200_000])
    found = get(remote(server), tmp_path, web)
    assert found.path.read_bytes() == DATA
    first, second, third = server.asked("/m.gguf")
    assert "range" not in first.headers
    assert second.headers["range"] == "bytes=300000-"
    assert third.headers["range"] == "bytes=500000-"
    assert second.headers["if-range"] == ETAG


def test_another_process_goes_on_from_the_partial_file(
    server: LocalServer, web: Web, tmp_path: Path
) -> None:
    resource = server.put("/m.gguf", DATA, etag=ETAG, cuts=[100_000, 0, 0, 0, 0])
    what = remote(server, digest=sha256(DATA))
    with pytest.raises(SourceError, match=r"broke off 4 times at byte 100,000 of 1,024,000"):
        get(what, tmp_path, web)
    resource.cuts.clear()
    server.requests.clear()
    assert get(what, tmp_path, web).path.read_bytes() == DATA
    assert [r.headers.get("range") for r in server.asked("/m.gguf")] == ["bytes=100000-"]


def test_a_partial_file_of_a_changed_resource_is_thrown_away(
    server: LocalServer, web: Web, tmp_path: Path
) -> None:
    server.put("/m.gguf", DATA, etag='"old"', cuts=[100_000, 0, 0, 0])
    with pytest.raises(SourceError):
        get(remote(server, size=None), tmp_path, web)
    server.put("/m.gguf", DATA[::-1], etag='"new"')
    assert get(remote(server, size=None), tmp_path, web).path.read_bytes() == DATA[::-1]


def test_without_hash_or_etag_nothing_is_resumed(
    server: LocalServer, web: Web, tmp_path: Path
) -> None:
    server.put("/m.gguf", DATA, cuts=[100_000, 0, 0, 0])
    with pytest.raises(SourceError):
        get(remote(server), tmp_path, web)
    server.put("/m.gguf", DATA)
    server.requests.clear()
    assert get(remote(server), tmp_path, web).path.read_bytes() == DATA
    assert "range" not in server.asked("/m.gguf")[0].headers


def test_a_server_without_ranges_starts_again(
    server: LocalServer, web: Web, tmp_path: Path
) -> None:
    server.put("/m.gguf", DATA, cuts=[300_000], ranges=False)
    assert get(remote(server, digest=sha256(DATA)), tmp_path, web).path.read_bytes() == DATA


def test_a_whole_partial_file_needs_no_request(
    server: LocalServer, web: Web, tmp_path: Path
) -> None:
    what = remote(server, digest=sha256(DATA))
    (tmp_path / what.key).write_bytes(DATA)
    assert get(what, tmp_path, web).sha256 == sha256(DATA)
    assert not server.requests


def test_range_not_satisfiable_at_the_end_means_complete(
    server: LocalServer, web: Web, tmp_path: Path
) -> None:
    server.put("/m.gguf", DATA, etag=ETAG)
    what = remote(server, size=None, digest=sha256(DATA))
    (tmp_path / what.key).write_bytes(DATA)
    assert get(what, tmp_path, web).path.read_bytes() == DATA
    assert server.asked("/m.gguf")[0].headers["range"] == f"bytes={len(DATA)}-"


def test_range_not_satisfiable_elsewhere_starts_again(
    server: LocalServer, web: Web, tmp_path: Path
) -> None:
    server.put("/m.gguf", DATA, etag=ETAG)
    what = remote(server, size=None, digest=sha256(DATA))
    (tmp_path / what.key).write_bytes(DATA + b"more")
    assert get(what, tmp_path, web).path.read_bytes() == DATA


def test_a_damaged_partial_file_costs_one_more_download(
    server: LocalServer, web: Web, tmp_path: Path
) -> None:
    """Zeros at its end, as a power cut leaves them, are no fault of the source."""
    server.put("/m.gguf", DATA, etag=ETAG)
    what = remote(server, digest=sha256(DATA))
    for length in (500_000, len(DATA)):
        (tmp_path / what.key).write_bytes(DATA[: length - 4096] + bytes(4096))
        server.requests.clear()
        assert get(what, tmp_path, web).path.read_bytes() == DATA
        assert server.asked("/m.gguf")[-1].headers.get("range") is None


def test_a_resource_that_changes_its_size_on_the_way_is_taken_as_it_is_then(
    server: LocalServer, web: Web, tmp_path: Path
) -> None:
    answers = [Resource(DATA, etag='"old"', cuts=[1000]), Resource(DATA[:5000], etag='"new"')]
    server.resources["/m.gguf"] = lambda request: answers.pop(0)
    assert get(remote(server, size=None), tmp_path, web).path.read_bytes() == DATA[:5000]


@pytest.mark.parametrize("size", [len(DATA), None])
def test_a_wrong_hash_is_refused_and_the_bytes_removed(
    server: LocalServer, web: Web, tmp_path: Path, size: int | None
) -> None:
    server.put("/m.gguf", DATA[:-1] + b"!", etag=ETAG)
    with pytest.raises(IntegrityError, match=f"{sha256(DATA)} was promised"):
        get(remote(server, size=size, digest=sha256(DATA)), tmp_path, web)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("body", [DATA[:-5], DATA + b"more"])
def test_a_wrong_size_is_refused_before_the_body(
    server: LocalServer, web: Web, tmp_path: Path, body: bytes
) -> None:
    server.put("/m.gguf", body)
    with pytest.raises(IntegrityError, match=r"1,024,000 were promised"):
        get(remote(server), tmp_path, web)
    assert not list(tmp_path.iterdir())


def test_a_body_of_unsaid_length_must_not_be_longer_than_promised(
    server: LocalServer, web: Web, tmp_path: Path
) -> None:
    server.put("/m.gguf", DATA + b"more", sized=False)
    with pytest.raises(IntegrityError, match="is longer than"):
        get(remote(server), tmp_path, web)
    assert not list(tmp_path.iterdir())


def test_a_body_of_unsaid_length_that_ends_early_is_resumed(
    server: LocalServer, web: Web, tmp_path: Path
) -> None:
    server.put("/m.gguf", DATA, sized=False, etag=ETAG, cuts=[400_000])
    assert get(remote(server), tmp_path, web).path.read_bytes() == DATA
    assert server.asked("/m.gguf")[1].headers["range"] == "bytes=400000-"


def test_a_busy_server_is_asked_again(server: LocalServer, web: Web, tmp_path: Path) -> None:
    server.put("/m.gguf", DATA, statuses=[503, 429])
    assert get(remote(server), tmp_path, web).size == len(DATA)
    assert len(server.asked("/m.gguf")) == 3


@pytest.mark.parametrize(
    ("status", "error"), [(401, SourceError), (403, SourceError), (404, NotFoundError)]
)
def test_a_refusal_is_final(
    server: LocalServer, web: Web, tmp_path: Path, status: int, error: type[Exception]
) -> None:
    server.put("/m.gguf", status=status)
    with pytest.raises(error, match=r"m\.gguf"):
        get(remote(server), tmp_path, web)
    assert len(server.asked("/m.gguf")) == 1


def test_a_secret_does_not_follow_to_another_host(
    server: LocalServer, elsewhere: LocalServer, web: Web, tmp_path: Path
) -> None:
    elsewhere.put("/stored", DATA, cuts=[1000])
    server.put("/m.gguf", status=307, headers={"Location": "/here"})
    server.put("/here", status=302, headers={"Location": f"{elsewhere.url}/stored"})
    what = Remote(
        f"{server.url}/m.gguf", "m", len(DATA), sha256(DATA), {"Authorization": "Bearer s3cret"}
    )
    assert get(what, tmp_path, web).path.read_bytes() == DATA
    assert server.asked("/m.gguf")[0].headers["authorization"] == "Bearer s3cret"
    assert server.asked("/here")[0].headers["authorization"] == "Bearer s3cret"
    there = elsewhere.asked("/stored")
    assert [request.headers.get("range") for request in there] == [None, "bytes=1000-"]
    assert all("authorization" not in request.headers for request in there)
    note = json.loads((tmp_path / f"{what.key}.json").read_text())
    assert "s3cret" not in json.dumps(note)


def test_https_does_not_become_http() -> None:
    import httpx

    from pocketlm.store.web import _redirect

    request = httpx.Request("GET", "https://hub.example/m")
    response = httpx.Response(302, headers={"Location": "http://hub.example/m"}, request=request)
    with pytest.raises(SourceError, match="plain http"):
        _redirect(response)


@pytest.mark.parametrize("target", ["file:///etc/passwd", "ftp://127.0.0.1/m"])
def test_only_the_web_is_redirected_to(
    server: LocalServer, web: Web, tmp_path: Path, target: str
) -> None:
    server.put("/m.gguf", status=302, headers={"Location": target})
    with pytest.raises(SourceError, match="redirects to"):
        get(remote(server), tmp_path, web)


def test_a_loop_of_redirects_ends(server: LocalServer, web: Web, tmp_path: Path) -> None:
    server.put("/m.gguf", status=302, headers={"Location": "/m.gguf"})
    with pytest.raises(SourceError, match="more than 10 times"):
        get(remote(server), tmp_path, web)


def test_offline_nothing_is_sent(server: LocalServer, tmp_path: Path) -> None:
    server.put("/m.gguf", DATA)
    with Web(offline=True) as web, pytest.raises(SourceError, match="offline"):
        get(remote(server), tmp_path, web)
    assert not server.requests


def test_nobody_there_is_a_source_error(web: Web, tmp_path: Path) -> None:
    with LocalServer() as gone:
        url = gone.url
    with pytest.raises(SourceError, match="broke off 4 times at byte 0"):
        get(Remote(f"{url}/m", "m"), tmp_path, web)


def test_too_little_room_is_known_before_the_body(
    server: LocalServer, web: Web, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    server.put("/m.gguf", DATA)
    monkeypatch.setattr(files, "free_bytes", lambda folder: 1000)
    with pytest.raises(CapacityError, match=r"needs 1,024,000 bytes but only 1,000 are free"):
        get(remote(server), tmp_path, web)


def test_a_disk_that_fills_up_keeps_what_came(
    server: LocalServer, web: Web, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    server.put("/m.gguf", DATA, etag=ETAG)
    write, room = os.write, 500_000

    def limited(descriptor: int, data: bytes) -> int:
        nonlocal room
        if room == 0 and len(data) > 1000:
            raise OSError(errno.ENOSPC, "No space left on device")
        written = write(descriptor, data[:room] if len(data) > 1000 else data)
        room -= written if len(data) > 1000 else 0
        return written

    what = remote(server, digest=sha256(DATA))
    with monkeypatch.context() as patch:
        patch.setattr(os, "write", limited)
        with pytest.raises(CapacityError, match="the disk is full"):
            get(what, tmp_path, web)
    assert (tmp_path / what.key).stat().st_size == 500_000
    assert get(what, tmp_path, web).path.read_bytes() == DATA
    assert server.asked("/m.gguf")[1].headers["range"] == "bytes=500000-"


def test_short_writes_lose_nothing(
    server: LocalServer, web: Web, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    server.put("/m.gguf", DATA)
    write = os.write
    monkeypatch.setattr(os, "write", lambda fd, data: write(fd, data[: max(1, len(data) // 3)]))
    assert get(remote(server, digest=sha256(DATA)), tmp_path, web).path.read_bytes() == DATA


def test_a_server_that_sends_the_wrong_range_is_not_believed(
    server: LocalServer, web: Web, tmp_path: Path
) -> None:
    answers = [
        Resource(DATA, etag=ETAG, cuts=[1000]),
        Resource(DATA[5:], status=206, headers={"Content-Range": f"bytes 5-9/{len(DATA)}"}),
        Resource(DATA, etag=ETAG),
    ]
    server.resources["/m.gguf"] = lambda request: answers.pop(0)
    assert get(remote(server, digest=sha256(DATA)), tmp_path, web).path.read_bytes() == DATA
