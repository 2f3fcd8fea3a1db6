"""``pocketlm serve`` in a process of its own, for tests of what only a whole server shows."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx


@dataclass
class RunningServer:
    """``home`` is its store."""

    process: subprocess.Popen[str]
    url: str
    home: Path

    def get(self, path: str) -> httpx.Response:
        return httpx.get(self.url + path, timeout=60)

    def post(self, path: str, body: Any) -> httpx.Response:
        return httpx.post(self.url + path, json=body, timeout=60)

    def workers(self) -> list[int]:
        """Their process ids."""
        return [model["pid"] for model in self.get("/admin/models").json()["models"]]

    def wait_ready(self) -> None:
        wait(lambda: self.get("/ready").status_code == 200)

    def end(self) -> tuple[int, str]:
        """Its exit status and what it said, once it has ended."""
        _, said = self.process.communicate(timeout=30)
        return self.process.returncode, said


@contextmanager
def running_server(home: Path, *arguments: str) -> Iterator[RunningServer]:
    """A server on a free port with one thread for each model; killed in the end if it lives."""
    process = start(home, "--port", "0", "--json", "--threads", "1", *arguments)
    try:
        assert process.stdout is not None
        line = process.stdout.readline()
        assert line, f"it did not start: {process.communicate()[1]}"
        yield RunningServer(process, json.loads(line)["url"], home)
    finally:
        process.kill()
        process.communicate()


def start(home: Path, *arguments: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "pocketlm", "serve", *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "POCKETLM_HOME": str(home)},
    )


def wait(condition: Any, seconds: float = 20) -> None:
    """Returns when the condition holds; fails when it does not come to."""
    for _ in range(int(seconds / 0.02)):
        if condition():
            return
        time.sleep(0.02)
    raise AssertionError("it did not come")


def alive(pids: Sequence[int]) -> list[int]:
    """Those of the processes that have not ended."""
    return [pid for pid in pids if _state(pid) not in (None, "Z")]


def _state(pid: int) -> str | None:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return None
