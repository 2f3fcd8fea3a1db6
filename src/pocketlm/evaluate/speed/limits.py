"""What the machine is and what it could do: the facts that a speed means nothing without."""

from __future__ import annotations

from dataclasses import dataclass

from pocketlm import _native
from pocketlm.engine.cpu import cpu_name, instruction_set
from pocketlm.engine.machine import available_cores, system_name

# Larger than any last-level cache that it might be read from.
_READ_BYTES = 512 << 20
_PASSES = 3


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
    return Machine(cpu_name(), available_cores(), instruction_set(), system_name())


def read_bandwidth(threads: int) -> float:
    """Bytes per second that ``threads`` read from memory, the best of three passes."""
    return max(_native.read_bandwidth(threads, _READ_BYTES, _PASSES))
