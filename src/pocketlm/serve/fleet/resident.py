"""One loaded model: its worker, who uses it, and when it goes."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

from pocketlm.serve.fleet.names import Wanted
from pocketlm.serve.fleet.process import Worker
from pocketlm.serve.generation import LoadedModel, ModelFacts
from pocketlm.serve.observe.watcher import Leave


class Resident:
    """Attributes:
    memory: bytes that it may take.
    users: requests that hold it; only without any may it go.
    used: when the last one came, of the loop's clock.
    keep_alive: seconds that it stays after the last one; negative is for ever.
    why: it goes.
    """

    def __init__(
        self, wanted: Wanted, worker: Worker, memory: int, ready: Mapping[str, Any]
    ) -> None:
        fields = {**ready["facts"], "capabilities": frozenset(ready["facts"]["capabilities"])}
        self.wanted = wanted
        self.worker = worker
        self.memory = memory
        self.kv_tokens: int = ready["kv_tokens"]
        self.facts = ModelFacts(**fields)
        self.pinned = wanted.pinned
        self.users = 0
        self.keep_alive = 0.0
        self.why: Leave = "end"
        self.used = asyncio.get_running_loop().time()
        self._loaded = datetime.now(UTC)
        self._expires: datetime | None = None
        self._timer: asyncio.TimerHandle | None = None

    def take(self) -> None:
        """One more user."""
        self.users += 1
        self.used = asyncio.get_running_loop().time()
        self.stop_timer()

    def start_timer(self, expire: Callable[[], None]) -> None:
        """``expire`` is called when nobody has come until its time is over."""
        self.stop_timer()
        if self.pinned or self.keep_alive < 0:
            return
        self._expires = datetime.now(UTC) + timedelta(seconds=self.keep_alive)
        self._timer = asyncio.get_running_loop().call_later(self.keep_alive, expire)

    def stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer, self._expires = None, None

    def record(self) -> LoadedModel:
        """How it stands now."""
        running, _, used = self.worker.load
        asked = self.worker.open_requests
        running = min(running, asked)
        expires = self._expires
        if expires is None and not self.pinned and self.keep_alive >= 0:
            expires = datetime.now(UTC) + timedelta(seconds=self.keep_alive)
        return LoadedModel(
            facts=self.facts,
            memory=self.memory,
            loaded=self._loaded,
            expires=expires,
            pinned=self.pinned,
            running=running,
            waiting=asked - running,
            pid=self.worker.pid,
            kv_tokens=self.kv_tokens,
            kv_used=used if asked else 0,
            prompt_tokens=self.worker.prompt_tokens,
            output_tokens=self.worker.output_tokens,
        )
