"""Devices that tests choose for: written down, so that nothing depends on the machine."""

from __future__ import annotations

from pocketlm.advise.device import Device, Rates

GIB = 1 << 30


def device(
    name: str = "test",
    *,
    ram: int = 8 * GIB,
    taken: int = 2 * GIB,
    bandwidth: float = 40e9,
    disk: int | None = None,
) -> Device:
    """A device whose arithmetic keeps up with its memory."""
    rates = Rates(bandwidth, 12 * bandwidth, 4.5 * bandwidth, threads=2, source="a test")
    return Device(
        name=name,
        cpu="Test CPU",
        cores=2,
        isa="avx2",
        caches={"L2": 1 << 20},
        ram=ram,
        ram_free=ram - taken,
        memory_limit="RAM",
        disk_free=disk,
        accelerators=(),
        rates=rates,
        source="a test",
    )


PHONE = device("phone-test", ram=4 * GIB, bandwidth=12e9)
VM = device("vm-2-cores", ram=24 * GIB, taken=GIB, bandwidth=55e9)
LAPTOP = device("laptop-test", ram=16 * GIB, taken=4 * GIB, bandwidth=43e9)
