"""The CPU, read from folders that look like the kernel's on machines that are not here."""

from __future__ import annotations

from pathlib import Path

import pytest

from pocketlm.advise.device import processor
from pocketlm.advise.device.device import CoreKind


def write(root: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text + "\n")
    return root


def cache(index: int, level: int, kind: str, size: str) -> dict[str, str]:
    folder = f"cpu0/cache/index{index}"
    return {f"{folder}/level": f"{level}", f"{folder}/type": kind, f"{folder}/size": size}


def test_caches(tmp_path: Path) -> None:
    files = cache(0, 1, "Data", "48K") | cache(1, 1, "Instruction", "32K")
    files |= cache(2, 2, "Unified", "2048K") | cache(3, 3, "Unified", "36M")
    found = processor.caches(0, write(tmp_path, files))
    assert found == {"L1d": 48 << 10, "L1i": 32 << 10, "L2": 2 << 20, "L3": 36 << 20}


@pytest.mark.parametrize("size", ["", "much", "-5K", "12KB"])
def test_a_cache_that_says_nothing_is_left_out(tmp_path: Path, size: str) -> None:
    assert processor.caches(0, write(tmp_path, cache(0, 1, "Data", size))) == {}


def test_without_sysfs_nothing_is_made_up(tmp_path: Path) -> None:
    none = tmp_path / "none"
    assert processor.caches(0, none) == {}
    assert processor.core_kinds([0, 1], none, none) == ()
    assert processor.features(none) == ()
    assert processor.model_name(none, none) == ""
    assert processor.hypervisor(none, none, none) is None


def test_instruction_sets_of_x86_and_arm(tmp_path: Path) -> None:
    info = tmp_path / "cpuinfo"
    info.write_text("processor\t: 0\nflags\t\t: fpu avx2 fma avx512_vnni sse2\n")
    assert processor.features(info) == ("avx2", "fma", "avx512_vnni")
    info.write_text("processor\t: 0\nFeatures\t: fp asimd asimddp i8mm\n")
    assert processor.features(info) == ("asimd", "asimddp", "i8mm")


def test_big_and_little_cores(tmp_path: Path) -> None:
    """A Snapdragon's: cores are counted within clusters, so core_id alone says too little."""
    files: dict[str, str] = {}
    for cpu, (cluster, core, capacity, clock) in enumerate(
        [(0, i, 300, 1804800) for i in range(4)]
        + [(1, i, 800, 2400000) for i in range(3)]
        + [(2, 0, 1024, 2900000)]
    ):
        files |= {
            f"cpu{cpu}/topology/physical_package_id": "0",
            f"cpu{cpu}/topology/cluster_id": f"{cluster}",
            f"cpu{cpu}/topology/core_id": f"{core}",
            f"cpu{cpu}/cpu_capacity": f"{capacity}",
            f"cpu{cpu}/cpufreq/cpuinfo_max_freq": f"{clock}",
        }
    info = tmp_path / "cpuinfo"
    parts = ["0xd05"] * 4 + ["0xd41"] * 3 + ["0xd44"]
    info.write_text(
        "".join(
            f"processor\t: {cpu}\nCPU implementer\t: 0x41\nCPU part\t: {part}\n\n"
            for cpu, part in enumerate(parts)
        )
    )
    found = processor.core_kinds(range(8), write(tmp_path, files), info)
    assert found == (
        CoreKind(1, "Cortex-X1", 1024, 2.9e9),
        CoreKind(3, "Cortex-A78", 800, 2.4e9),
        CoreKind(4, "Cortex-A55", 300, 1.8048e9),
    )
    assert processor.core_kinds(range(4), tmp_path, info) == ()


def test_a_hybrid_x86(tmp_path: Path) -> None:
    cpus = tmp_path / "system" / "cpu"
    files = {f"cpu{cpu}/topology/core_id": f"{cpu // 2 if cpu < 4 else cpu}" for cpu in range(8)}
    files |= {f"cpu{cpu}/cpu_capacity": f"{1024 if cpu < 2 else 1000}" for cpu in range(4)}
    write(cpus, files)
    write(tmp_path, {"cpu_core/cpus": "0-3", "cpu_atom/cpus": "4-7"})
    assert processor.core_kinds(range(8), cpus, tmp_path / "none") == (
        CoreKind(2, "performance", 1024),
        CoreKind(4, "efficiency"),
    )


def test_lists_of_cpus() -> None:
    assert processor.cpu_list("0-3,8,10-11") == [0, 1, 2, 3, 8, 10, 11]
    assert processor.cpu_list("") == []
    assert processor.cpu_list("all,2") == [2]


def test_the_machines_name(tmp_path: Path) -> None:
    tree = tmp_path / "model"
    tree.write_bytes(b"Raspberry Pi 5 Model B Rev 1.0\0")
    assert processor.model_name(tree, tmp_path) == "Raspberry Pi 5 Model B Rev 1.0"
    write(tmp_path, {"sys_vendor": "LENOVO", "product_name": "21CB\x1b[2J"})
    assert processor.model_name(tmp_path / "none", tmp_path) == "LENOVO 21CB[2J"


def test_hypervisors(tmp_path: Path) -> None:
    info = tmp_path / "cpuinfo"
    info.write_text("flags\t\t: fpu hypervisor sse2\n")
    none = tmp_path / "none"
    assert processor.hypervisor(info, none, none) == "yes"
    assert processor.hypervisor(info, none, write(tmp_path, {"sys_vendor": "QEMU"})) == "QEMU"
    assert processor.hypervisor(info, write(tmp_path, {"type": "xen"}), none) == "xen"
    info.write_text("flags\t\t: fpu sse2\n")
    assert processor.hypervisor(info, none, tmp_path) is None
