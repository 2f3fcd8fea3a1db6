"""What this process may use of the machine: memory and cores, within a container's limits."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

_CGROUPS = Path("/sys/fs/cgroup")
_CPUS = Path("/sys/devices/system/cpu")
_SELF = Path("/proc/self/cgroup")
_STATUS = Path("/proc/self/status")
_MEMORY = Path("/proc/meminfo")


@dataclass(frozen=True)
class Memory:
    """Bytes that can still be taken, and what sets that limit ("RAM" or "the cgroup's limit")."""

    available: int
    limit: str


def available_memory(cgroups: Path = _CGROUPS, membership: Path = _SELF) -> Memory:
    """The least of the machine's available memory and of every enclosing cgroup's rest.

    File pages that the kernel can drop are counted as available in both.
    """
    best = Memory(_machine_available(), "RAM")
    for folder in _folders(cgroups, membership, "memory"):
        rest = _cgroup_rest(folder)
        if rest is not None and rest < best.available:
            best = Memory(max(rest, 0), "the cgroup's limit")
    return best


def available_cores(cpus: Path = _CPUS, cgroups: Path = _CGROUPS, membership: Path = _SELF) -> int:
    """Physical cores among the CPUs this process may run on, no more than its quota; at least 1.

    Two hardware threads of one core share its vector units, so a second one adds little here.
    """
    if hasattr(os, "sched_getaffinity"):
        allowed = sorted(os.sched_getaffinity(0))
    else:
        allowed = list(range(os.cpu_count() or 1))
    cores = set()
    for cpu in allowed:
        topology = cpus / f"cpu{cpu}" / "topology"
        package, core = _read(topology / "physical_package_id"), _read(topology / "core_id")
        cores.add((package, core) if core is not None else cpu)
    count = len(cores)
    for folder in _folders(cgroups, membership, "cpu"):
        quota = _cpu_quota(folder)
        if quota is not None:
            count = min(count, max(1, int(quota)))
    return max(1, count)


def peak_memory() -> int | None:
    """The most bytes of memory this process has had resident; None where it cannot be told."""
    import sys

    if sys.platform == "win32":
        import psutil

        return int(psutil.Process().memory_info().peak_wset)
    # In Linux a new program starts with the peak of the process that started it as its ru_maxrss.
    for line in (_read(_STATUS) or "").splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) * 1024
    import resource

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def _machine_available() -> int:
    """Linux is read directly: importing psutil takes longer than all else that is asked here."""
    for line in (_read(_MEMORY) or "").splitlines():
        if line.startswith("MemAvailable:"):
            return int(line.split()[1]) * 1024
    import psutil  # type: ignore[import-untyped]

    return int(psutil.virtual_memory().available)


def _folders(cgroups: Path, membership: Path, controller: str) -> list[Path]:
    """The cgroup folders that bind this process, innermost first (version 2, or 1)."""
    text = _read(membership)
    if text is None:
        return []
    for line in text.splitlines():
        _, names, path = line.split(":", 2)
        if names == "":
            root = cgroups
        elif controller in names.split(","):
            root = cgroups / controller
        else:
            continue
        inner = root / path.lstrip("/")
        if not inner.is_dir():  # seen from inside a container the path is the host's
            inner = root
        folders = [inner, *inner.parents]
        return folders[: folders.index(root) + 1]
    return []


def _cgroup_rest(folder: Path) -> int | None:
    """limit - used + file pages that can be dropped, of a memory cgroup; None without a limit."""
    names = ("memory.max", "memory.current", "inactive_file")
    if not (folder / names[0]).exists():
        names = ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file")
    limit, used = _read(folder / names[0]), _read(folder / names[1])
    if limit is None or used is None or limit == "max":
        return None
    droppable = 0
    for line in (_read(folder / "memory.stat") or "").splitlines():
        name, _, value = line.partition(" ")
        if name == names[2]:
            droppable = int(value)
    return int(limit) - int(used) + droppable


def _cpu_quota(folder: Path) -> float | None:
    text = _read(folder / "cpu.max")
    if text is not None:
        quota, period = text.split()
        return None if quota == "max" else int(quota) / int(period)
    old_quota, old_period = _read(folder / "cpu.cfs_quota_us"), _read(folder / "cpu.cfs_period_us")
    if old_quota is None or old_period is None or int(old_quota) <= 0:
        return None
    return int(old_quota) / int(old_period)


def _read(path: Path) -> str | None:
    try:
        return path.read_text().strip()
    except OSError:
        return None
