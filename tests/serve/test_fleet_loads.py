"""Loads that outlast those who wait for them, and loads that wait for the room of another one."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from pocketlm.errors import PocketLMError
from pocketlm.serve.fleet.process import Worker

from .test_fleet import names_of, run, until
from .tiny_fleet import ask, tiny_fleet, tiny_store, tokens_of


class SlowLoads:
    """From the first on, loads have their memory and then wait to be let go or to fail."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.begun = 0
        self._go: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        ready = Worker.ready

        async def slow(worker: Worker) -> Any:
            self.begun += 1
            await asyncio.shield(self._go)
            return await ready(worker)

        monkeypatch.setattr(Worker, "ready", slow)

    def let_go(self) -> None:
        self._go.set_result(None)

    def fail_once(self) -> None:
        failing, self._go = self._go, asyncio.get_running_loop().create_future()
        self.let_go()
        failing.set_exception(PocketLMError("no such luck"))


async def given_up(request: asyncio.Task[Any]) -> None:
    request.cancel()
    with pytest.raises(asyncio.CancelledError):
        await request


def test_a_load_goes_on_when_the_only_one_who_waits_gives_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def work() -> None:
        loads = SlowLoads(monkeypatch)
        async with tiny_fleet(tiny_store(tmp_path, "a")) as fleet:
            first = asyncio.create_task(fleet.load("a"))
            await until(lambda: loads.begun)
            await given_up(first)
            second = asyncio.create_task(fleet.load("a"))
            await asyncio.sleep(0.05)
            await given_up(second)
            loads.let_go()
            await until(lambda: names_of(fleet) == ["a:latest"])
            async with fleet.use("a") as model:
                assert model.load_s == 0
                assert len(await tokens_of(model, ask())) == 8
            assert loads.begun == 1

    run(work())


def test_a_load_goes_on_for_the_others(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def work() -> None:
        loads = SlowLoads(monkeypatch)
        async with tiny_fleet(tiny_store(tmp_path, "a"), keep_alive=0) as fleet:
            waiting = [asyncio.create_task(fleet.load("a", keep_alive=-1)) for _ in range(2)]
            await until(lambda: loads.begun)
            await given_up(waiting[0])
            loads.let_go()
            await waiting[1]
            (model,) = fleet.loaded()
            assert model.expires is None

    run(work())


def test_a_load_that_waits_for_room_ends_with_the_last_who_waits(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def work() -> None:
        store = tiny_store(tmp_path, "a", "b")
        async with tiny_fleet(store) as fleet:
            memory = await fleet.needs("a")
        async with tiny_fleet(store, memory=memory * 3 // 2) as fleet:
            async with fleet.use("a"):
                loads = SlowLoads(monkeypatch)
                request = asyncio.create_task(fleet.load("b"))
                await until(lambda: names_of(fleet) == ["a:latest"] and fleet._leaving)
                await given_up(request)
            await until(lambda: not fleet.loaded())
            assert loads.begun == 0

    run(work())


def test_a_load_that_fails_leaves_its_room_to_the_next(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def work() -> None:
        store = tiny_store(tmp_path, "a", "b")
        async with tiny_fleet(store) as fleet:
            memory = await fleet.needs("a")
        loads = SlowLoads(monkeypatch)
        async with tiny_fleet(store, memory=memory * 3 // 2) as fleet:
            first = asyncio.create_task(fleet.load("a"))
            await until(lambda: loads.begun)
            await given_up(first)
            second = asyncio.create_task(fleet.load("b"))
            await until(lambda: len(fleet._tasks) == 2 and fleet._room.locked())
            loads.fail_once()
            await second
            assert names_of(fleet) == ["b:latest"]

    run(work())
