"""Run as a program: forks processes that pull, so that a test can kill them. JSON, line by line.

    {"do": "start", "home": …, "ref": …, "environment": {…}, "kill_at": n | null, "room": n | null}
                                        -> {"pid": …}
    {"do": "wait", "pid": …}            -> {"code": …}, minus the signal as subprocess has it

Everything is imported before the first fork, so that a child costs milliseconds.
"""

from __future__ import annotations

import json
import os
import resource
import signal
import sys
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


def kill_before(change_number: int, home: str) -> None:
    """SIGKILL to this process before its n-th change below ``home``; every ``os.write`` is one."""
    count, write = 0, os.write

    def change() -> None:
        nonlocal count
        count += 1
        if count == change_number:
            os.kill(os.getpid(), signal.SIGKILL)

    def audited(event: str, arguments: tuple[Any, ...]) -> None:
        if event in CHANGES and str(arguments[0]).startswith(home):
            change()

    def counted(descriptor: int, data: bytes) -> int:
        change()
        return write(descriptor, data)

    os.write = counted
    sys.addaudithook(audited)


def pull(job: dict[str, Any]) -> int:
    os.environ.update(job["environment"])
    store = Store(Path(job["home"]))
    if job["room"] is not None:  # no file may grow beyond it, as on a disk that is full
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)  # the write then fails with EFBIG
        resource.setrlimit(resource.RLIMIT_FSIZE, (job["room"], job["room"]))
    if job["kill_at"] is not None:
        kill_before(job["kill_at"], job["home"])
    try:
        store.pull(job["ref"])
    except CapacityError as error:
        return 7 if "the disk is full" in str(error) else 8
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
