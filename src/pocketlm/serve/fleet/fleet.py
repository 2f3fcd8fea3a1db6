"""The fleet: models are loaded when they are asked for, and go when their memory is needed.

What a model will take is known before it is loaded (its worker reads the header first), so room is
made in advance: models that nobody uses go, the least recently used first; where that is not
enough, the ones in use are left to their answers, new requests for them wait behind, and they go
then. Requests for one model share its load; other models serve on meanwhile.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import AsyncIterator, Coroutine, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

from pocketlm.engine.machine import available_memory
from pocketlm.errors import BusyError, CapacityError, PocketLMError, WorkerError
from pocketlm.serve.config import ServeConfig
from pocketlm.serve.fleet.names import Names, Wanted
from pocketlm.serve.fleet.process import COMMAND, Worker
from pocketlm.serve.fleet.remote import RemoteModel
from pocketlm.serve.fleet.resident import Resident
from pocketlm.serve.generation import LoadedModel
from pocketlm.serve.observe.watcher import Leave, Nobody, Watcher
from pocketlm.store import Store

# What a worker takes beside its model: Python and the libraries.
PROCESS_BYTES = 80 << 20
# So many deaths of one model's workers within so many seconds, and it is not started for as long.
_DEATHS, _DEATHS_S = 3, 60.0

_log = logging.getLogger(__name__)


@dataclass
class _Loading:
    """A load under way, how many requests wait for it, and whether it has its memory yet."""

    done: asyncio.Future[Resident]
    waiters: int = 0
    has_room: bool = False
    task: asyncio.Task[None] | None = field(default=None, repr=False)


class WorkerFleet:
    """``generation.Fleet`` over worker processes. For one event loop.

    Args:
        command: starts a worker, given a file descriptor.
        watcher: told of what happens to models.
    """

    def __init__(
        self,
        store: Store,
        config: ServeConfig,
        *,
        command: Sequence[str] = COMMAND,
        watcher: Watcher | None = None,
    ) -> None:
        self._watcher = watcher or Nobody()
        self._names = Names(store, config)
        self._config = config
        self._command = command
        self._budget = available_memory().available if config.memory is None else config.memory
        self._residents: dict[str, Resident] = {}
        self._leaving: set[Resident] = set()
        self._loading: dict[str, _Loading] = {}
        self._reserved = 0  # bytes of models that are being loaded
        self._room = asyncio.Lock()  # one makes room at a time, in order of arrival
        self._changed = asyncio.Event()
        self._needs: dict[str, int] = {}  # bytes of models whose headers were read
        self._looking = asyncio.Lock()  # one header is read at a time where nobody loads it
        self._deaths: dict[str, deque[float]] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._ending: set[asyncio.Task[None]] = set()  # of workers; these are not cancelled
        self._draining = False

    # generation.Fleet

    @property
    def draining(self) -> bool:
        return self._draining

    @asynccontextmanager
    async def use(
        self, name: str, *, keep_alive: float | None = None
    ) -> AsyncIterator[RemoteModel]:
        self._refuse_draining()
        wanted = await asyncio.to_thread(self._names.find, name)
        resident, seconds = await self._take(wanted)
        resident.keep_alive = self._config.keep_alive if keep_alive is None else keep_alive
        facts = replace(resident.facts, name=wanted.name)
        most = self._config.engine.sequences + self._config.queue
        try:
            yield RemoteModel(facts, seconds, resident.worker, most)
        finally:
            self._release(resident)

    def loaded(self) -> Sequence[LoadedModel]:
        return [one.record() for one in (*self._residents.values(), *self._leaving)]

    async def load(
        self, name: str, *, keep_alive: float | None = None, pin: bool | None = None
    ) -> None:
        async with self.use(name, keep_alive=keep_alive) as model:
            for resident in self._residents.values():
                if resident.worker is model.worker and pin is not None:
                    resident.pinned = pin

    async def needs(self, name: str) -> int:
        self._refuse_draining()
        wanted = await asyncio.to_thread(self._names.find, name)
        async with self._looking:
            if wanted.key not in self._needs:
                worker = await self._opened(wanted)
                await worker.end()
            return self._needs[wanted.key]

    async def unload(self, name: str) -> bool:
        resident = await self._resident(name)
        if resident is None:
            return False
        self._leave(resident, "asked")
        await asyncio.shield(resident.worker.gone)
        return True

    # The end

    async def drain(self, seconds: float) -> None:
        """Begins nothing new, and waits for what is under way, at most so long."""
        self._draining = True
        for loading in self._loading.values():
            if loading.task is not None:
                loading.task.cancel()
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                while any(one.users for one in self._all()):
                    await self._next_change()

    async def close(self) -> None:
        """Ends all workers; answers that are still under way end with an error."""
        self._draining = True
        for task in self._tasks:
            task.cancel()
        for one in self._all():
            self._end(one.worker)
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await asyncio.gather(*self._ending)
        self._residents.clear()
        self._leaving.clear()

    # Having a model

    async def _take(self, wanted: Wanted) -> tuple[Resident, float]:
        """The model, held for one user, and how long that took if it had to be loaded."""
        resident = self._residents.get(wanted.key)
        if resident is not None:
            resident.take()
            return resident, 0.0
        waiting = sum(one.waiters for one in self._loading.values())
        if waiting >= self._config.queue:
            raise BusyError(f"{waiting:,} requests wait for models to load", retry_after=5.0)
        loading = self._loading.get(wanted.key) or self._begin(wanted)
        loading.waiters += 1
        began = asyncio.get_running_loop().time()
        try:
            resident = await asyncio.shield(loading.done)
        except BaseException:
            self._give_up(loading)
            raise
        return resident, asyncio.get_running_loop().time() - began

    def _give_up(self, loading: _Loading) -> None:
        """One that waited waits no more. With the last one a load ends that has others go to make
        room for it; one that has its room goes on, for whoever asks again."""
        loading.waiters -= 1
        if not loading.done.done():
            if loading.waiters == 0 and not loading.has_room and loading.task is not None:
                loading.task.cancel()
        elif loading.done.exception() is None:
            self._release(loading.done.result())

    def _begin(self, wanted: Wanted) -> _Loading:
        loading = _Loading(asyncio.get_running_loop().create_future())
        self._loading[wanted.key] = loading
        loading.task = self._spawn(self._load(wanted, loading))
        return loading

    async def _load(self, wanted: Wanted, loading: _Loading) -> None:
        """Loads a model for those who wait for it; they are its users from its first moment."""
        began = asyncio.get_running_loop().time()
        try:
            resident = await self._loaded(wanted, loading)
        except BaseException as error:
            if isinstance(error, asyncio.CancelledError):
                error = BusyError("the server is shutting down")
            if not isinstance(error, PocketLMError):
                _log.error("loading %s failed", wanted.name, exc_info=error)
                error = PocketLMError(f"the model {wanted.name} could not be loaded: {error}")
            if loading.waiters:
                loading.done.set_exception(error)
            return
        finally:
            del self._loading[wanted.key]
        self._residents[wanted.key] = resident
        self._watcher.loaded(wanted.name, asyncio.get_running_loop().time() - began)
        resident.worker.stepped = partial(self._watcher.stepped, wanted.name)
        for _ in range(loading.waiters):
            resident.take()
        loading.done.set_result(resident)
        self._spawn(self._watch(resident))
        if not loading.waiters:
            resident.keep_alive = self._config.keep_alive
            self._idle(resident)

    async def _opened(self, wanted: Wanted) -> Worker:
        """A worker that has read the model's header; what it will take is known then."""
        self._refuse_deadly(wanted)
        worker = await Worker.start(wanted.name, self._command)
        try:
            self._needs[wanted.key] = await worker.open(wanted.order) + PROCESS_BYTES
        except BaseException as error:
            if isinstance(error, WorkerError):
                self._died(wanted)
            await asyncio.shield(self._end(worker))
            raise
        return worker

    async def _loaded(self, wanted: Wanted, loading: _Loading) -> Resident:
        worker = await self._opened(wanted)
        memory = self._needs[wanted.key]
        reserved = 0
        try:
            async with self._room:
                await self._make_room(wanted, memory)
                self._reserved += memory
                reserved = memory
            loading.has_room = True
            ready = await worker.ready()
            return Resident(wanted, worker, memory, ready)
        except BaseException as error:
            if isinstance(error, WorkerError):
                self._died(wanted)
            await asyncio.shield(self._end(worker))
            raise
        finally:
            self._reserved -= reserved
            self._notify()

    async def _make_room(self, wanted: Wanted, memory: int) -> None:
        """Has models go until there is room. Raises CapacityError where there never will be."""
        pinned = sum(one.memory for one in self._all() if one.pinned)
        if memory > self._budget - pinned:
            mib = 1 << 20
            beside = f" beside {pinned / mib:,.0f} MiB of pinned ones" if pinned else ""
            raise CapacityError(
                f"the model {wanted.name} needs {memory / mib:,.0f} MiB, but models may take "
                f"{self._budget / mib:,.0f} MiB{beside}",
                hint="Choose a smaller context or model, or start the server with more --memory.",
            )
        while self._taken() + memory > self._budget:
            free = [one for one in self._residents.values() if not one.pinned]
            free.sort(key=lambda one: (one.users > 0, one.used))
            leaving = sum(one.memory for one in self._leaving)
            if free and self._taken() - leaving + memory > self._budget:
                self._leave(free[0], "room")
            else:
                await self._next_change()

    def _taken(self) -> int:
        return self._reserved + sum(one.memory for one in self._all())

    def _all(self) -> list[Resident]:
        return [*self._residents.values(), *self._leaving]

    # Letting it go

    def _release(self, resident: Resident) -> None:
        resident.users -= 1
        if resident.users == 0:
            self._idle(resident)
        self._notify()

    def _idle(self, resident: Resident) -> None:
        """Nobody uses it now."""
        if resident in self._leaving:
            self._end(resident.worker)
        else:
            resident.start_timer(lambda: self._leave(resident, "idle"))

    def _leave(self, resident: Resident, why: Leave) -> None:
        """It goes as soon as nobody uses it; new requests load it anew."""
        if self._residents.get(resident.wanted.key) is not resident:
            return
        resident.stop_timer()
        del self._residents[resident.wanted.key]
        self._leaving.add(resident)
        resident.why = why
        _log.info("unloading %s: %s", resident.wanted.name, why)
        if resident.users == 0:
            self._end(resident.worker)

    async def _watch(self, resident: Resident) -> None:
        """Takes note of a worker's end, expected or not."""
        worker, wanted = resident.worker, resident.wanted
        await asyncio.shield(worker.gone)
        resident.stop_timer()
        self._leaving.discard(resident)
        if self._residents.get(wanted.key) is resident:
            del self._residents[wanted.key]
        self._notify()
        if worker.expected:
            self._watcher.unloaded(wanted.name, resident.why)
            return
        self._watcher.crashed(wanted.name)
        _log.error(
            "the worker of %s (process %d) has died: %s", wanted.name, worker.pid, worker.code
        )
        self._died(wanted)
        if resident.pinned and not self._draining:
            await self._load_again(wanted)

    async def _load_again(self, wanted: Wanted) -> None:
        """A pinned model whose worker died comes back by itself, later if it dies again."""
        while not self._draining and wanted.key not in self._residents:
            try:
                resident, _ = await self._take(replace(wanted, pinned=True))
            except BusyError as error:
                await asyncio.sleep(error.retry_after)
            except PocketLMError as error:
                _log.error("%s cannot be loaded again: %s", wanted.name, error)
                return
            else:
                self._release(resident)

    def _died(self, wanted: Wanted) -> None:
        deaths = self._deaths.setdefault(wanted.key, deque(maxlen=_DEATHS))
        deaths.append(asyncio.get_running_loop().time())

    def _refuse_deadly(self, wanted: Wanted) -> None:
        """Raises BusyError for a model whose workers have died too often of late."""
        deaths = self._deaths.get(wanted.key) or deque()
        now = asyncio.get_running_loop().time()
        if len(deaths) == _DEATHS and now - deaths[0] < _DEATHS_S:
            left = max(1.0, deaths[-1] + _DEATHS_S - now)
            raise BusyError(
                f"the process of {wanted.name} has died {_DEATHS} times within a minute",
                retry_after=left,
                hint=f"It is started again in {left:.0f} s.",
            )

    def _refuse_draining(self) -> None:
        if self._draining:
            raise BusyError("the server is shutting down", retry_after=5.0)

    async def _resident(self, name: str) -> Resident | None:
        """A loaded model by its name, also one that has been removed from the store."""
        for resident in self._residents.values():
            if name in (resident.wanted.name, resident.wanted.name.removesuffix(":latest")):
                return resident
        wanted = await asyncio.to_thread(self._names.find, name)
        return self._residents.get(wanted.key)

    def _end(self, worker: Worker) -> asyncio.Task[None]:
        return _kept(worker.end(), self._ending)

    # Waiting

    def _spawn(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        return _kept(work, self._tasks)

    def _notify(self) -> None:
        """Whoever waits for a model to go, or for its users, looks again."""
        self._changed.set()
        self._changed = asyncio.Event()

    async def _next_change(self) -> None:
        await self._changed.wait()


def _kept(work: Coroutine[Any, Any, None], tasks: set[asyncio.Task[None]]) -> asyncio.Task[None]:
    """A task that stays among ``tasks``, for the loop keeps none, until it is done."""
    task = asyncio.get_running_loop().create_task(work)
    tasks.add(task)
    task.add_done_callback(tasks.discard)
    return task
