"""Macs, from the lines that ``sysctl`` writes there."""

from __future__ import annotations

import pytest

from pocketlm.advise.device import apple
from pocketlm.advise.device.device import Accelerator, CoreKind

M2 = """\
hw.memsize: 17179869184
hw.nperflevels: 2
hw.perflevel0.physicalcpu: 4
hw.perflevel0.l1icachesize: 196608
hw.perflevel0.l1dcachesize: 131072
hw.perflevel0.l2cachesize: 16777216
hw.perflevel0.name: Performance
hw.perflevel1.physicalcpu: 4
hw.perflevel1.l1dcachesize: 65536
hw.perflevel1.name: Efficiency
hw.l1dcachesize: 65536
machdep.cpu.brand_string: Apple M2
"""
INTEL = """\
hw.nperflevels: 1
hw.l1dcachesize: 32768
hw.l2cachesize: 262144
hw.l3cachesize: 8388608
machdep.cpu.brand_string: Intel(R) Core(TM) i5-8259U CPU @ 2.30GHz
"""


def test_an_apple_chip() -> None:
    facts = apple.facts_of(M2)
    assert apple.chip(facts) == "Apple M2"
    assert apple.caches(facts) == {"L1d": 128 << 10, "L1i": 192 << 10, "L2": 16 << 20}
    assert apple.core_kinds(facts) == (CoreKind(4, "performance"), CoreKind(4, "efficiency"))
    assert apple.gpus(facts) == [Accelerator("gpu", "Apple", "Apple M2 GPU")]


def test_a_mac_of_intel() -> None:
    facts = apple.facts_of(INTEL)
    assert apple.chip(facts).startswith("Intel(R) Core(TM) i5")
    assert apple.caches(facts) == {"L1d": 32 << 10, "L2": 256 << 10, "L3": 8 << 20}
    assert apple.core_kinds(facts) == ()
    assert apple.gpus(facts) == []


@pytest.mark.parametrize(
    "text", ["", "sysctl: unknown oid\n", "hw.nperflevels: 9999999999999\nhw.l2cachesize: -1\n"]
)
def test_lines_that_say_nothing(text: str) -> None:
    facts = apple.facts_of(text)
    assert (apple.chip(facts), apple.caches(facts)) == ("", {})
    assert (apple.core_kinds(facts), apple.gpus(facts)) == ((), [])
