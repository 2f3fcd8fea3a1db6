"""What the machine is and what it could do: the facts that a speed means nothing without."""

from __future__ import annotations

import platform
from dataclasses import dataclass
from pathlib import Path

from pocketlm import _native
from pocketlm.engine.machine import available_cores

# Larger than any last-level cache that it might be read from.
_READ_BYTES = 512 << 20
_PASSES = 3
_CPUINFO = Path("/proc/cpuinfo")


@dataclass(frozen=True)
class Machine:
    """Attributes:
    cpu: its name.
    cores: physical ones that this process may use.
    instruction_set: that PocketLM computes with.
    system: the operating system.
    """

    cpu: str
    cores: int
    instruction_set: str
    system: str


def this_machine() -> Machine:
    """The machine that this process runs on."""
    system = f"{platform.system()} {platform.release()}"
    return Machine(cpu_name(), available_cores(), _native.isa(), system)


def cpu_name(cpuinfo: Path = _CPUINFO) -> str:
    """What the CPU calls itself, with family and model where the name alone says little."""
    try:
        lines = cpuinfo.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    pairs = (line.partition(":") for line in lines)
    facts: dict[str, str] = {}
    for name, _, value in pairs:
        facts.setdefault(name.strip(), value.strip())
    name = facts.get("model name", platform.machine())
    if "cpu family" in facts and "model" in facts:
        name += f" (family {facts['cpu family']}, model {facts['model']})"
    return name


def read_bandwidth(threads: int) -> float:
    """Bytes per second that ``threads`` read from memory, the best of three passes."""
    return max(_native.read_bandwidth(threads, _READ_BYTES, _PASSES))
