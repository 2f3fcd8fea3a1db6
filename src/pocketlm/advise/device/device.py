"""What a device is, as facts: the record that speed and recommendation are computed from.

A record is read from the machine itself (``here``), from a shipped profile (``profiles``) or from
the JSON that ``pocketlm device --json`` wrote on another machine. All three are the same record
and are held to the same bounds, so that no file can make the arithmetic after it overflow.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from functools import cache
from typing import Annotated, ClassVar, Literal

from pydantic import ConfigDict, Field, TypeAdapter, ValidationError

from pocketlm.errors import RequestError

_EXACT = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False)

Text = Annotated[str, Field(max_length=300, pattern=r"^[^\x00-\x1f\x7f-\x9f]*$")]
Note = Annotated[str, Field(max_length=4000, pattern=r"^[^\x00-\x1f\x7f-\x9f]*$")]
Bytes = Annotated[int, Field(ge=0, le=1 << 50)]
Count = Annotated[int, Field(ge=1, le=1 << 16)]
Rate = Annotated[float, Field(gt=0, le=1e18)]


@dataclass(frozen=True)
class Accelerator:
    """A processor beside the CPU. PocketLM's own engine computes on the CPU and does not use it.

    Attributes:
        memory: bytes of its own; None where nobody tells or where it shares the RAM.
        driver: the kernel's driver, with its version where it tells.
    """

    __pydantic_config__: ClassVar[ConfigDict] = _EXACT

    kind: Literal["gpu", "npu"]
    vendor: Text
    name: Text
    memory: Bytes | None = None
    driver: Text | None = None


@dataclass(frozen=True)
class Throughput:
    """Bytes read from memory and multiply-adds, each per second."""

    __pydantic_config__: ClassVar[ConfigDict] = _EXACT

    read_bandwidth: Rate
    int8: Rate
    f32: Rate


@dataclass(frozen=True)
class Rates:
    """What the CPU can do, with ``threads`` threads.

    Attributes:
        read_bandwidth: bytes/s that plain loops over memory read: the best of several passes.
        int8: multiply-adds/s of 4-bit weights with 8-bit activations, in the kernels that read a
            prompt, on data in the caches.
        f32: the same of float weights and activations.
        measured: when; None for figures that were derived from a data sheet.
        source: how they were found.
        one_thread: the same with a single thread, where it was measured.
        read_slowest: bytes/s of the slowest pass: how far the neighbours of a virtual machine
            disturb it.
    """

    __pydantic_config__: ClassVar[ConfigDict] = _EXACT

    read_bandwidth: Rate
    int8: Rate
    f32: Rate
    threads: Count
    measured: datetime | None = None
    source: Note = ""
    one_thread: Throughput | None = None
    read_slowest: Rate | None = None


@dataclass(frozen=True)
class CoreKind:
    """Cores that are alike.

    Attributes:
        capacity: how much the kernel thinks one does, the fastest kind being 1024.
        clock: Hz at most.
    """

    __pydantic_config__: ClassVar[ConfigDict] = _EXACT

    cores: Count
    name: Text | None = None
    capacity: Count | None = None
    clock: Rate | None = None


@dataclass(frozen=True)
class Device:
    """A device.

    Attributes:
        name: "this", or what the profile or file calls it.
        cpu: what the CPU calls itself.
        cores: physical ones that may be used, within affinity and quota.
        isa: the instruction set that PocketLM's kernels use there: scalar, avx2, avx512, asimd or
            neon.
        caches: bytes of one cache of each level: L1d, L1i, L2, L3.
        ram: bytes the machine has.
        ram_free: bytes that can be taken now, file pages that can be dropped included, swap not.
        memory_limit: what sets ``ram_free``: "RAM" or "the cgroup's limit".
        disk_free: bytes where models are stored.
        rates: None where they were not measured.
        source: where the facts are from.
        memory_quota: bytes that the cgroups allow; None without such a limit.
        cpu_quota: CPUs' worth of time that the cgroups allow; None without such a limit.
        hardware_threads: CPUs that the scheduler may use.
        core_kinds: the kinds of cores, fastest first; empty where all are alike or nobody tells.
        features: instruction sets of the CPU that matter for models.
        model: what the maker calls the machine, "" where it does not say.
        hypervisor: that a virtual machine runs under; None on bare metal.
        system: the operating system.
    """

    __pydantic_config__: ClassVar[ConfigDict] = _EXACT

    name: Text
    cpu: Text
    cores: Count
    isa: Text
    caches: Annotated[Mapping[Text, Bytes], Field(max_length=16)]
    ram: Annotated[Bytes, Field(ge=1)]
    ram_free: Bytes
    memory_limit: Text
    disk_free: Bytes | None
    accelerators: Annotated[tuple[Accelerator, ...], Field(max_length=64)]
    rates: Rates | None
    source: Note
    memory_quota: Bytes | None = None
    cpu_quota: Rate | None = None
    hardware_threads: Count | None = None
    core_kinds: Annotated[tuple[CoreKind, ...], Field(max_length=16)] = ()
    features: Annotated[tuple[Text, ...], Field(max_length=64)] = ()
    model: Text = ""
    hypervisor: Text | None = None
    system: Text = field(default="")


def plain(text: str | bytes) -> str:
    """What fits a record of what a system says: printable, and not endless."""
    decoded = text.decode(errors="replace") if isinstance(text, bytes) else text
    return "".join(c for c in decoded if c.isprintable()).strip()[:200]


@cache
def _adapter() -> TypeAdapter[Device]:
    return TypeAdapter(Device)


def to_json(device: Device) -> str:
    """The record as ``from_json`` reads it."""
    return _adapter().dump_json(device, indent=2).decode() + "\n"


def from_json(text: str | bytes, where: str) -> Device:
    """A device from JSON; raises RequestError that names the first faulty field of ``where``."""
    try:
        return _adapter().validate_json(text)
    except ValidationError as error:
        raise RequestError(
            f"{where} describes no device: {first_fault(error)}",
            hint="Write one with 'pocketlm device --json' on the device itself.",
        ) from error


def first_fault(error: ValidationError) -> str:
    """The first thing that a validation found: ``rates.int8: Input should be greater than 0``."""
    first = error.errors(include_url=False, include_input=False)[0]
    field = ".".join(str(part) for part in first["loc"]) or "the document"
    return f"{field}: {first['msg']}"
