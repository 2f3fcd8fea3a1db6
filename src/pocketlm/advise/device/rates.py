"""The probe: what the CPU reads and computes in a second, measured in less than two and remembered.

A model's speed follows from three figures: bytes read from memory (an answer reads every weight for
every token), and multiply-adds in 8-bit and in float arithmetic (a prompt reuses each weight). All
three are measured in the native core: the last two with the very kernels that models run on.

The figure is the best of several short passes. On a shared machine the passes differ by whatever
the neighbours do, and the best one comes closest to what the hardware can do; the slowest is told
beside it. What was measured is kept under the home and holds for one CPU, count of cores,
instruction set, kernel and version of PocketLM.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import platform
from collections.abc import Mapping
from contextlib import suppress
from datetime import UTC, datetime
from functools import cache
from pathlib import Path

from pydantic import TypeAdapter, ValidationError

from pocketlm import __version__, _native, files
from pocketlm.advise.device.device import Rates, Throughput, first_fault
from pocketlm.engine.cpu import instruction_set

_log = logging.getLogger(__name__)

_MIB = 1 << 20
_READ_LEAST = 64 * _MIB
_READ_UNKNOWN = 256 * _MIB  # where no cache is told: more than most hold
_READ_MOST = 1024 * _MIB
_READ_PASSES = 8
_COMPUTE_PASSES = 8
_PASS_S = 0.025
_LARGEST_FILE = 64 << 10
_KEPT = 16  # files: kernels and versions come and go

SOURCE = (
    f"measured here: the best of {_READ_PASSES} passes over memory, of {_COMPUTE_PASSES} of "
    f"{1000 * _PASS_S:.0f} ms for multiply-adds"
)


def probe(threads: int, last_cache: int, free: int) -> Rates:
    """Measures now, in about a second.

    Args:
        threads: the physical cores that may be used.
        last_cache: bytes of the largest cache, 0 where nobody tells; the probe reads from a buffer
            of eight times that.
        free: bytes of memory that can be taken, of which the buffer is at most a quarter.
    """
    wanted = min(8 * last_cache, _READ_MOST) or _READ_UNKNOWN
    size = max(min(max(wanted, _READ_LEAST), free // 4), 16 * _MIB)
    passes = _native.read_bandwidth(threads, size, _READ_PASSES)
    best = _throughput(threads, max(passes))
    one = best
    if threads > 1:
        one = _throughput(1, max(_native.read_bandwidth(1, size, _READ_PASSES // 2)))
    return Rates(
        # All threads can do what one can; what says otherwise was disturbed.
        read_bandwidth=max(best.read_bandwidth, one.read_bandwidth),
        int8=max(best.int8, one.int8),
        f32=max(best.f32, one.f32),
        threads=threads,
        measured=datetime.now(UTC).replace(microsecond=0),
        source=SOURCE,
        one_thread=one,
        read_slowest=min(passes),
    )


def _throughput(threads: int, read: float) -> Throughput:
    """The multiply-adds beside a read bandwidth that was measured."""
    int8, f32 = (
        max(_native.multiply_add_rate(kind, threads, _PASS_S, _COMPUTE_PASSES))
        for kind in ("int8", "f32")
    )
    return Throughput(read, int8, f32)


def cached_rates(
    home: Path, cpu: str, threads: int, last_cache: int, free: int, *, refresh: bool = False
) -> Rates:
    """The rates that are remembered for this CPU, or measured now and remembered."""
    path = _path(home, cpu, threads)
    if not refresh:
        kept = _read(path)
        if kept is not None:
            return kept
    rates = probe(threads, last_cache, free)
    with suppress(OSError):  # a home that cannot be written costs a second next time, no more
        _write(path, rates)
        _forget_the_oldest(path.parent)
    return rates


@cache
def _adapter() -> TypeAdapter[Rates]:
    return TypeAdapter(Rates)


def _path(home: Path, cpu: str, threads: int) -> Path:
    """One file for each CPU, count of threads, instruction set, kernel and version."""
    facts: Mapping[str, object] = {
        "cpu": cpu,
        "threads": threads,
        "isa": instruction_set(),
        "kernel": platform.release(),
        "version": __version__,
    }
    key = hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()[:16]
    return home / "device" / f"rates-{key}.json"


def _read(path: Path) -> Rates | None:
    """What is remembered; a file that is damaged is named and measured anew."""
    try:
        with path.open("rb") as file:
            return _adapter().validate_json(file.read(_LARGEST_FILE))
    except FileNotFoundError:
        return None
    except ValidationError as error:
        _log.warning("%s is damaged and is measured anew: %s", path, first_fault(error))
    except OSError as error:
        _log.warning("%s cannot be read and is measured anew: %s", path, error.strerror)
    return None


def _write(path: Path, rates: Rates) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    data = _adapter().dump_json(rates, indent=2) + b"\n"
    temporary = path.with_name(f"{path.name}.part-{os.getpid()}")
    with files.created(temporary, os.O_TRUNC) as descriptor:
        files.write_all(descriptor, data)
    files.commit(temporary, path, len(data))


def _forget_the_oldest(folder: Path) -> None:
    """Keeps the newest files; what a killed process left goes with the oldest."""
    found = sorted(folder.glob("rates-*"), key=lambda path: path.stat().st_mtime_ns, reverse=True)
    for path in found[_KEPT:]:
        path.unlink(missing_ok=True)
