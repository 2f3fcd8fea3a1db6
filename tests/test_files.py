"""Writing durably: what a crash, a disk that lies and a short write leave behind."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from pocketlm import files
from pocketlm.errors import IntegrityError


def test_short_writes_are_continued(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write = os.write
    monkeypatch.setattr(os, "write", lambda descriptor, data: write(descriptor, data[:3]))
    with files.created(tmp_path / "f", os.O_TRUNC) as descriptor:
        files.write_all(descriptor, b"0123456789")
    assert (tmp_path / "f").read_bytes() == b"0123456789"


def test_how_a_file_is_created(tmp_path: Path) -> None:
    path = tmp_path / "f"
    for how, wanted in ((os.O_EXCL, b"a"), (os.O_APPEND, b"aa"), (os.O_TRUNC, b"a")):
        with files.created(path, how) as descriptor:
            files.write_all(descriptor, b"a")
        assert path.read_bytes() == wanted
    with pytest.raises(FileExistsError):
        files.create(path, os.O_EXCL)
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(descriptor)


def test_content_is_durable_before_the_name_and_the_name_before_the_return(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    temporary, target = tmp_path / "t", tmp_path / "f"
    temporary.write_bytes(b"new")
    target.write_bytes(b"old")
    synced, fsync = [], os.fsync

    def record(descriptor: int) -> None:
        what = Path(f"/proc/self/fd/{descriptor}").readlink().name
        synced.append((what, target.read_bytes()))
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", record)
    files.commit(temporary, target, 3)
    assert synced == [("t", b"old"), (tmp_path.name, b"new")]
    assert not temporary.exists()


def test_a_disk_that_lost_bytes_is_found_out(tmp_path: Path) -> None:
    temporary, target = tmp_path / "t", tmp_path / "f"
    temporary.write_bytes(b"ne")
    target.write_bytes(b"old")
    with pytest.raises(IntegrityError, match="2 of the 3 bytes"):
        files.commit(temporary, target, 3)
    assert target.read_bytes() == b"old"
