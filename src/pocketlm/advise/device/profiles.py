"""Profiles of common devices, for advice about a machine that is not here.

``profiles.toml`` has published facts only, each with its source: the memory's width and clock, the
cores with what their microarchitecture does in a cycle. The rates are derived from those here, by
two formulas:

    read bandwidth = bus width x transfers/s x the share of it that cores reach
    multiply-adds/s = sum over the cores of count x clock x multiply-adds a cycle x share of kernels

Where somebody measured and published what the cores of a device read, that takes the place of the
first. What a profile promises is therefore an estimate; ``pocketlm device --json`` on the device
itself measures.
"""

from __future__ import annotations

import json
import tomllib
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Annotated, ClassVar, Literal

from pydantic import ConfigDict, Field, TypeAdapter

from pocketlm.advise.device.device import (
    Accelerator,
    Bytes,
    CoreKind,
    Count,
    Device,
    Rate,
    Rates,
    Text,
)

_EXACT = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False)
_FILE = "profiles.toml"
_GIB = 1 << 30

Share = Annotated[float, Field(gt=0, le=1)]


@dataclass(frozen=True)
class Core:
    """What one core of a microarchitecture does in a cycle, at most.

    Attributes:
        int8, f32: multiply-adds of the instructions that PocketLM's kernels use on it.
    """

    __pydantic_config__: ClassVar[ConfigDict] = _EXACT

    title: Text
    int8: Rate
    f32: Rate
    source: Text


@dataclass(frozen=True)
class Shared:
    """A share of a peak, and who measured it on what."""

    __pydantic_config__: ClassVar[ConfigDict] = _EXACT

    share: Share
    source: Text


@dataclass(frozen=True)
class Cores:
    """``count`` cores of the kind ``core``, at ``clock`` Hz."""

    __pydantic_config__: ClassVar[ConfigDict] = _EXACT

    core: Text
    count: Count
    clock: Rate


@dataclass(frozen=True)
class Ram:
    """The memory's interface: ``bits`` wide, ``transfers`` a second.

    Attributes:
        share: by its name, the share of that peak that cores reach.
        read: bytes/s that its cores were measured to read, where somebody published that.
    """

    __pydantic_config__: ClassVar[ConfigDict] = _EXACT

    bits: Count
    transfers: Rate
    share: Text
    read: Rate | None = None


@dataclass(frozen=True)
class Profile:
    """A device that people own.

    Attributes:
        gib: the sizes of RAM that it is sold with; each is a profile of its own.
        reserved: GiB that its system and programs take before any model.
        sources: where each fact is from, by the name of the field.
    """

    __pydantic_config__: ClassVar[ConfigDict] = _EXACT

    title: Text
    cpu: Text
    isa: Literal["scalar", "avx2", "avx512", "asimd", "neon"]
    cores: Annotated[tuple[Cores, ...], Field(min_length=1, max_length=8)]
    memory: Ram
    gib: Annotated[tuple[Count, ...], Field(min_length=1, max_length=8)]
    reserved: Rate
    caches: dict[Text, Bytes]
    sources: dict[Text, Text]
    accelerators: tuple[Accelerator, ...] = ()


@dataclass(frozen=True)
class Table:
    """The whole file.

    Attributes:
        share: ``int8`` and ``f32`` are of a core's peak by our kernels, the others of a memory's
            peak by cores.
    """

    __pydantic_config__: ClassVar[ConfigDict] = _EXACT

    share: dict[Text, Shared]
    core: dict[Text, Core]
    device: dict[Text, Profile]


def read_table(text: str) -> Table:
    """The profiles in TOML. Raises ValueError for a faulty table."""
    # By way of JSON, which has no tuples either: the records are strict.
    table = TypeAdapter(Table).validate_json(json.dumps(tomllib.loads(text)))
    for name, profile in table.device.items():
        unknown = {cores.core for cores in profile.cores} - set(table.core)
        unknown |= {profile.memory.share} - set(table.share)
        if unknown:
            raise ValueError(f"the profile {name} names what is not described: {unknown}")
        unsourced = {"cpu", "cores", "memory", "caches", "reserved"} - set(profile.sources)
        if unsourced:
            raise ValueError(f"the profile {name} gives no source of {unsourced}")
    if not {"int8", "f32"} <= set(table.share):
        raise ValueError("the shares of int8 and f32 are missing")
    return table


@cache
def table() -> Table:
    """The profiles that ship with PocketLM."""
    return read_table((files(__package__) / _FILE).read_text("utf-8"))


@cache
def profiles() -> dict[str, Device]:
    """The device of every profile by its name: ``raspberry-pi-5-8gb``."""
    return {
        f"{name}-{gib}gb": _device(f"{name}-{gib}gb", profile, gib, table())
        for name, profile in table().device.items()
        for gib in profile.gib
    }


def _device(name: str, profile: Profile, gib: int, facts: Table) -> Device:
    """A profile with so much RAM, as the record of a device."""
    sources = "; ".join(f"{field}: {source}" for field, source in profile.sources.items())
    return Device(
        name=name,
        cpu=profile.cpu,
        cores=sum(cores.count for cores in profile.cores),
        isa=profile.isa,
        caches=profile.caches,
        ram=gib * _GIB,
        ram_free=round(max(0.0, gib - profile.reserved) * _GIB),
        memory_limit="RAM",
        disk_free=None,
        accelerators=profile.accelerators,
        rates=_rates(profile, facts),
        source=sources,
        core_kinds=tuple(
            CoreKind(cores.count, facts.core[cores.core].title, None, cores.clock)
            for cores in profile.cores
        ),
        model=profile.title,
    )


def _rates(profile: Profile, facts: Table) -> Rates:
    """The rates by the formulas above."""
    memory, share = profile.memory, {name: one.share for name, one in facts.share.items()}
    peak = memory.bits / 8 * memory.transfers
    if memory.read is not None:
        read, how = memory.read, "read bandwidth as it was measured and published"
    else:
        read = peak * share[memory.share]
        how = f"read bandwidth derived: {peak / 1e9:.1f} GB/s x {share[memory.share]}"
    int8, f32 = (
        share[kind]
        * sum(
            cores.count * cores.clock * getattr(facts.core[cores.core], kind)
            for cores in profile.cores
        )
        for kind in ("int8", "f32")
    )
    return Rates(
        read_bandwidth=read,
        int8=int8,
        f32=f32,
        threads=sum(cores.count for cores in profile.cores),
        source=f"{how}; multiply-adds derived: cores x clock x operations a cycle "
        f"x {share['int8']} (int8), x {share['f32']} (f32)",
    )
