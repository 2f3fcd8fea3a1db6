"""The file of keys: what is in it, who sees changes, what is refused."""

from __future__ import annotations

import json
import os
import re
import stat
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from pocketlm.errors import ModelFileError, NotFoundError, RequestError
from pocketlm.serve.guard.keys import (
    Key,
    KeyFile,
    Rate,
    Uses,
    make_key,
    parse_lifetime,
    parse_rate,
)


@pytest.fixture
def keys(tmp_path: Path) -> KeyFile:
    return KeyFile(tmp_path, tmp_path / "locks")


def added(keys: KeyFile, name: str = "a", **limits: object) -> tuple[Key, str]:
    key, text = make_key(name, **limits)  # type: ignore[arg-type]
    keys.add(key)
    return key, text


def test_the_form_has_enough_random_bits(keys: KeyFile) -> None:
    texts = {make_key("a")[1] for _ in range(50)}
    assert len(texts) == 50
    for text in texts:
        assert re.fullmatch(r"plm_[0-9a-f]{12}_[\w-]{32}", text)  # 32 x 6 bits


def test_no_secret_is_stored(keys: KeyFile) -> None:
    _, text = added(keys)
    assert text.split("_", 2)[2][-16:] not in keys.path.read_text()
    assert keys.find(text) is not None


@pytest.mark.skipif(os.name == "nt", reason="POSIX modes")
def test_the_file_is_its_owners(keys: KeyFile) -> None:
    added(keys)
    assert stat.S_IMODE(keys.path.stat().st_mode) == 0o600
    assert [path.name for path in keys.path.parent.iterdir() if path.is_file()] == ["keys.json"]
    keys.path.chmod(0o666)
    with pytest.raises(ModelFileError, match="others may write"):
        KeyFile(keys.path.parent, keys.path.parent / "locks").all()


def test_another_process_sees_changes_at_once(keys: KeyFile, tmp_path: Path) -> None:
    server = KeyFile(tmp_path, tmp_path / "locks")
    assert list(server.all()) == []
    key, text = added(keys)
    assert server.find(text) == key
    keys.revoke(key.id)
    found = server.find(text)
    assert found is not None
    assert found.state(datetime.now(UTC)) == "revoked"


def test_all_fields_survive(keys: KeyFile, tmp_path: Path) -> None:
    key, text = added(
        keys,
        scopes=("infer", "manage"),
        models=("qwen3:*",),
        lifetime=timedelta(days=90),
        rate=Rate(60, 60.0),
        concurrency=4,
    )
    assert KeyFile(tmp_path, tmp_path / "locks").find(text) == key


@pytest.mark.parametrize("change", ["id", "secret", "none", "short", "case"])
def test_what_is_not_exactly_the_key_is_no_key(keys: KeyFile, change: str) -> None:
    key, text = added(keys)
    other, _ = added(keys, "b")
    secret = text.rpartition(key.id + "_")[2]
    wrong = {
        "id": f"plm_{other.id}_{secret}",
        "secret": f"plm_{key.id}_{'A' * 32}",
        "none": f"plm_{key.id}_",
        "short": text[:-1],
        "case": text.upper(),
    }
    assert keys.find(wrong[change]) is None


def test_revoking_names_one_key(keys: KeyFile) -> None:
    added(keys)
    added(keys)
    with pytest.raises(RequestError, match="several"):
        keys.revoke("a")
    with pytest.raises(NotFoundError):
        keys.revoke("nobody")


@pytest.mark.parametrize(
    "content",
    [b"", b"[]", b"{}", b"\xff", b'{"version": 2, "keys": []}', b'{"version": 1, "keys": [{}]}'],
)
def test_broken_files_are_refused(keys: KeyFile, content: bytes) -> None:
    keys.path.write_bytes(content)
    keys.path.chmod(0o600)
    with pytest.raises(ModelFileError, match="broken"):
        keys.all()


def test_a_deeply_nested_file_is_refused(keys: KeyFile) -> None:
    keys.path.write_text("[" * 100_000)
    with pytest.raises(ModelFileError):
        keys.all()


def test_the_file_is_json_of_one_version(keys: KeyFile) -> None:
    added(keys)
    assert json.loads(keys.path.read_text())["version"] == 1


def test_a_bucket_fills_up_again() -> None:
    key, _ = make_key("a", rate=Rate(2, 10.0))
    uses = Uses()
    assert uses.begin(key, 0.0) is None
    assert uses.begin(key, 0.0) is None
    assert uses.begin(key, 0.0) == pytest.approx(5.0)
    assert uses.begin(key, 5.0) is None
    assert uses.begin(key, 5.0) is not None
    assert uses.begin(key, 1000.0) is None
    assert uses.begin(key, 1000.0) is None
    assert uses.begin(key, 1000.0) is not None, "it never holds more than two"


def test_at_once_counts_those_that_ended() -> None:
    key, _ = make_key("a", concurrency=2)
    uses = Uses()
    assert [uses.begin(key) for _ in range(3)] == [None, None, 1.0]
    uses.end(key)
    assert uses.begin(key) is None


def test_texts_of_limits() -> None:
    assert parse_rate("60/m") == Rate(60, 60.0)
    assert parse_lifetime("12h") == timedelta(hours=12)
    for bad in ("60", "0/m", "-1/s", "1/d", "1.5/s", "1/m "):
        with pytest.raises(RequestError):
            parse_rate(bad)
    for bad in ("90", "0d", "-1d", "1x", "", "1e3d"):
        with pytest.raises(RequestError):
            parse_lifetime(bad)
    for bad in ("", "a" * 65, "a\nb", "\x1b[31m"):
        with pytest.raises(RequestError):
            make_key(bad)
