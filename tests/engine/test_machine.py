"""Limits of a container, read from folders that look like the kernel's."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from pocketlm.engine.machine import (
    available_cores,
    available_memory,
    core_of,
    cpu_quota,
    memory_quota,
    peak_memory,
    total_memory,
)

MIB = 2**20


@pytest.fixture
def membership(tmp_path: Path) -> Path:
    path = tmp_path / "self"
    path.write_text("0::/slice/job\n")
    return path


def folder(root: Path, **files: str) -> None:
    root.mkdir(parents=True, exist_ok=True)
    for name, text in files.items():
        (root / name.replace("__", ".")).write_text(text + "\n")


def test_the_tightest_enclosing_cgroup_limits_memory(tmp_path: Path, membership: Path) -> None:
    root = tmp_path / "cgroup"
    folder(root / "slice", memory__max=f"{64 * MIB}", memory__current=f"{50 * MIB}")
    folder(root / "slice" / "job", memory__max="max", memory__current=f"{MIB}")
    (root / "slice" / "memory.stat").write_text(f"anon 5\ninactive_file {6 * MIB}\n")
    memory = available_memory(root, membership)
    assert (memory.available, memory.limit) == (20 * MIB, "the cgroup's limit")


def test_a_cgroup_of_version_1(tmp_path: Path) -> None:
    root, membership = tmp_path / "cgroup", tmp_path / "self"
    membership.write_text("7:cpu,cpuacct:/job\n5:memory:/job\n")
    folder(
        root / "memory" / "job",
        memory__limit_in_bytes=f"{10 * MIB}",
        memory__usage_in_bytes=f"{4 * MIB}",
    )
    folder(root / "cpu" / "job", cpu__cfs_quota_us="100000", cpu__cfs_period_us="100000")
    assert available_memory(root, membership).available == 6 * MIB
    assert available_cores(tmp_path / "none", root, membership) == 1


def test_inside_a_container_the_hosts_path_does_not_exist(tmp_path: Path, membership: Path) -> None:
    root = tmp_path / "cgroup"
    folder(root, memory__max=f"{8 * MIB}", memory__current="0")
    assert available_memory(root, membership).available == 8 * MIB


def test_without_cgroups_memory_is_the_machines(tmp_path: Path) -> None:
    memory = available_memory(tmp_path, tmp_path / "absent")
    assert memory.limit == "RAM"
    assert memory.available > 0


def test_two_threads_of_a_core_count_once(
    tmp_path: Path, membership: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for cpu in range(8):
        folder(
            tmp_path / "cpus" / f"cpu{cpu}" / "topology",
            physical_package_id="0",
            core_id=f"{cpu // 2}",
        )
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(6)), raising=False)
    root = tmp_path / "cgroup"
    assert available_cores(tmp_path / "cpus", root, membership) == 3
    folder(root / "slice" / "job")
    folder(root / "slice", cpu__max="250000 100000")
    assert available_cores(tmp_path / "cpus", root, membership) == 2
    folder(root / "slice" / "job", cpu__max="10000 100000")
    assert available_cores(tmp_path / "cpus", root, membership) == 1


def test_quotas_are_the_tightest_of_nested_cgroups(tmp_path: Path, membership: Path) -> None:
    root = tmp_path / "cgroup"
    folder(root / "slice" / "job", memory__max=f"{2 * MIB}", cpu__max="max 100000")
    folder(root / "slice", memory__max=f"{MIB}", cpu__max="150000 100000")
    folder(root, memory__max="max")
    assert memory_quota(root, membership) == MIB
    assert cpu_quota(root, membership) == 1.5


def test_version_1_says_unlimited_with_a_number(tmp_path: Path) -> None:
    root, membership = tmp_path / "cgroup", tmp_path / "self"
    membership.write_text("5:memory:/\n2:cpu,cpuacct:/\n0::/\n")
    unlimited = "9223372036854771712"
    folder(root / "memory", memory__limit_in_bytes=unlimited, memory__usage_in_bytes="5")
    folder(root / "cpu", cpu__cfs_quota_us="-1", cpu__cfs_period_us="100000")
    assert memory_quota(root, membership) is None
    assert cpu_quota(root, membership) is None
    assert available_memory(root, membership).limit == "RAM"


@pytest.mark.parametrize("text", ["", "much", "-5", "1 2 3", "9" * 5000])
def test_what_is_no_number_is_no_limit(tmp_path: Path, membership: Path, text: str) -> None:
    root = tmp_path / "cgroup"
    folder(root, memory__max=text, memory__current=text, memory__stat=f"inactive_file {text}")
    folder(root, cpu__max=text)
    assert memory_quota(root, membership) is None
    assert cpu_quota(root, membership) is None
    assert available_memory(root, membership).limit == "RAM"


def test_cores_of_two_clusters_are_not_one(tmp_path: Path) -> None:
    for cpu in range(2):
        topology = {"physical_package_id": "0", "cluster_id": f"{cpu}", "core_id": "0"}
        folder(tmp_path / f"cpu{cpu}" / "topology", **topology)
    assert core_of(0, tmp_path) != core_of(1, tmp_path)


def test_this_machine() -> None:
    assert total_memory() >= available_memory().available > 0
    assert 1 <= available_cores() <= (os.cpu_count() or 1)
    peak = peak_memory()
    assert peak is None or peak > MIB


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="Linux alone says it so")
def test_the_peak_is_of_this_program_not_of_the_one_that_started_it() -> None:
    ballast = b"x" * (200 * MIB)
    code = "from pocketlm.engine.machine import peak_memory; print(peak_memory())"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert int(done.stdout) < len(ballast) < (peak_memory() or 0)
