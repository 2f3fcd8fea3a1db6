"""What this process may use of the machine: memory and cores, within a container's limits."""

from __future__ import annotations

import os
import platform
from dataclasses import dataclass
from pathlib import Path

_CGROUPS = Path("/sys/fs/cgroup")
_CPUS = Path("/sys/devices/system/cpu")
_SELF = Path("/proc/self/cgroup")
_STATUS = Path("/proc/self/status")
_MEMORY = Path("/proc/meminfo")
_LONGEST = 1 << 20  # characters of one file
_UNLIMITED = 1 << 60  # how version 1 says that there is no limit: the largest count of pages


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


def total_memory() -> int:
    """Bytes of RAM that the machine has; swap is not counted."""
    for line in (read_text(_MEMORY) or "").splitlines():
        if line.startswith("MemTotal:"):
            return int(line.split()[1]) * 1024
    import psutil  # type: ignore[import-untyped]

    return int(psutil.virtual_memory().total)


def memory_quota(cgroups: Path = _CGROUPS, membership: Path = _SELF) -> int | None:
    """Bytes that the tightest of the enclosing cgroups allows; None without a limit."""
    limits = (_cgroup_limit(folder)[0] for folder in _folders(cgroups, membership, "memory"))
    found = [limit for limit in limits if limit is not None and limit < _UNLIMITED]
    return min(found, default=None)


def cpu_quota(cgroups: Path = _CGROUPS, membership: Path = _SELF) -> float | None:
    """CPUs' worth of time that the tightest of the enclosing cgroups allows; None without one."""
    quotas = (_cpu_quota(folder) for folder in _folders(cgroups, membership, "cpu"))
    return min((quota for quota in quotas if quota is not None), default=None)


def system_name() -> str:
    """The operating system and its version."""
    return f"{platform.system()} {platform.release()}"


def usable_cpus() -> list[int]:
    """The numbers of the CPUs (hardware threads) that this process may run on."""
    if hasattr(os, "sched_getaffinity"):
        return sorted(os.sched_getaffinity(0))
    return list(range(os.cpu_count() or 1))


def available_cores(cpus: Path = _CPUS, cgroups: Path = _CGROUPS, membership: Path = _SELF) -> int:
    """Physical cores among the CPUs this process may run on, no more than its quota; at least 1.

    Two hardware threads of one core share its vector units, so a second one adds little here.
    """
    count = len({core_of(cpu, cpus) for cpu in usable_cpus()})
    quota = cpu_quota(cgroups, membership)
    return max(1, count if quota is None else min(count, int(quota)))


def core_of(cpu: int, cpus: Path = _CPUS) -> tuple[str, ...]:
    """What names the core that a CPU is a hardware thread of; the CPU itself where nobody tells.

    The cores of an Arm chip are counted within their cluster.
    """
    topology = cpus / f"cpu{cpu}" / "topology"
    names = ("physical_package_id", "cluster_id", "core_id")
    package, cluster, core = (read_text(topology / name) for name in names)
    return (package or "", cluster or "", core) if core is not None else (f"cpu{cpu}",)


def peak_memory() -> int | None:
    """The most bytes of memory this process has had resident; None where it cannot be told."""
    import sys

    if sys.platform == "win32":
        import psutil

        return int(psutil.Process().memory_info().peak_wset)
    # In Linux a new program starts with the peak of the process that started it as its ru_maxrss.
    for line in (read_text(_STATUS) or "").splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) * 1024
    import resource

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def _machine_available() -> int:
    """Linux is read directly: importing psutil takes longer than all else that is asked here."""
    for line in (read_text(_MEMORY) or "").splitlines():
        if line.startswith("MemAvailable:"):
            return int(line.split()[1]) * 1024
    import psutil

    return int(psutil.virtual_memory().available)


def _folders(cgroups: Path, membership: Path, controller: str) -> list[Path]:
    """The cgroup folders that bind this process, innermost first (version 2, or 1)."""
    text = read_text(membership)
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
    limit, second = _cgroup_limit(folder)
    names = ("memory.current", "inactive_file")
    if not second:
        names = ("memory.usage_in_bytes", "total_inactive_file")
    used = _count(read_text(folder / names[0]))
    if limit is None or used is None:
        return None
    droppable = 0
    for line in (read_text(folder / "memory.stat") or "").splitlines():
        name, _, value = line.partition(" ")
        if name == names[1]:
            droppable = _count(value) or 0
    return limit - used + droppable


def _cgroup_limit(folder: Path) -> tuple[int | None, bool]:
    """The limit of a memory cgroup in bytes, None without one, and whether it is of version 2."""
    text = read_text(folder / "memory.max")
    if text is not None:
        return _count(text), True
    return _count(read_text(folder / "memory.limit_in_bytes")), False


def _cpu_quota(folder: Path) -> float | None:
    quota, _, period = (read_text(folder / "cpu.max") or "").partition(" ")
    if not quota:
        quota = read_text(folder / "cpu.cfs_quota_us") or ""
        period = read_text(folder / "cpu.cfs_period_us") or ""
    allowed, each = _count(quota), _count(period)
    return allowed / each if allowed and each else None


def _count(text: str | None) -> int | None:
    """A number of the kernel's; None for "max", "-1" and what else is none."""
    return int(text) if text is not None and text.isdecimal() and len(text) < 20 else None


def read_text(path: Path) -> str | None:
    """What a file of the kernel says, without the space around it; None where it says nothing."""
    try:
        with path.open(encoding="utf-8", errors="replace") as file:
            return file.read(_LONGEST).strip()
    except OSError:
        return None
