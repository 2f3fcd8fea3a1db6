"""Footprints as a file: CSV for spreadsheets, and writing what was made all or nothing."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from dataclasses import astuple, fields
from pathlib import Path

from pocketlm.advise.footprint import Footprint
from pocketlm.gguf.atomic import atomic_file


def csv_text(footprints: Sequence[Footprint]) -> str:
    """One line for each, under the names of ``Footprint``'s fields; bytes as plain numbers."""
    out = io.StringIO()
    table = csv.writer(out, lineterminator="\n")
    table.writerow(field.name for field in fields(Footprint))
    table.writerows(astuple(one) for one in footprints)
    return out.getvalue()


def save(path: Path, data: bytes) -> None:
    """Writes a file that appears only when it is complete.

    Raises RequestError where there is no such folder, CapacityError where the disk is full.
    """
    with atomic_file(path) as write:
        write(data)
