"""What ``pocketlm bench`` has measured on this machine, and how it corrects what is predicted.

One line of JSON for each model of a run, in ``bench/history.jsonl`` under the home: what ran where,
what was measured, and what the formula said of it with the read bandwidth of the same minutes. So
a ratio of the two is the formula's error and not the mood of a shared machine.

A model that was measured here in this type has what was measured. Another one in this type has the
formula's figure times the typical ratio of the models that were, drawn towards 1 by how few they
are. Models are told apart by their shapes: weights of other values are as fast.
"""

from __future__ import annotations

import logging
import math
import os
import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from functools import cache
from pathlib import Path
from typing import Annotated, ClassVar, Literal

from pydantic import ConfigDict, Field, TypeAdapter, ValidationError

from pocketlm import files
from pocketlm.advise.device.device import first_fault
from pocketlm.store.locks import locked

_log = logging.getLogger(__name__)

Measure = Literal["prefill", "decode", "start"]
"""``prefill`` and ``decode`` in tokens/s, ``start`` in seconds: a process without its prompt."""

_EXACT = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False)
_MOST_LINES = 1000
_LONGEST_LINE = 4096
_LATEST = 9  # runs of one model that count: machines change
_DOUBT = 2  # models that the formula itself counts as much as
_MOST_RATIO = 4.0

_Text = Annotated[str, Field(max_length=300)]
_Count = Annotated[int, Field(ge=1, le=1 << 16)]
_Tokens = Annotated[int, Field(ge=0, le=1 << 30)]
_Value = Annotated[float, Field(gt=1e-9, lt=1e12)]


@dataclass(frozen=True)
class Point:
    """One measure: prefill of ``at`` tokens, decode after ``at`` tokens, or the start.

    Attributes:
        measured: the median of a run.
        predicted: by the formula, with the rates of that run.
    """

    __pydantic_config__: ClassVar[ConfigDict] = _EXACT

    measure: Measure
    at: _Tokens
    measured: _Value
    predicted: _Value


@dataclass(frozen=True)
class Case:
    """What runs on what.

    Attributes:
        cpu, cores, isa: the device.
        threads, kv: how it runs.
        shapes: ``PlannedModel.fingerprint``.
        type: its file type.
        reads: bytes of packed weights that a token reads, which tells mixes of one name apart.
    """

    __pydantic_config__: ClassVar[ConfigDict] = _EXACT

    cpu: _Text
    cores: _Count
    isa: _Text
    threads: _Count
    kv: _Text
    shapes: _Text
    type: _Text
    reads: Annotated[int, Field(ge=1, le=1 << 50)]


@dataclass(frozen=True)
class Run:
    """What a run of ``bench`` measured of one model, which it called ``model``, in that version of
    PocketLM."""

    __pydantic_config__: ClassVar[ConfigDict] = _EXACT

    when: datetime
    version: _Text
    model: _Text
    case: Case
    points: Annotated[tuple[Point, ...], Field(min_length=1, max_length=16)]


@dataclass(frozen=True)
class Correction:
    """What has been measured, for one case.

    Attributes:
        measured: of this very case, by measure: (at, value).
        ratios: measured / predicted to go by where the case was not measured.
        count: runs behind them.
    """

    measured: Mapping[str, Sequence[tuple[int, float]]]
    ratios: Mapping[str, float]
    count: int

    def value(self, measure: Measure, at: int, formula: Callable[[int], float]) -> float:
        """The measure at ``at`` tokens: as measured, carried there by the formula where it was
        measured elsewhere; else the formula's corrected value."""
        known = self.measured.get(measure)
        if not known:
            return formula(at) * self.ratios.get(measure, 1.0)
        nearest, value = min(known, key=lambda point: abs(math.log((point[0] + 1) / (at + 1))))
        return value if nearest == at else value * formula(at) / formula(nearest)

    @property
    def basis(self) -> str:
        """How it was found, in words."""
        if self.measured:
            return "measured here" if self.count == 1 else f"measured here {self.count} times"
        if not self.count:
            return "formula"
        return f"corrected by {self.count} measurement{'s' * (self.count > 1)}"


def history_file(home: Path) -> Path:
    """Where the runs are remembered."""
    return home / "bench" / "history.jsonl"


