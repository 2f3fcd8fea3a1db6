"""Run as a program: forks processes that pull, so that a test can kill them. JSON, line by line.

    {"do": "start", "home": …, "ref": …, "environment": {…}, "room": n | null,
     "kill_at": n | null, "fail_at": n | null}
                                        -> {"pid": …}
    {"do": "wait", "pid": …}            -> {"code": …}, minus the signal as subprocess has it

Everything is imported before the first fork, so that a child costs milliseconds.
"""

from __future__ import annotations

import errno
import json
import os
import resource
import signal
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx  # noqa: F401 - imported lazily by the store
import huggingface_hub  # noqa: F401

import pocketlm.gguf
import pocketlm.store.sources.hub
import pocketlm.store.sources.pypi  # noqa: F401
from pocketlm.errors import CapacityError
from pocketlm.store import Store

CHANGES = {"open", "os.rename", "os.remove", "os.mkdir", "os.link", "os.chmod", "os.rmdir"}


def kill() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def fail() -> None:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def before(change_number: int, home: str, happen: Callable[[], None]) -> None:
    """Something happens before the n-th change below ``home``; each write and sync is one."""
    count, write, fsync = 0, os.write, os.fsync

    def change() -> None:
        nonlocal count
        count += 1
        if count == change_number:
            happen()

    def audited(event: str, arguments: tuple[Any, ...]) -> None:
        if event not in CHANGES or not str(arguments[0]).startswith(home):
            return
        if event != "open" or arguments[2] & (os.O_WRONLY | os.O_RDWR):
            change()

    def counted(descriptor: int, data: bytes) -> int:
        change()
        return write(descriptor, data)

    def synced(descriptor: int) -> None:
        change()
        fsync(descriptor)

    os.write, os.fsync = counted, synced
    sys.addaudithook(audited)


def pull(job: dict[str, Any]) -> int:
    os.environ.update(job["environment"])
    store = Store(Path(job["home"]))
    if job["room"] is not None:  # no file may grow beyond it, as on a disk that is full
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)  # the write then fails with EFBIG
        resource.setrlimit(resource.RLIMIT_FSIZE, (job["room"], job["room"]))
    for at, happen in (("kill_at", kill), ("fail_at", fail)):
        if job[at] is not None:
            before(job[at], job["home"], happen)
    try:
        store.pull(job["ref"])
    except CapacityError as error:
        return 7 if "the disk is full" in str(error) else 8
    except Exception:
        traceback.print_exc()
        return 1
    return 0


def main() -> None:
    for line in sys.stdin:
        job = json.loads(line)
        if job["do"] == "wait":
            code = os.waitstatus_to_exitcode(os.waitpid(job["pid"], 0)[1])
            print(json.dumps({"code": code}), flush=True)
            continue
        pid = os.fork()
        if pid == 0:
            os._exit(pull(job))
        print(json.dumps({"pid": pid}), flush=True)


if __name__ == "__main__":
    main()
