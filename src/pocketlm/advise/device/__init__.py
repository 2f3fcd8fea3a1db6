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
from pocketlm.advise.device.find import find_device
from pocketlm.advise.device.here import this_device
from pocketlm.advise.device.profiles import profiles

__all__ = [
    "Accelerator",
    "CoreKind",
    "Device",
    "Rates",
    "Throughput",
    "find_device",
    "from_json",
    "profiles",
    "this_device",
    "to_json",
]
