"""The device that this process runs on, within what its container leaves it."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from pocketlm.advise.device import apple, processor
from pocketlm.advise.device.accelerators import accelerators, output
from pocketlm.advise.device.device import CoreKind, Device, plain
from pocketlm.advise.device.rates import cached_rates
from pocketlm.engine import machine
from pocketlm.engine.cpu import cpu_name, instruction_set
from pocketlm.settings import Settings
from pocketlm.store.files import free_bytes


def this_device(*, probe: bool = True, refresh: bool = False) -> Device:
    """The facts of this machine.

    Args:
        probe: measure the rates where they are not remembered (about a second); without it
            ``rates`` is None.
        refresh: measure them anew.
    """
    home = Settings.from_environment().home
    usable, cores = machine.usable_cpus(), machine.available_cores()
    cpu, caches, core_kinds = _processor(usable)
    memory, total = machine.available_memory(), machine.total_memory()
    quota = machine.memory_quota()
    rates = None
    if probe:
        last = max(caches.values(), default=0)
        rates = cached_rates(home, cpu, cores, last, memory.available, refresh=refresh)
    return Device(
        name="this",
        cpu=cpu,
        cores=cores,
        isa=instruction_set(),
        caches=caches,
        ram=total,
        ram_free=memory.available,
        memory_limit=memory.limit,
        disk_free=free_bytes(home),
        accelerators=accelerators(),
        rates=rates,
        source="read from the machine itself",
        memory_quota=quota if quota is not None and quota < total else None,
        cpu_quota=machine.cpu_quota(),
        hardware_threads=len(usable),
        core_kinds=core_kinds,
        features=processor.features(),
        model=processor.model_name(),
        hypervisor=processor.hypervisor(),
        system=machine.system_name(),
    )


def _processor(usable: Sequence[int]) -> tuple[str, dict[str, int], tuple[CoreKind, ...]]:
    """The CPU's name, the caches that it reads through, and its kinds of cores."""
    if sys.platform == "darwin":
        facts = apple.facts_of(output(*apple.ASK))
        return apple.chip(facts) or cpu_name(), apple.caches(facts), apple.core_kinds(facts)
    return plain(cpu_name()), processor.caches(usable[0]), processor.core_kinds(usable)
