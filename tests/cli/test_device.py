"""``pocketlm device``: what it tells, and what it refuses."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from pocketlm import _native
from pocketlm.advise.device import profiles

from .conftest import Outcome

Run = Callable[..., Outcome]


def test_this_machine(pocketlm: Run) -> None:
    done = pocketlm("device", "--no-probe")
    assert done.code == 0, done.err
    assert f"kernels           {_native.isa()}\n" in done.out
    assert " can be taken" in done.out
    assert "multiply-adds" not in done.out


def test_what_was_measured_is_remembered(pocketlm: Run) -> None:
    first = pocketlm("device", "--json").json()["rates"]
    assert first["read_bandwidth"] >= first["read_slowest"] > 0
    assert pocketlm("device", "--json").json()["rates"] == first
    assert "with one; slowest pass" in pocketlm("device").out or first["threads"] == 1


def test_what_one_machine_writes_another_reads(pocketlm: Run, tmp_path: Path) -> None:
    path = tmp_path / "there.json"
    path.write_text(pocketlm("device", "phone-mid-4gb", "--json").out)
    assert pocketlm("device", str(path)).out == pocketlm("device", "phone-mid-4gb").out


def test_a_profile(pocketlm: Run) -> None:
    out = pocketlm("device", "phone-flagship-8gb").out
    for text in ("3 x Cortex-A720, up to 3.20 GHz", "53.8 GB/s with 8 threads", "NPU   "):
        assert text in out
    assert "computes on the CPU" in out


def test_the_list(pocketlm: Run) -> None:
    out = pocketlm("device", "--list").out
    assert [line.split()[0] for line in out.splitlines()] == ["PROFILE", *profiles()]
    found = pocketlm("device", "--list", "--json").json()
    assert [one["name"] for one in found] == list(profiles())


@pytest.mark.parametrize(
    ("arguments", "code", "says"),
    [
        (("rasberry-pi5",), 1, "'raspberry-pi-5-8gb'"),
        (("none.json",), 1, "no such file"),
        (("--refresh", "--no-probe"), 2, "Use one of them"),
        (("phone-mid-4gb", "--refresh"), 2, "about this machine"),
        (("--list", "--no-probe"), 2, "about this machine"),
        (("--list", "phone-mid-4gb"), 2, "every profile"),
    ],
)
def test_what_is_refused(pocketlm: Run, arguments: tuple[str, ...], code: int, says: str) -> None:
    done = pocketlm("device", *arguments)
    assert (done.code, done.out) == (code, "")
    assert says in done.err