def remember(runs: Sequence[Run], home: Path) -> None:
    """Appends runs; the oldest go where there are more than 1,000 lines.

    Each line is one write at the file's end, under a lock, so that no two runs mix. Raises OSError
    where the home cannot be written.
    """
    path = history_file(home)
    path.parent.mkdir(parents=True, exist_ok=True)
    lines = [line for run in runs if len(line := _adapter().dump_json(run)) < _LONGEST_LINE]
    with locked(home / "locks", str(path)):
        with files.created(path, os.O_APPEND) as descriptor:
            # a line that was cut short by a full disk ends here
            start = b"" if _ends_well(path) else b"\n"
            files.write_all(descriptor, start + b"".join(line + b"\n" for line in lines))
        kept = path.read_bytes().splitlines(keepends=True)
        if len(kept) > _MOST_LINES:
            data = b"".join(kept[-_MOST_LINES * 3 // 4 :])
            temporary = path.with_suffix(".part")
            with files.created(temporary, os.O_TRUNC) as descriptor:
                files.write_all(descriptor, data)
            files.commit(temporary, path, len(data))


def _ends_well(path: Path) -> bool:
    with path.open("rb") as file:
        size = file.seek(0, os.SEEK_END)
        file.seek(max(0, size - 1))
        return file.read(1) in (b"", b"\n")


def remembered(home: Path) -> tuple[Run, ...]:
    """Every run, oldest first. A damaged line is named in a warning and skipped."""
    path = history_file(home)
    try:
        found = path.stat()
    except FileNotFoundError:
        return ()
    except OSError as error:
        _log.warning("%s cannot be read: %s", path, error.strerror)
        return ()
    return _read(path, found.st_mtime_ns, found.st_size)


@cache
def _read(path: Path, modified: int, size: int) -> tuple[Run, ...]:
    """The runs of the file as it was then; asked for every prediction, and read once."""
    runs: list[Run] = []
    try:
        with path.open("rb") as file:
            lines = file.read(2 * _MOST_LINES * _LONGEST_LINE).splitlines()
    except OSError as error:
        _log.warning("%s cannot be read: %s", path, error.strerror)
        return ()
    damaged = []
    for number, line in enumerate(lines, 1):
        try:
            runs.append(_adapter().validate_json(line))
        except ValidationError as error:
            damaged.append((number, first_fault(error)))
    if damaged:
        number, fault = damaged[0]
        more = f", and {len(damaged) - 1} more lines" if len(damaged) > 1 else ""
        _log.warning("%s: line %d is damaged and is skipped: %s%s", path, number, fault, more)
    return tuple(runs)


@cache
def _adapter() -> TypeAdapter[Run]:
    return TypeAdapter(Run)


def correction(case: Case, runs: Sequence[Run]) -> Correction:
    """What the runs say of a case: nothing, where none of its type was on its device."""
    same = [run for run in runs if run.case == case][-_LATEST:]
    alike = [run for run in runs if _alike(run.case, case)]
    measured: dict[str, dict[int, list[float]]] = {}
    for run in same:
        for point in run.points:
            measured.setdefault(point.measure, {}).setdefault(point.at, []).append(point.measured)
    return Correction(
        {
            name: [(at, statistics.median(values)) for at, values in sorted(found.items())]
            for name, found in measured.items()
        },
        _ratios(alike),
        len(same) or len(alike),
    )


def _alike(one: Case, other: Case) -> bool:
    """Whether only the model differs, or the mix that its type stands for."""
    return replace(one, shapes=other.shapes, reads=other.reads) == other


def _ratios(runs: Sequence[Run]) -> dict[str, float]:
    """By measure: the median over models of each one's median ratio, drawn towards 1.

    n models count n / (n + 2): one that was off by a fifth says less of the next one than five.
    """
    by_measure: dict[str, dict[str, list[float]]] = {}
    for run in runs:
        for point in run.points:
            ratio = math.log(point.measured / point.predicted)
            by_measure.setdefault(point.measure, {}).setdefault(run.case.shapes, []).append(ratio)
    most = math.log(_MOST_RATIO)
    found = {}
    for measure, models in by_measure.items():
        typical = statistics.median(statistics.median(v[-_LATEST:]) for v in models.values())
        trust = len(models) / (len(models) + _DOUBT)
        found[measure] = math.exp(trust * min(max(typical, -most), most))
    return found
