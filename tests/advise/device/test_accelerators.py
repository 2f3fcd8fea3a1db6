"""GPUs and NPUs, read from folders and texts of machines that are not here."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from pocketlm.advise.device import accelerators
from pocketlm.advise.device.device import Accelerator


def device(node: Path, driver: str | None = None, **files: str) -> None:
    """A node of /sys/class with the device behind it."""
    folder = node / "device"
    folder.mkdir(parents=True)
    for name, text in files.items():
        (folder / name).write_text(text + "\n")
    if driver is not None:
        (node.parent / "drivers" / driver).mkdir(parents=True, exist_ok=True)
        (folder / "driver").symlink_to(node.parent / "drivers" / driver)


def test_a_graphics_card_of_amd(tmp_path: Path) -> None:
    vram = f"{16 << 30}"
    node = tmp_path / "drm" / "renderD128"
    device(node, "amdgpu", vendor="0x1002", device="0x744c", mem_info_vram_total=vram)
    device(tmp_path / "drm" / "card0", "simpledrm", vendor="0x1234")
    assert accelerators.render_nodes(tmp_path) == [
        Accelerator("gpu", "AMD", "PCI 1002:744c", 16 << 30, "amdgpu")
    ]


def test_graphics_of_intel_and_of_a_board(tmp_path: Path) -> None:
    device(tmp_path / "drm" / "renderD128", "i915", vendor="0x8086", device="0x46a8")
    board = "DRIVER=v3d\nOF_COMPATIBLE_0=brcm,2712-v3d\nOF_COMPATIBLE_N=1"
    device(tmp_path / "drm" / "renderD129", "v3d", uevent=board)
    npu = "DRIVER=RKNPU\nOF_COMPATIBLE_0=rockchip,rk3588-rknpu"
    device(tmp_path / "drm" / "renderD130", None, uevent=npu)
    assert accelerators.render_nodes(tmp_path) == [
        Accelerator("gpu", "Intel", "PCI 8086:46a8", None, "i915"),
        Accelerator("gpu", "Broadcom", "2712-v3d", None, "v3d"),
        Accelerator("npu", "Rockchip", "rk3588-rknpu", None, None),
    ]


def test_npus(tmp_path: Path) -> None:
    device(tmp_path / "accel" / "accel0", "intel_vpu", vendor="0x8086", device="0x7d1d")
    device(tmp_path / "accel" / "accel1", "amdxdna", vendor="0x1022", device="0x17f0")
    device(tmp_path / "accel" / "accel2", "new", vendor="0xabcd", device="0x1")
    assert accelerators.compute_accelerators(tmp_path) == [
        Accelerator("npu", "Intel", "Intel NPU", None, "intel_vpu"),
        Accelerator("npu", "AMD", "AMD NPU", None, "amdxdna"),
        Accelerator("npu", "0xabcd", "PCI abcd:1", None, "new"),
    ]


def test_nvidia_without_its_library(tmp_path: Path) -> None:
    gpu = tmp_path / "gpus" / "0000:01:00.0"
    gpu.mkdir(parents=True)
    (gpu / "information").write_text("Model: \t\t NVIDIA GeForce RTX 3060\nIRQ:   \t 146\n")
    (tmp_path / "version").write_text("NVRM version: NVIDIA UNIX x86_64 Kernel Module  550.54.15\n")
    assert accelerators.nvidia_gpus(tmp_path) == [
        Accelerator("gpu", "NVIDIA", "NVIDIA GeForce RTX 3060", None, "nvidia 550.54.15")
    ]


def test_nvidia_is_told_once(tmp_path: Path) -> None:
    device(tmp_path / "drm" / "renderD128", "nvidia", vendor="0x10de", device="0x2504")
    assert accelerators.render_nodes(tmp_path, nvidia_known=True) == []
    assert accelerators.render_nodes(tmp_path)[0].vendor == "NVIDIA"


def test_where_nothing_is_there_nothing_is_told(tmp_path: Path) -> None:
    none = tmp_path / "none"
    assert accelerators.render_nodes(none) == []
    assert accelerators.compute_accelerators(none) == []
    assert accelerators.nvidia_gpus(none) == []


class NVMLError(Exception):
    pass


def library(**changes: Any) -> SimpleNamespace:
    """What the package nvidia-ml-py offers, with one card."""

    def refuse(*_: Any) -> Any:
        raise NVMLError

    offered = {
        "NVMLError": NVMLError,
        "nvmlInit": lambda: None,
        "nvmlShutdown": lambda: None,
        "nvmlSystemGetDriverVersion": lambda: "550.54",
        "nvmlDeviceGetCount": lambda: 1,
        "nvmlDeviceGetHandleByIndex": lambda i: i,
        "nvmlDeviceGetName": lambda _: b"Orin (nvgpu)",
        "nvmlDeviceGetMemoryInfo": lambda _: SimpleNamespace(total=8 << 30),
    }
    return SimpleNamespace(**offered | {n: refuse for n, c in changes.items() if c is None})


@pytest.mark.parametrize(
    ("offered", "found"),
    [
        (library(), [Accelerator("gpu", "NVIDIA", "Orin (nvgpu)", 8 << 30, "550.54")]),
        (
            library(nvmlDeviceGetMemoryInfo=None),
            [Accelerator("gpu", "NVIDIA", "Orin (nvgpu)", None, "550.54")],
        ),
        (library(nvmlInit=None), []),
        (library(nvmlDeviceGetName=None), []),
        (None, []),
    ],
    ids=["card", "shared memory", "no driver", "a card that is gone", "no package"],
)
def test_nvidia_by_its_library(
    offered: Any, found: list[Accelerator], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "pynvml", offered)
    assert accelerators.nvml_gpus() == found


def test_windows() -> None:
    card = {"Name": "NVIDIA GeForce RTX 3060", "AdapterRAM": 4293918720, "DriverVersion": "31.0"}
    small = {"Name": "Intel(R) UHD Graphics", "AdapterRAM": 1 << 30, "DriverVersion": None}
    known = Accelerator("gpu", "NVIDIA", "NVIDIA GeForce RTX 3060", None, "31.0")
    assert accelerators.windows_gpus(json.dumps(card)) == [known]
    assert accelerators.windows_gpus(json.dumps([card, small, 7, {"Name": None}])) == [
        known,
        Accelerator("gpu", "Intel", "Intel(R) UHD Graphics", 1 << 30, None),
    ]
    for text in ("", "no JSON", "[" * 100_000, "null"):
        assert accelerators.windows_gpus(text) == []


def test_this_machine_tells_something_or_nothing() -> None:
    assert len(accelerators.accelerators()) <= 64
