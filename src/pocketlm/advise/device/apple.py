"""What macOS tells of its CPU and GPU, by ``sysctl``: one program, its lines as facts.

The names are those of Apple's "Determining System Capabilities"; chips with two kinds of cores have
``hw.perflevel0`` (the faster ones) and ``hw.perflevel1``.
"""

from __future__ import annotations

from collections.abc import Mapping

from pocketlm.advise.device.device import Accelerator, CoreKind, plain

ASK = ("sysctl", "hw", "machdep.cpu")
_LEVELS = {"L1d": "l1dcachesize", "L1i": "l1icachesize", "L2": "l2cachesize", "L3": "l3cachesize"}


def facts_of(text: str) -> dict[str, str]:
    """``name: value`` lines."""
    pairs = (line.partition(":") for line in text.splitlines())
    return {name.strip(): value.strip() for name, _, value in pairs}


def chip(facts: Mapping[str, str]) -> str:
    """``Apple M2``; "" where it is not told."""
    return plain(facts.get("machdep.cpu.brand_string", ""))


def caches(facts: Mapping[str, str]) -> dict[str, int]:
    """Bytes of the caches of the fastest cores."""
    found = {}
    for level, name in _LEVELS.items():
        size = _count(facts, f"hw.perflevel0.{name}") or _count(facts, f"hw.{name}")
        if size:
            found[level] = size
    return found


def core_kinds(facts: Mapping[str, str]) -> tuple[CoreKind, ...]:
    """The kinds of cores, fastest first; empty where all are alike."""
    found = []
    for level in range(min(_count(facts, "hw.nperflevels"), 8)):
        cores = _count(facts, f"hw.perflevel{level}.physicalcpu")
        name = facts.get(f"hw.perflevel{level}.name", "")
        if cores:
            found.append(CoreKind(cores, plain(name).lower() or None))
    return tuple(found) if len(found) > 1 else ()


def gpus(facts: Mapping[str, str]) -> list[Accelerator]:
    """The GPU of an Apple chip, which has no memory of its own."""
    name = chip(facts)
    return [Accelerator("gpu", "Apple", f"{name} GPU")] if name.startswith("Apple ") else []


def _count(facts: Mapping[str, str], name: str) -> int:
    text = facts.get(name, "")
    return int(text) if text.isdecimal() and len(text) < 16 else 0
