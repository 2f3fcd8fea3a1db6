"""The fleet over real worker processes: who is loaded, who goes, and what happens to a dead one."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Coroutine
from pathlib import Path
from typing import Any

import pytest

from engine.tiny_file import write_tiny_model
from pocketlm.errors import (
    BusyError,
    CapacityError,
    ModelFileError,
    NotFoundError,
    RequestError,
    WorkerError,
)
from pocketlm.serve.fleet import WorkerFleet, process
from pocketlm.serve.fleet.fleet import PROCESS_BYTES
from pocketlm.serve.generation import Answer, ChatPrompt

from .tiny_fleet import DYING, ask, tiny_fleet, tiny_store, tokens_of


def run(work: Coroutine[Any, Any, None]) -> None:
    asyncio.run(asyncio.wait_for(work, 60))


def names_of(fleet: WorkerFleet) -> list[str]:
    return sorted(model.facts.name for model in fleet.loaded())


async def until(condition: Any) -> None:
    """Waits, a second at most, for what comes soon."""
    for _ in range(1000):
        if condition():
            return
        await asyncio.sleep(0.01)
    raise AssertionError("it did not come")


def test_requests_share_one_load(tmp_path: Path) -> None:
    async def work() -> None:
        async with tiny_fleet(tiny_store(tmp_path, "a")) as fleet:

            async def one() -> tuple[list[int], float]:
                async with fleet.use("a") as model:
                    assert model.facts.name == "a:latest"
                    return await tokens_of(model, ask()), model.load_s

            answers = await asyncio.gather(*(one() for _ in range(6)))
            assert all(len(tokens) == 8 and load_s > 0 for tokens, load_s in answers)
            assert len({tuple(tokens) for tokens, _ in answers}) == 1
            (model,) = fleet.loaded()
            assert (model.running, model.waiting, model.pinned) == (0, 0, False)
            assert model.output_tokens == 48
            _, load_s = await one()
            assert load_s == 0

    run(work())


def test_names_with_the_same_files_share_a_worker(tmp_path: Path) -> None:
    async def work() -> None:
        store = tiny_store(tmp_path, "a")
        store.copy("a", "b")
        async with tiny_fleet(store, aliases={"gpt-4": "a"}) as fleet:
            for name, shown in [("a", "a:latest"), ("b:latest", "b:latest"), ("gpt-4", "a:latest")]:
                async with fleet.use(name) as model:
                    assert model.facts.name == shown
            assert len(fleet.loaded()) == 1

    run(work())


@pytest.mark.parametrize("name", ["nosuch", "/etc/passwd", "./a.gguf", "../a", "a/b", "x" * 300])
def test_clients_name_models_of_the_store_and_no_files(tmp_path: Path, name: str) -> None:
    async def work() -> None:
        async with tiny_fleet(tiny_store(tmp_path, "a"), command=DYING) as fleet:
            with pytest.raises(RequestError):
                async with fleet.use(name):
                    pass

    run(work())


def test_a_file_that_the_server_was_started_with(tmp_path: Path) -> None:
    async def work() -> None:
        path = str(write_tiny_model(tmp_path / "mine.gguf"))
        async with tiny_fleet(tiny_store(tmp_path), models=(path,)) as fleet:
            async with fleet.use("") as model:
                assert model.facts.name == "mine"
                assert model.facts.quantization == "F32"
            async with fleet.use("mine"):
                pass
            (model,) = fleet.loaded()
            assert model.pinned

    run(work())


def test_without_a_first_model_requests_have_to_name_one(tmp_path: Path) -> None:
    async def work() -> None:
        async with tiny_fleet(tiny_store(tmp_path, "a")) as fleet:
            with pytest.raises(RequestError, match="names no model"):
                async with fleet.use(""):
                    pass

    run(work())


def test_keep_alive(tmp_path: Path) -> None:
    async def work() -> None:
        async with tiny_fleet(tiny_store(tmp_path, "a"), keep_alive=0.1) as fleet:
            async with fleet.use("a", keep_alive=-1):
                pass
            (model,) = fleet.loaded()
            assert model.expires is None
            await asyncio.sleep(0.2)
            assert names_of(fleet) == ["a:latest"]
            async with fleet.use("a"):
                pass
            await until(lambda: not fleet.loaded())
            async with fleet.use("a", keep_alive=0) as one:
                await tokens_of(one, ask())
            await until(lambda: not fleet.loaded())

    run(work())


def test_unloading_waits_for_the_answers_under_way(tmp_path: Path) -> None:
    async def work() -> None:
        async with tiny_fleet(tiny_store(tmp_path, "a")) as fleet:
            assert not await fleet.unload("a")
            async with fleet.use("a") as model:
                going = asyncio.create_task(fleet.unload("a"))
                await asyncio.sleep(0.05)
                assert not going.done()
                assert len(await tokens_of(model, ask(tokens=50))) == 50
            assert await going
            assert not fleet.loaded()

    run(work())


def test_the_least_recently_used_model_makes_room(tmp_path: Path) -> None:
    async def work() -> None:
        store = tiny_store(tmp_path, "a", "b", "c")
        async with tiny_fleet(store, memory=int(2.9 * PROCESS_BYTES)) as fleet:
            for name in ("a", "b", "a", "c"):
                async with fleet.use(name) as model:
                    await tokens_of(model, ask())
            assert names_of(fleet) == ["a:latest", "c:latest"]
            assert sum(model.memory for model in fleet.loaded()) <= 2.9 * PROCESS_BYTES

    run(work())


def test_a_model_in_use_is_left_to_its_answers_and_then_goes(tmp_path: Path) -> None:
    """Two models of which one fits: every request is answered, in turns."""

    async def work() -> None:
        store = tiny_store(tmp_path, "a", "b")
        async with tiny_fleet(store, memory=int(1.9 * PROCESS_BYTES)) as fleet:
            order: list[str] = []

            async def one(name: str) -> None:
                async with fleet.use(name) as model:
                    assert len(await tokens_of(model, ask(tokens=40))) == 40
                    order.append(name)

            async with fleet.use("a") as model:
                others = asyncio.create_task(one("b"))
                await until(lambda: fleet._leaving)
                again = asyncio.create_task(one("a"))
                await asyncio.sleep(0.05)
                assert len(await tokens_of(model, ask(tokens=40))) == 40
                assert order == []
            await asyncio.gather(others, again)
            assert order == ["b", "a"]

    run(work())


def test_what_can_never_fit_is_refused_with_the_numbers(tmp_path: Path) -> None:
    async def work() -> None:
        store = tiny_store(tmp_path, "a", "b")
        async with tiny_fleet(store, memory=1 << 20) as fleet:
            with pytest.raises(CapacityError, match=r"needs 8\d MiB, but models may take 1 MiB"):
                async with fleet.use("a"):
                    pass
        async with tiny_fleet(store, memory=int(1.9 * PROCESS_BYTES), models=("a",)) as fleet:
            await fleet.load("a")
            with pytest.raises(CapacityError, match="beside"):
                async with fleet.use("b"):
                    pass
            assert names_of(fleet) == ["a:latest"]

    run(work())


def test_the_answers_of_a_killed_worker_end_and_the_next_request_has_a_new_one(
    tmp_path: Path,
) -> None:
    async def work() -> None:
        async with tiny_fleet(tiny_store(tmp_path, "a")) as fleet:
            async with fleet.use("a") as model:
                async with model.answer(ask(tokens=200)) as answer:
                    pieces = aiter(answer)
                    await anext(pieces)
                    (loaded,) = fleet.loaded()
                    os.kill(loaded.pid, signal.SIGKILL)
                    with pytest.raises(WorkerError, match="signal 9"):
                        async for _ in pieces:
                            pass
                with pytest.raises(WorkerError):
                    await model.tokenize(ChatPrompt(messages=[]))
            async with fleet.use("a") as model:
                assert len(await tokens_of(model, ask())) == 8
            assert fleet.loaded()[0].pid != loaded.pid

    run(work())


def test_a_pinned_model_comes_back_by_itself(tmp_path: Path) -> None:
    async def work() -> None:
        async with tiny_fleet(tiny_store(tmp_path, "a"), models=("a",)) as fleet:
            await fleet.load("a")
            (before,) = fleet.loaded()
            os.kill(before.pid, signal.SIGKILL)
            await until(lambda: fleet.loaded() and fleet.loaded()[0].pid != before.pid)
            assert fleet.loaded()[0].pinned

    run(work())


def test_a_model_whose_workers_die_is_refused_for_a_while(tmp_path: Path) -> None:
    async def work() -> None:
        async with tiny_fleet(tiny_store(tmp_path, "a"), command=DYING) as fleet:
            for _ in range(3):
                with pytest.raises(WorkerError):
                    async with fleet.use("a"):
                        pass
            with pytest.raises(BusyError, match="died 3 times") as error:
                async with fleet.use("a"):
                    pass
            assert 0 < error.value.retry_after <= 60

    run(work())


def test_a_broken_file_costs_nothing_but_its_error(tmp_path: Path) -> None:
    async def work() -> None:
        path = write_tiny_model(tmp_path / "broken.gguf")
        path.write_bytes(path.read_bytes()[:3000])
        async with tiny_fleet(tiny_store(tmp_path, "a"), models=(str(path),)) as fleet:
            for _ in range(4):
                with pytest.raises(ModelFileError, match=r"broken\.gguf"):
                    await fleet.load("broken")
            async with fleet.use("a") as model:
                assert len(await tokens_of(model, ask())) == 8

    run(work())


def test_a_model_that_was_removed_can_still_be_unloaded(tmp_path: Path) -> None:
    async def work() -> None:
        store = tiny_store(tmp_path, "a")
        async with tiny_fleet(store) as fleet:
            await fleet.load("a")
            store.remove("a")
            with pytest.raises(NotFoundError):
                async with fleet.use("a"):
                    pass
            assert await fleet.unload("a")

    run(work())


def test_too_many_requests_are_refused(tmp_path: Path) -> None:
    async def work() -> None:
        async with (
            tiny_fleet(tiny_store(tmp_path, "a"), sequences=1, queue=1) as fleet,
            fleet.use("a") as model,
            model.answer(ask(tokens=200)),
            model.answer(ask(tokens=200)),
        ):
            with pytest.raises(BusyError, match="2 requests"):
                async with model.answer(ask()):
                    pass
            with pytest.raises(BusyError):
                await model.embed(["a"])

    run(work())


def test_leaving_an_answer_frees_its_place(tmp_path: Path) -> None:
    async def work() -> None:
        store = tiny_store(tmp_path, "a")
        async with tiny_fleet(store, sequences=1) as fleet, fleet.use("a") as model:
            for _ in range(5):
                async with model.answer(ask(tokens=200)) as answer:
                    async for _ in answer:
                        break
            assert len(await tokens_of(model, ask())) == 8
            (loaded,) = fleet.loaded()
            assert (loaded.running, loaded.waiting, loaded.kv_used) == (0, 0, 0)

    run(work())


def test_draining_lets_answers_end_and_begins_nothing(tmp_path: Path) -> None:
    async def work() -> None:
        async with tiny_fleet(tiny_store(tmp_path, "a")) as fleet:
            async with fleet.use("a") as model:
                draining = asyncio.create_task(fleet.drain(20))
                await asyncio.sleep(0)
                assert fleet.draining
                with pytest.raises(BusyError, match="shutting down"):
                    async with fleet.use("a"):
                        pass
                assert len(await tokens_of(model, ask(tokens=100))) == 100
                assert not draining.done()
            await draining

    run(work())


def test_closing_cuts_answers_with_an_error_and_ends_a_worker_that_hangs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(process, "_ENDING_S", 0.1)

    async def work() -> None:
        async with tiny_fleet(tiny_store(tmp_path, "a")) as fleet, fleet.use("a") as model:
            async with model.answer(ask(tokens=240)) as answer:
                os.kill(fleet.loaded()[0].pid, signal.SIGSTOP)
                await fleet.drain(0.01)
                closing = asyncio.create_task(fleet.close())
                tokens: list[int] = []
                with pytest.raises(WorkerError, match="unloaded"):
                    await _read(answer, tokens)
                assert len(tokens) < 240
                await closing
            assert not fleet.loaded()

    run(work())


async def _read(answer: Answer, tokens: list[int]) -> None:
    async for piece in answer:
        tokens += piece.tokens
