"""The probe runs on every instruction set, and what it found is remembered."""

from __future__ import annotations

import logging
import math
from collections.abc import Iterator
from pathlib import Path

import pytest

from pocketlm import _native
from pocketlm.advise.device import rates
from pocketlm.advise.device.device import Rates


@pytest.fixture
def keep_isa() -> Iterator[None]:
    before = _native.isa()
    yield
    _native.select_isa(before)


@pytest.mark.usefixtures("keep_isa")
@pytest.mark.parametrize("isa", _native.isas())
@pytest.mark.parametrize("kind", ["int8", "f32"])
@pytest.mark.parametrize("threads", [1, 3])
def test_multiply_adds_are_counted(isa: str, kind: str, threads: int) -> None:
    _native.select_isa(isa)
    found = _native.multiply_add_rate(kind, threads, 1e-4, 2)
    assert 1 <= len(found) <= 2
    assert all(1e5 < rate < math.inf for rate in found)


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("int4", 1, 0.01, 1), "kinds"),
        (("f32", 0, 0.01, 1), "threads"),
        (("f32", 1, 0.01, 0), "pass"),
        (("f32", 1, 0.0, 1), "pass"),
        (("f32", 1, math.nan, 1), "pass"),
        (("f32", 1, 1e9, 1), "second"),
    ],
)
def test_arguments_are_checked(arguments: tuple[str, int, float, int], says: str) -> None:
    with pytest.raises(ValueError, match=says):
        _native.multiply_add_rate(*arguments)


def test_the_probe() -> None:
    found = rates.probe(2, 1 << 20, 64 << 20)
    assert found.threads == 2
    assert found.read_slowest is not None
    assert found.read_slowest <= found.read_bandwidth
    assert found.measured is not None
    assert found.one_thread is not None


@pytest.fixture
def probes(monkeypatch: pytest.MonkeyPatch) -> list[Rates]:
    """The measurements that were made: each finds another figure."""
    made: list[Rates] = []

    def probe(threads: int, last_cache: int, free: int) -> Rates:
        made.append(Rates(1e9 * (len(made) + 1), 1e9, 1e9, threads))
        return made[-1]

    monkeypatch.setattr(rates, "probe", probe)
    return made


def ask(home: Path, *, cpu: str = "a CPU", threads: int = 2, refresh: bool = False) -> Rates:
    return rates.cached_rates(home, cpu, threads, 1 << 20, 1 << 30, refresh=refresh)


def test_rates_are_measured_once(tmp_path: Path, probes: list[Rates]) -> None:
    assert ask(tmp_path) == ask(tmp_path) == probes[0]
    assert len(probes) == 1
    assert ask(tmp_path, refresh=True) == ask(tmp_path) == probes[1]


@pytest.mark.usefixtures("keep_isa")
def test_another_cpu_or_instruction_set_is_measured_anew(
    tmp_path: Path, probes: list[Rates], monkeypatch: pytest.MonkeyPatch
) -> None:
    ask(tmp_path)
    ask(tmp_path, cpu="another")
    ask(tmp_path, threads=1)
    _native.select_isa("scalar")
    ask(tmp_path)
    monkeypatch.setattr(rates, "__version__", "9.9")
    ask(tmp_path)
    monkeypatch.setattr("platform.release", lambda: "9.9")
    ask(tmp_path)
    assert len(probes) == 6


@pytest.mark.usefixtures("probes")
def test_what_is_remembered_is_bounded(tmp_path: Path) -> None:
    for number in range(20):
        ask(tmp_path, cpu=f"CPU {number}")
    assert len(list((tmp_path / "device").iterdir())) == 16


@pytest.mark.parametrize("damage", ["", "{}", "nonsense", '{"threads": -1}', "[" * 70_000])
def test_a_damaged_file_is_named_and_replaced(
    tmp_path: Path, probes: list[Rates], damage: str, caplog: pytest.LogCaptureFixture
) -> None:
    ask(tmp_path)
    (path,) = (tmp_path / "device").iterdir()
    path.write_text(damage)
    with caplog.at_level(logging.WARNING):
        assert ask(tmp_path) == probes[1]
    assert str(path) in caplog.text
    assert ask(tmp_path) == probes[1]


def test_a_home_that_cannot_be_written_costs_a_measurement(
    tmp_path: Path, probes: list[Rates]
) -> None:
    home = tmp_path / "home"
    home.write_text("a file where the folder should be")
    assert ask(home) == probes[0]
