"""GPUs and NPUs, as far as the system tells; PocketLM's own engine does not compute on them.

One reader for each place that tells: NVIDIA's management library, /proc/driver/nvidia, the render
nodes and compute accelerators of /sys/class, a CIM class of Windows; macOS has a file of its own.
Each is a function of what it reads (a folder, a text), so that tests can give it any machine.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any, Literal

from pocketlm.advise.device import apple
from pocketlm.advise.device.device import Accelerator, plain
from pocketlm.engine.machine import read_text

_SYS = Path("/sys/class")
_NVIDIA = Path("/proc/driver/nvidia")
_MOST = 64
_TIMEOUT_S = 20

# PCI vendors of GPUs and NPUs.
_VENDORS = {"0x10de": "NVIDIA", "0x1002": "AMD", "0x1022": "AMD", "0x8086": "Intel"}
# The first part of a device tree's "compatible".
_MAKERS = {
    "arm": "Arm", "brcm": "Broadcom", "qcom": "Qualcomm", "nvidia": "NVIDIA", "img": "Imagination",
    "rockchip": "Rockchip", "vivante": "Vivante", "apple": "Apple", "mediatek": "MediaTek",
}  # fmt: skip
_NPU_DRIVERS = {"intel_vpu": "Intel NPU", "amdxdna": "AMD NPU", "rocket": "Rockchip NPU"}

_WINDOWS_GPUS = (
    "Get-CimInstance Win32_VideoController | Select-Object Name,AdapterRAM,DriverVersion"
    " | ConvertTo-Json"
)
_AT_LEAST_4_GIB = 0xFFF0_0000  # Windows counts this memory in 32 bits


def accelerators() -> tuple[Accelerator, ...]:
    """Those of this machine; at most 64."""
    if sys.platform == "darwin":
        found = apple.gpus(apple.facts_of(output(*apple.ASK)))
    elif sys.platform == "win32":
        found = windows_gpus(output("powershell", "-NoProfile", "-Command", _WINDOWS_GPUS))
    else:
        nvidia = nvml_gpus() or nvidia_gpus()
        found = [*nvidia, *render_nodes(nvidia_known=bool(nvidia)), *compute_accelerators()]
    return tuple(found[:_MOST])


def nvml_gpus() -> list[Accelerator]:
    """NVIDIA's, from its library by the package nvidia-ml-py; nothing without either."""
    try:
        import pynvml  # type: ignore[import-not-found, import-untyped, unused-ignore]

        pynvml.nvmlInit()
    except Exception:  # no package, no library, no driver: each in its own class
        return []
    try:
        driver = plain(pynvml.nvmlSystemGetDriverVersion())
        handles = [
            pynvml.nvmlDeviceGetHandleByIndex(i)
            for i in range(min(pynvml.nvmlDeviceGetCount(), _MOST))
        ]
        return [
            Accelerator(
                "gpu",
                "NVIDIA",
                plain(pynvml.nvmlDeviceGetName(h)),
                _nvml_memory(pynvml, h),
                driver,
            )
            for h in handles
        ]
    except pynvml.NVMLError:
        return []
    finally:
        pynvml.nvmlShutdown()


def _nvml_memory(pynvml: Any, handle: Any) -> int | None:
    """Bytes; None on a chip that shares the RAM, where NVML does not tell."""
    try:
        return int(pynvml.nvmlDeviceGetMemoryInfo(handle).total)
    except pynvml.NVMLError:
        return None


def nvidia_gpus(root: Path = _NVIDIA) -> list[Accelerator]:
    """NVIDIA's, from what its driver writes: names and version, but no memory."""
    version = re.search(r"Kernel Module(?:\s+for \S+)?\s+(\S+)", read_text(root / "version") or "")
    driver = f"nvidia {version[1]}" if version else "nvidia"
    names = (
        re.search(r"^Model:\s*(.+)$", read_text(path) or "", re.M)
        for path in sorted((root / "gpus").glob("*/information"))
    )
    return [Accelerator("gpu", "NVIDIA", plain(name[1]), None, driver) for name in names if name]


def render_nodes(root: Path = _SYS, *, nvidia_known: bool = False) -> list[Accelerator]:
    """GPUs of the kernel's graphics drivers: those that compute, not mere displays.

    nvidia_known: NVIDIA's own tools have told of theirs, which are not told again.
    """
    found = []
    for node in sorted((root / "drm").glob("renderD*")):
        device = node / "device"
        driver = _driver(device)
        vendor, name = _vendor_and_name(device)
        if vendor == "NVIDIA" and nvidia_known:
            continue
        kind: Literal["gpu", "npu"] = "npu" if "npu" in name.lower() else "gpu"
        memory = read_text(device / "mem_info_vram_total") or ""  # amdgpu
        amount = int(memory) if memory.isdecimal() and len(memory) < 16 else None
        found.append(Accelerator(kind, vendor, name, amount or None, driver))
    return found


def compute_accelerators(root: Path = _SYS) -> list[Accelerator]:
    """NPUs of the kernel's class for compute accelerators."""
    found = []
    for node in sorted((root / "accel").glob("accel*")):
        driver = _driver(node / "device")
        vendor, name = _vendor_and_name(node / "device")
        found.append(Accelerator("npu", vendor, _NPU_DRIVERS.get(driver or "", name), None, driver))
    return found


def _vendor_and_name(device: Path) -> tuple[str, str]:
    """What a PCI device or a device tree's node says of itself."""
    vendor, number = read_text(device / "vendor"), read_text(device / "device")
    if vendor is not None:
        name = read_text(device / "product_name") or f"PCI {vendor[2:]}:{(number or '0x?')[2:]}"
        return _VENDORS.get(vendor, plain(vendor)), plain(name)
    compatible = re.search(r"^OF_COMPATIBLE_0=(\S+)$", read_text(device / "uevent") or "", re.M)
    if compatible is None:
        return "unknown", plain(_driver(device) or "unknown")
    maker, _, part = compatible[1].partition(",")
    return _MAKERS.get(maker, plain(maker)), plain(part or compatible[1])


def _driver(device: Path) -> str | None:
    """The kernel's driver of a device, and its version where it has one."""
    try:
        name = (device / "driver").resolve(strict=True).name
    except (OSError, RuntimeError):
        return None
    version = read_text(device / "driver" / "module" / "version")
    return plain(f"{name} {version}" if version else name)


def windows_gpus(listed: str) -> list[Accelerator]:
    """Display adapters from the JSON of ``Win32_VideoController``: one object, or a list of them.

    Its count of memory ends at 4 GiB; a full count says nothing and is left out.
    """
    try:
        document = json.loads(listed)
    except (ValueError, RecursionError):
        return []
    found = []
    for one in document if isinstance(document, list) else [document]:
        if not isinstance(one, dict) or not isinstance(one.get("Name"), str):
            continue
        name, memory, version = one["Name"], one.get("AdapterRAM"), one.get("DriverVersion")
        known = isinstance(memory, int) and 0 < memory < _AT_LEAST_4_GIB
        vendor = next((v for v in ("NVIDIA", "AMD", "Intel", "Qualcomm") if v in name), "unknown")
        driver = plain(version) if isinstance(version, str) else None
        found.append(Accelerator("gpu", vendor, plain(name), memory if known else None, driver))
    return found


def output(*command: str) -> str:
    """What a program of the system writes; "" where it is not there or fails."""
    try:
        done = subprocess.run(command, capture_output=True, timeout=_TIMEOUT_S, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout.decode(errors="replace")
