"""Writing is all or nothing: failing disks, interrupts and kills leave no half file."""

from __future__ import annotations

import errno
import os
import resource
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pocketlm.errors import CapacityError, PocketLMError, RequestError
from pocketlm.gguf import BlockType, GGUFFile, TensorData, write_gguf


def floats(count: int = 8) -> TensorData:
    return TensorData("t", BlockType.F32, (count,), np.arange(count, dtype=np.float32))


def test_short_writes_are_continued(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write = os.write
    monkeypatch.setattr(os, "write", lambda fd, data: write(fd, memoryview(data)[:7]))
    write_gguf(tmp_path / "m.gguf", {"k": "v"}, [floats()])
    monkeypatch.undo()
    assert GGUFFile.open(tmp_path / "m.gguf").tensor("t").tolist() == list(range(8))


def error_of(call: Callable[[], None]) -> PocketLMError | None:
    try:
        call()
    except PocketLMError as error:
        return error
    return None


@pytest.mark.parametrize(
    ("code", "wanted"),
    [
        (errno.ENOSPC, CapacityError),
        (errno.EDQUOT, CapacityError),
        (errno.EIO, PocketLMError),
        (errno.EROFS, RequestError),
    ],
)
@pytest.mark.parametrize("call", ["open", "write", "fsync", "replace"])
def test_every_failing_call_leaves_the_old_file(
    call: str,
    code: int,
    wanted: type[PocketLMError],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    path = tmp_path / "m.gguf"
    write_gguf(path, {"which": "old"}, [floats()])
    seen = 0
    for failing in range(100):
        count = 0
        real = getattr(os, call)

        def fail(*args: Any, real: Any = real, failing: int = failing, **more: Any) -> Any:
            nonlocal count
            count += 1
            if count == failing + 1:
                raise OSError(code, os.strerror(code))
            return real(*args, **more)

        with monkeypatch.context() as patch:
            patch.setattr(os, call, fail)
            caught = error_of(lambda: write_gguf(path, {"which": "new"}, [floats()]))
        if caught is None:
            break
        assert type(caught) is wanted
        assert caught.path == path
        seen += 1
        assert list(tmp_path.iterdir()) == [path]
        # after the rename only the folder's own fsync can fail: the new file is whole then
        assert GGUFFile.open(path).metadata["which"] in ("old", "new")
        write_gguf(path, {"which": "old"}, [floats()])
    assert seen
    assert GGUFFile.open(path).metadata["which"] == "new"


def test_a_full_disk(tmp_path: Path) -> None:
    path = tmp_path / "m.gguf"
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 16, hard))
    try:
        with pytest.raises(CapacityError, match="the disk is full"):
            write_gguf(path, {}, [floats(1 << 16)])
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        signal.signal(signal.SIGXFSZ, handler)
    assert not list(tmp_path.iterdir())


def test_an_interrupt_leaves_nothing(tmp_path: Path) -> None:
    def interrupted() -> Iterator[bytes]:
        yield bytes(16)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_gguf(tmp_path / "m.gguf", {}, [TensorData("t", BlockType.F32, (8,), interrupted)])
    assert not list(tmp_path.iterdir())


def test_a_folder_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(RequestError, match="No such file"):
        write_gguf(tmp_path / "none" / "m.gguf", {}, [])


def test_a_kill_at_any_write_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "m.gguf"
    write_gguf(path, {"which": "old"}, [floats()])
    program = """
import os, sys
from pathlib import Path
from pocketlm.gguf import BlockType, TensorData, write_gguf
path, call, left = Path(sys.argv[1]), sys.argv[2], int(sys.argv[3])
real = getattr(os, call)
def killed(*args, **more):
    global left
    left -= 1
    if left < 0:
        os.kill(os.getpid(), 9)
    return real(*args, **more)
setattr(os, call, killed)
write_gguf(path, {"which": "new"}, [TensorData("t", BlockType.F32, (9,), bytes(36))])
"""
    for call, times in (("write", 3), ("fsync", 1), ("replace", 1)):
        for left in range(times):
            arguments = [sys.executable, "-c", program, str(path), call, str(left)]
            done = subprocess.run(arguments, check=False, timeout=60)
            assert done.returncode == -signal.SIGKILL, (call, left)
            assert GGUFFile.open(path).metadata["which"] == "old"
