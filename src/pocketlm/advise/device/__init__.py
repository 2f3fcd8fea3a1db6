"""The device: facts and rates of this machine, of a profile, or of a machine that wrote them."""

from pocketlm.advise.device.device import (
    Accelerator,
    CoreKind,
    Device,
    Rates,
    Throughput,
    from_json,
    to_json,
)
from pocketlm.advise.device.here import this_device

__all__ = [
    "Accelerator",
    "CoreKind",
    "Device",
    "Rates",
    "Throughput",
    "from_json",
    "this_device",
    "to_json",
]
