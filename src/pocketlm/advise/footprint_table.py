"""Footprints as a table for spreadsheets: CSV."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from dataclasses import astuple, fields

from pocketlm.advise.footprint import Footprint


def csv_text(footprints: Sequence[Footprint]) -> str:
    """One line for each, under the names of ``Footprint``'s fields; bytes as plain numbers."""
    out = io.StringIO()
    table = csv.writer(out, lineterminator="\n")
    table.writerow(field.name for field in fields(Footprint))
    table.writerows(astuple(one) for one in footprints)
    return out.getvalue()
