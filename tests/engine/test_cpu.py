"""What CPUs call themselves, read from files that look like the kernel's."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from pocketlm.engine.cpu import core_names, cpu_name


@pytest.fixture
def info(tmp_path: Path) -> Path:
    return tmp_path / "cpuinfo"


def arm(number: int, implementer: str, part: str) -> str:
    return f"processor\t: {number}\nCPU implementer\t: {implementer}\nCPU part\t: {part}\n\n"


def test_x86(info: Path) -> None:
    core = "processor\t: 0\ncpu family\t: 25\nmodel\t\t: 33\nmodel name\t: Some CPU\n\n"
    info.write_text(core + core)
    assert cpu_name(info) == "Some CPU (family 25, model 33)"
    assert core_names(info) == {}


def test_arm_is_named_by_its_cores(info: Path) -> None:
    cores = [arm(i, "0x41", "0xd05") for i in range(6)] + [arm(i, "0x41", "0xd0b") for i in (6, 7)]
    info.write_text("".join(cores) + "Hardware\t: MT6789\n")
    assert cpu_name(info) == "6 x Cortex-A55, 2 x Cortex-A76"
    assert core_names(info)[7] == "Cortex-A76"


def test_a_core_that_is_not_known_is_told_by_its_numbers(info: Path) -> None:
    info.write_text(arm(0, "0x41", "0xfff") + arm(1, "0x99", "0x1"))
    assert cpu_name(info) == "1 x Arm core 0x41 0xfff, 1 x Arm core 0x99 0x1"


@pytest.mark.parametrize("text", [None, "", "processor: x\n", "CPU implementer\t: 0x41\n"])
def test_a_file_that_says_nothing(info: Path, text: str | None) -> None:
    if text is not None:
        info.write_text(text)
    assert cpu_name(info)


def test_a_wrong_instruction_set_is_said_well() -> None:
    code = "from pocketlm.cli.main import main; raise SystemExit(main(['device', '--no-probe']))"
    environment = os.environ | {"POCKETLM_ISA": "mmx"}
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env=environment, check=False
    )
    assert (done.returncode, done.stdout) == (2, "")
    assert "POCKETLM_ISA: instruction set 'mmx' is unknown" in done.stderr


def test_this_cpu() -> None:
    assert cpu_name()
