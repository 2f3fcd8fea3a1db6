"""This machine."""

from __future__ import annotations

from pocketlm import _native
from pocketlm.advise.device import this_device
from pocketlm.advise.device.device import from_json, to_json


def test_this_machine_without_a_probe() -> None:
    device = this_device(probe=False)
    assert device.rates is None
    assert device.isa == _native.isa()
    assert device.ram >= device.ram_free > 0
    assert device.hardware_threads is not None
    assert 1 <= device.cores <= device.hardware_threads
    assert device.disk_free
    assert from_json(to_json(device), "this") == device
