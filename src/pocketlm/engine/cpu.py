"""The CPU: what it calls itself and which kernels it runs, which a measured speed holds for."""

from __future__ import annotations

import platform
import tomllib
from collections import Counter
from collections.abc import Iterator
from functools import cache
from importlib.resources import files
from pathlib import Path

from pocketlm import _native
from pocketlm.engine.machine import read_text
from pocketlm.errors import RequestError

CPUINFO = Path("/proc/cpuinfo")


def cpu_name(cpuinfo: Path = CPUINFO) -> str:
    """The CPU's name, with family and model where the name alone says little.

    Arm's have none: there it is their cores, ``2 x Cortex-A76, 6 x Cortex-A55``.
    """
    first = next(_processors(cpuinfo), None)
    if first is None:
        return platform.processor() or platform.machine()
    name = first.get("model name")
    if name is None:
        cores = Counter(core_names(cpuinfo).values())
        return ", ".join(f"{n} x {core}" for core, n in cores.items()) or platform.machine()
    if "cpu family" in first and "model" in first:
        name += f" (family {first['cpu family']}, model {first['model']})"
    return name


def instruction_set() -> str:
    """What the kernels compute with. Raises RequestError for a wrong POCKETLM_ISA."""
    try:
        return _native.isa()
    except ValueError as error:
        raise RequestError(f"POCKETLM_ISA: {error}") from error


def core_names(cpuinfo: Path = CPUINFO) -> dict[int, str]:
    """The number of each CPU -> its core's name, of an Arm chip."""
    found = {}
    for facts in _processors(cpuinfo):
        implementer, part = facts.get("CPU implementer"), facts.get("CPU part")
        number = facts.get("processor", "")
        if implementer is None or part is None or not number.isdecimal():
            continue
        known = _arm_cores().get(implementer.lower(), {})
        found[int(number)] = known.get(part.lower(), f"Arm core {implementer} {part}")
    return found


def _processors(cpuinfo: Path) -> Iterator[dict[str, str]]:
    """The facts of each CPU, the parts between empty lines."""
    for block in (read_text(cpuinfo) or "").split("\n\n"):
        pairs = (line.partition(":") for line in block.splitlines())
        facts = {name.strip(): value.strip() for name, _, value in pairs}
        if "processor" in facts or "model name" in facts or "CPU part" in facts:
            yield facts


@cache
def _arm_cores() -> dict[str, dict[str, str]]:
    table: dict[str, dict[str, str]] = tomllib.loads(
        (files(__package__) / "arm_cores.toml").read_text("utf-8")
    )
    return table
