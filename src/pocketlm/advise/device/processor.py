"""The CPU as the kernel describes it: its name, instruction sets, caches and kinds of cores.

Every reader is a function of the folders that it reads, so that tests can give it any machine. What
a system does not tell is left out; nothing is guessed.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from pocketlm.advise.device.device import CoreKind, plain
from pocketlm.engine.cpu import CPUINFO, core_names
from pocketlm.engine.machine import core_of, read_text

CPUS = Path("/sys/devices/system/cpu")
_DMI = Path("/sys/class/dmi/id")
_DEVICE_TREE = Path("/proc/device-tree/model")

# Instruction sets that a model's arithmetic may use, as /proc/cpuinfo spells them.
_FEATURES = (
    "avx", "avx2", "fma", "f16c", "avx_vnni", "avx512f", "avx512bw", "avx512_vnni", "avx512_bf16",
    "avx512_fp16", "amx_tile", "amx_int8", "amx_bf16", "asimd", "asimdhp", "asimddp", "i8mm",
    "bf16", "sve", "sve2", "sme",
)  # fmt: skip
_SIZE = re.compile(r"^(\d+)([KMG]?)$")
_UNITS = {"": 1, "K": 1 << 10, "M": 1 << 20, "G": 1 << 30}


def features(cpuinfo: Path = CPUINFO) -> tuple[str, ...]:
    """The instruction sets of the first CPU that matter for models."""
    flags: set[str] = set()
    for line in (read_text(cpuinfo) or "").splitlines():
        name, _, value = line.partition(":")
        if name.strip() in ("flags", "Features"):
            flags = set(value.split())
            break
    return tuple(name for name in _FEATURES if name in flags)


def caches(cpu: int = 0, cpus: Path = CPUS) -> dict[str, int]:
    """Bytes of the caches that a CPU reads through, by level: ``{"L1d": 49152, ...}``."""
    found: dict[str, int] = {}
    for index in sorted((cpus / f"cpu{cpu}" / "cache").glob("index[0-9]*")):
        level, kind, size = (read_text(index / name) for name in ("level", "type", "size"))
        amount = _SIZE.match(size or "")
        if level not in ("1", "2", "3", "4") or amount is None:
            continue
        suffix = {"Data": "d", "Instruction": "i"}.get(kind or "", "") if level == "1" else ""
        found[f"L{level}{suffix}"] = int(amount[1]) * _UNITS[amount[2]]
    return found


def core_kinds(
    usable: Sequence[int], cpus: Path = CPUS, cpuinfo: Path = CPUINFO
) -> tuple[CoreKind, ...]:
    """The kinds of cores among the CPUs ``usable``, fastest first; empty where all are alike.

    Arm's differ by name and capacity, Intel's by name alone: there the favoured cores of one kind
    have a little more capacity than the others.
    """
    intel, arm = _intel_kinds(cpus.parents[1]), core_names(cpuinfo)
    members: dict[tuple[str | None, int | None], list[int]] = {}
    for cpu in usable:
        capacity = _number(cpus / f"cpu{cpu}" / "cpu_capacity")
        key = (intel[cpu], None) if cpu in intel else (arm.get(cpu), capacity)
        members.setdefault(key, []).append(cpu)
    if len(members) < 2:
        return ()
    kinds = [_kind(name, alike, cpus) for (name, _), alike in members.items()]
    return tuple(sorted(kinds, key=lambda kind: (-(kind.capacity or 0), -(kind.clock or 0))))


def _kind(name: str | None, alike: Sequence[int], cpus: Path) -> CoreKind:
    """The kind of the CPUs ``alike``; the fastest of them says how fast."""
    capacities = [_number(cpus / f"cpu{cpu}" / "cpu_capacity") or 0 for cpu in alike]
    clocks = [_number(cpus / f"cpu{cpu}" / "cpufreq" / "cpuinfo_max_freq") or 0 for cpu in alike]
    cores = len({core_of(cpu, cpus) for cpu in alike})
    return CoreKind(cores, name, max(capacities) or None, 1e3 * max(clocks) or None)


def _intel_kinds(devices: Path) -> dict[int, str]:
    """CPU number -> "performance" or "efficiency", of a hybrid x86."""
    found: dict[int, str] = {}
    for folder, name in (("cpu_core", "performance"), ("cpu_atom", "efficiency")):
        for cpu in cpu_list(read_text(devices / folder / "cpus") or ""):
            found[cpu] = name
    return found


def cpu_list(text: str) -> list[int]:
    """``0-3,8`` as numbers; nothing for what is no such list."""
    found: list[int] = []
    for part in text.split(","):
        match = re.match(r"^(\d{1,5})(?:-(\d{1,5}))?$", part.strip())
        if match:
            found += range(int(match[1]), int(match[2] or match[1]) + 1)
    return found


def _number(path: Path) -> int | None:
    text = read_text(path)
    return int(text) if text is not None and text.isdecimal() and len(text) < 16 else None


def model_name(device_tree: Path = _DEVICE_TREE, dmi: Path = _DMI) -> str:
    """What the maker calls the machine: of a board's device tree, or of the firmware's tables."""
    board = (read_text(device_tree) or "").strip("\0 ")
    if board:
        return plain(board)
    parts = [read_text(dmi / name) or "" for name in ("sys_vendor", "product_name")]
    return plain(" ".join(part for part in parts if part))


def hypervisor(
    cpuinfo: Path = CPUINFO, folder: Path = Path("/sys/hypervisor"), dmi: Path = _DMI
) -> str | None:
    """The hypervisor of a virtual machine, by name where it gives one; None on bare metal."""
    kind = read_text(folder / "type")
    if kind:
        return plain(kind)
    if re.search(r"^flags\s*:.*\bhypervisor\b", read_text(cpuinfo) or "", re.M) is None:
        return None
    return plain(read_text(dmi / "sys_vendor") or "") or "yes"
