"""``pocketlm device [NAME|FILE]``: the facts of this machine, a profile or another machine."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated

import typer

from pocketlm.cli.output import AsJson

if TYPE_CHECKING:
    from pocketlm.advise.device import Accelerator, CoreKind, Device, Rates


def device(
    name: Annotated[
        str,
        typer.Argument(metavar="[NAME|FILE]", help="A profile, or a file that --json wrote."),
    ] = "this",
    refresh: Annotated[
        bool, typer.Option("--refresh", help="Measure anew, whatever is remembered.")
    ] = False,
    no_probe: Annotated[
        bool, typer.Option("--no-probe", help="Measure nothing: facts alone.")
    ] = False,
    list_profiles: Annotated[
        bool, typer.Option("--list", help="List the profiles of common devices.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Tell what a device has and how fast it reads and computes."""
    from pocketlm.errors import RequestError

    if refresh and no_probe:
        raise RequestError("--refresh measures and --no-probe does not", hint="Use one of them.")
    if (refresh or no_probe) and (list_profiles or name != "this"):
        raise RequestError("--refresh and --no-probe are about this machine, and no other")
    if list_profiles:
        if name != "this":
            raise RequestError(f"--list lists every profile, '{name}' is one device")
        _list(as_json)
        return
    from pocketlm.advise.device import find_device, to_json
    from pocketlm.cli.output import harmless

    found = find_device(name, probe=not no_probe, refresh=refresh)
    if as_json:
        print(to_json(found), end="")
        return
    for title, value in _lines(found):
        print(harmless(f"{title:<18}{value}"))


def _list(as_json: bool) -> None:
    from pocketlm.advise.device import profiles
    from pocketlm.cli.output import size_text, write_json, write_table

    found = profiles()
    if as_json:
        write_json([{"name": name, "model": one.model} for name, one in found.items()])
        return
    write_table(
        ["PROFILE", "DEVICE", "CORES", "RAM", "READS", "KERNELS"],
        [
            (
                name,
                one.model,
                str(one.cores),
                f"{one.ram / (1 << 30):.0f} GiB",
                f"{size_text(round(one.rates.read_bandwidth))}/s" if one.rates else "",
                one.isa,
            )
            for name, one in found.items()
        ],
    )


def _lines(found: Device) -> Iterator[tuple[str, str]]:
    if found.model or found.name != "this":
        yield "device", found.model or found.name
    yield from _processor(found)
    yield from _memory(found)
    for one in found.accelerators:
        yield one.kind.upper(), _accelerator(one)
    if found.accelerators:
        yield "", "PocketLM's own engine computes on the CPU and does not use them"
    if found.hypervisor is not None:
        yield "virtual machine", found.hypervisor
    if found.system:
        yield "system", found.system
    if found.rates is not None:
        yield from _rates(found.rates)
    first, *rest = found.source.split("; ")
    yield "source", first
    for part in rest:
        yield "", part


def _processor(found: Device) -> Iterator[tuple[str, str]]:
    yield "CPU", found.cpu
    yield "cores", _cores(found)
    for kind in found.core_kinds:
        yield "", _kind(kind)
    yield "kernels", found.isa
    if found.features:
        yield "instruction sets", " ".join(found.features)
    if found.caches:
        sizes = (f"{level} {size / 1024:,.0f} KiB" for level, size in found.caches.items())
        yield "caches", ", ".join(sizes)


def _memory(found: Device) -> Iterator[tuple[str, str]]:
    from pocketlm.cli.output import size_text

    limit = "" if found.memory_limit == "RAM" else f", which {found.memory_limit} sets"
    yield "RAM", f"{_gib(found.ram)}, {_gib(found.ram_free)} can be taken{limit}"
    if found.memory_quota is not None:
        yield "", f"the cgroup allows {_gib(found.memory_quota)}"
    if found.disk_free is not None:
        yield "disk", f"{size_text(found.disk_free)} free where models are stored"


def _cores(found: Device) -> str:
    text = f"{found.cores} physical"
    if found.hardware_threads is not None and found.hardware_threads != found.cores:
        text += f" of {found.hardware_threads} hardware threads"
    if found.cpu_quota is not None:
        text += f"; the cgroup allows the time of {found.cpu_quota:g}"
    return text


def _kind(kind: CoreKind) -> str:
    parts = [f"{kind.cores} x {kind.name or 'a kind'}"]
    if kind.capacity is not None:
        parts.append(f"capacity {kind.capacity} of 1024")
    if kind.clock is not None:
        parts.append(f"up to {kind.clock / 1e9:.2f} GHz")
    return ", ".join(parts)


def _accelerator(one: Accelerator) -> str:
    parts = [f"{one.vendor} {one.name}" if one.vendor not in one.name else one.name]
    if one.memory is not None:
        parts.append(_gib(one.memory))
    if one.driver is not None:
        parts.append(f"driver {one.driver}")
    return ", ".join(parts)


def _rates(rates: Rates) -> Iterator[tuple[str, str]]:
    one = rates.one_thread
    spread = f"; slowest pass {rates.read_slowest / 1e9:.1f}" if rates.read_slowest else ""
    threads = f"{rates.threads} thread{'s' if rates.threads > 1 else ''}"
    for title, unit, all_threads, single, more in (
        ("reads", "GB/s", rates.read_bandwidth, one and one.read_bandwidth, spread),
        ("int8", "G multiply-adds/s", rates.int8, one and one.int8, ""),
        ("f32", "G multiply-adds/s", rates.f32, one and one.f32, ""),
    ):
        alone = f", {single / 1e9:.1f} with one" if single and rates.threads > 1 else ""
        yield title, f"{all_threads / 1e9:.1f} {unit} with {threads}{alone}{more}"
    when = f", {rates.measured:%Y-%m-%d %H:%M} UTC" if rates.measured else ""
    yield "", f"{rates.source}{when}"


def _gib(size: int) -> str:
    return f"{size / (1 << 30):.1f} GiB"
