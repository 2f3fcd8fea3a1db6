"""Answers that are kept, old, refused, late or not there."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from pathlib import Path

import pytest

from pocketlm.errors import NotFoundError, SourceError
from pocketlm.search.answers import FRESH, Answers, Ask
from pocketlm.search.cache import Cache, Kept
from pocketlm.store.web import Web
from search.fake_hub import FakeHub, record
from store.local_server import LocalServer

Run = Callable[..., tuple[int, str, str]]
LATER = datetime(2027, 1, 1, tzinfo=UTC)


class Clock:
    """A time that a test sets, and the naps that were taken."""

    def __init__(self) -> None:
        self.now = LATER
        self.naps: list[float] = []
        self.webs: list[Web] = []

    def answers(self, folder: Path, *, refresh: bool = False) -> Answers:
        self.webs.append(Web(patience_s=5))
        return Answers(
            self.webs[-1],
            Cache(folder),
            refresh=refresh,
            now=lambda: self.now,
            sleep=self.naps.append,
        )


@pytest.fixture
def clock() -> Iterator[Clock]:
    clock = Clock()
    yield clock
    for web in clock.webs:
        with web:
            pass


@pytest.fixture
def ask(server: LocalServer) -> Ask:
    return Ask(f"{server.url}/facts", "facts")


def test_a_young_answer_is_not_asked_for_again(
    server: LocalServer, ask: Ask, clock: Clock, tmp_path: Path
) -> None:
    server.put("/facts", b"[1]")
    assert clock.answers(tmp_path).get(ask).body == [1]
    again = clock.answers(tmp_path)
    assert again.get(ask).body == [1]
    assert (again.cached, again.oldest) == (True, LATER)
    assert len(server.requests) == 1
    assert clock.answers(tmp_path, refresh=True).get(ask).body == [1]
    clock.now += FRESH
    assert clock.answers(tmp_path).get(ask).body == [1]
    assert len(server.requests) == 3


def test_an_old_answer_is_asked_for_by_its_etag(hub: FakeHub, clock: Clock, tmp_path: Path) -> None:
    hub.etag = 'W/"1"'
    hub.records = [record("acme/a")]
    ask = Ask(f"{hub.server.url}/api/models", "models")
    clock.answers(tmp_path).get(ask)
    clock.now += FRESH
    answers = clock.answers(tmp_path)
    body = answers.get(ask).body
    assert isinstance(body, list)
    assert body[0]["id"] == "acme/a"
    assert (answers.cached, answers.oldest) == (False, clock.now)
    assert hub.asked[1].headers["if-none-match"] == 'W/"1"'
    assert Cache(tmp_path).get(ask.key) is not None


def test_who_asks_with_a_token_gets_no_answer_of_another(tmp_path: Path) -> None:
    keys = {Ask("https://h/x", "x", h).key for h in ({}, {"Authorization": "a"})}
    keys.add(Ask("https://h/x", "x", {"Authorization": "Bearer hf_secret"}).key)
    assert len(keys) == 3
    assert not any("hf_secret" in key for key in keys)


def test_a_short_wait_is_waited(
    server: LocalServer, ask: Ask, clock: Clock, tmp_path: Path
) -> None:
    server.put("/facts", b"{}", statuses=[429, 503], headers={"Retry-After": "2"})
    assert clock.answers(tmp_path).get(ask).body == {}
    assert clock.naps == [2.0, 2.0]


@pytest.mark.parametrize(
    ("after", "says"),
    [
        ("90", "in 90 seconds"),
        ("600", "in 10 minutes"),
        (format_datetime(LATER + timedelta(seconds=300)), "in 5 minutes"),
    ],
)
def test_a_long_wait_is_said(
    after: str, says: str, server: LocalServer, ask: Ask, clock: Clock, tmp_path: Path
) -> None:
    server.put("/facts", status=429, headers={"Retry-After": after})
    with pytest.raises(SourceError, match=f"too many requests.*{says}.*HF_TOKEN"):
        clock.answers(tmp_path).get(ask)
    assert clock.naps == []
    assert len(server.requests) == 1


@pytest.mark.parametrize("after", ["", "soon", "-1", "1e9", "99999999999999999999", "\u00b2"])
def test_a_wait_that_is_none_is_tried_thrice(
    after: str, server: LocalServer, ask: Ask, clock: Clock, tmp_path: Path
) -> None:
    server.put("/facts", status=503, headers={"Retry-After": after})
    with pytest.raises(SourceError, match="answered 503"):
        clock.answers(tmp_path).get(ask)
    assert clock.naps == [0.5, 1.0]


@pytest.mark.parametrize(
    ("status", "kind", "says"),
    [
        (401, SourceError, "refuses to tell facts.*HF_TOKEN"),
        (403, SourceError, "refuses to tell facts.*HF_TOKEN"),
        (404, NotFoundError, "does not know facts"),
        (500, SourceError, "answered 500"),
    ],
)
def test_refusals(
    status: int, kind: type[Exception], says: str, server: LocalServer, ask: Ask, clock: Clock,
    tmp_path: Path,
) -> None:  # fmt: skip
    server.put("/facts", status=status)
    with pytest.raises(kind, match=says):
        clock.answers(tmp_path).get(ask)


@pytest.mark.parametrize("body", [b"", b"<html>", b"[" * 100_000, b'{"a":'])
def test_what_is_no_json(
    body: bytes, server: LocalServer, ask: Ask, clock: Clock, tmp_path: Path
) -> None:
    server.put("/facts", body)
    with pytest.raises(SourceError, match="no JSON"):
        clock.answers(tmp_path).get(ask)


def test_an_answer_without_end_is_cut(
    server: LocalServer,
    ask: Ask,
    clock: Clock,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("pocketlm.store.web._MAX_DOCUMENT", 1000)
    server.put("/facts", b"[" + b"1," * 1000 + b"1]")
    for question in (ask, replace(ask, content=b"{}")):
        with pytest.raises(SourceError, match="longer than 1,000 bytes"):
            clock.answers(tmp_path).get(question)


def test_a_lost_host_is_waited_for_once(
    server: LocalServer, ask: Ask, clock: Clock, tmp_path: Path
) -> None:
    server.put("/facts", b"[1, 2, 3]", cuts=[2] * 9)
    answers = clock.answers(tmp_path)
    for _ in range(2):
        with pytest.raises(SourceError, match="could not be reached"):
            answers.get(ask)
    assert len(server.requests) == 1


def test_a_kept_answer_stands_in_for_a_network_that_fails(
    hub: FakeHub, pocketlm: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    hub.records = [record("acme/a")]
    pocketlm("search", "--no-count")
    monkeypatch.setattr("pocketlm.search.answers.FRESH", timedelta())
    hub.status = 500
    monkeypatch.setattr("time.sleep", lambda seconds: None)
    code, out, err = pocketlm("search", "--no-count")
    assert code == 0
    assert "hf:acme/a" in out
    assert "hub: cached just now" in out
    assert "answered 500" in err
    assert "this is what was kept" in err


@pytest.mark.parametrize("variable", ["POCKETLM_OFFLINE", "HF_HUB_OFFLINE"])
def test_offline_what_is_kept_answers_however_old(
    variable: str, hub: FakeHub, pocketlm: Run, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    hub.records = [record("acme/a")]
    pocketlm("search", "--no-count")
    (path,) = (tmp_path / "home" / "search").glob("*.json")
    document = json.loads(path.read_text())
    document["fetched"] = (datetime.now(UTC) - timedelta(hours=3, minutes=1)).isoformat()
    path.write_text(json.dumps(document))
    monkeypatch.setenv(variable, "1")
    code, out, err = pocketlm("search")
    assert code == 0
    assert "hub: cached 3 hours ago" in out
    assert "PocketLM is offline" in err
    assert len(hub.asked) == 1


def test_offline_another_search_looks_among_what_was_seen_before(
    hub: FakeHub, pocketlm: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    hub.records = [record("acme/a-1", likes=1), record("acme/b")]
    pocketlm("search", "--no-count")
    hub.records = [record("acme/a-2", likes=7), record("acme/a-1", likes=2)]
    pocketlm("search", "a", "--no-count")
    monkeypatch.setenv("POCKETLM_OFFLINE", "1")
    code, out, err = pocketlm("search", "acme a-", "--sort", "likes", "--json", "--no-count")
    assert code == 0
    found = [(one["id"], one["likes"]) for one in json.loads(out)["found"]]
    assert found == [("acme/a-2", 7), ("acme/a-1", 2)]
    assert "looked among the 3 models of the hub that were seen before" in err
    assert "PocketLM is offline" in err


def test_offline_with_nothing_kept_there_is_no_answer(
    hub: FakeHub, pocketlm: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("POCKETLM_OFFLINE", "1")
    code, _, err = pocketlm("search", "another")
    assert code == 1
    assert "Unset POCKETLM_OFFLINE" in err
    assert hub.asked == []


def test_an_unreachable_network_is_said(pocketlm: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    code, _, err = pocketlm("search")
    assert code == 1
    assert "http://127.0.0.1:9/api/models could not be reached" in err
    assert "Check the network" in err


@pytest.mark.parametrize("body", [b"", b"{", b"[]", b'{"version": 9}', b"[" * 100_000, None])
def test_a_corrupt_file_is_named_and_skipped(
    body: bytes | None, hub: FakeHub, pocketlm: Run, tmp_path: Path
) -> None:
    hub.records = [record("acme/a")]
    pocketlm("search", "--no-count")
    (path,) = (tmp_path / "home" / "search").glob("*.json")
    if body is None:
        path.write_text(path.read_text().replace("+00:00", ""))
    else:
        path.write_bytes(body)
    code, out, err = pocketlm("search", "--no-count")
    assert code == 0
    assert "hf:acme/a" in out
    assert f"the cached answer {path} was skipped" in err
    _, _, err = pocketlm("search", "--no-count")
    assert err == ""


def test_a_home_that_cannot_be_written_takes_nothing_from_a_search(
    hub: FakeHub, pocketlm: Run, tmp_path: Path
) -> None:
    hub.records = [record("acme/a")]
    (tmp_path / "home").mkdir()
    (tmp_path / "home" / "search").write_text("a file")
    code, out, err = pocketlm("search", "--no-count")
    assert code == 0
    assert "hf:acme/a" in out
    assert "could not be kept" in err


def test_the_oldest_go_when_all_take_too_much(tmp_path: Path) -> None:
    import os

    cache = Cache(tmp_path, most_bytes=3000, most_files=4)
    for i in range(6):
        cache.put(str(i), Kept("x" * 100, LATER))
        os.utime(cache._path(str(i)), (i, i))
    cache.prune()
    assert [i for i in range(6) if cache.get(str(i)) is not None] == [2, 3, 4, 5]
    cache.put("large", Kept("x" * 2700, LATER))
    cache.prune()
    assert cache.get("large") is not None
    assert sum(path.stat().st_size for path in tmp_path.iterdir()) <= 3000
