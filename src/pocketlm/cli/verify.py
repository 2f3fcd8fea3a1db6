"""``pocketlm verify [NAME]``: read every byte of the store again and compare."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Annotated, Any

import typer

from pocketlm.cli.output import AsJson

if TYPE_CHECKING:
    from pocketlm.store import Finding


def verify(
    name: Annotated[str | None, typer.Argument(help="One model; all of them if not given.")] = None,
    as_json: AsJson = False,
) -> None:
    """Check that every file is there, byte for byte."""
    from pocketlm.cli.output import progress, write_json
    from pocketlm.store import Store

    with progress() as report:
        found = Store().verify(name, report)
    if as_json:
        write_json(
            {
                "ok": found.ok,
                "checked": found.checked,
                "problems": [_record(finding) for finding in found.problems],
                "leftovers": [_record(finding) for finding in found.leftovers],
            }
        )
    else:
        for finding in (*found.problems, *found.leftovers):
            print(f"{finding.kind}: {finding.what} ({finding.path}). {finding.advice}")
        if not found.checked and found.ok:
            print("there are no models to check")
        elif found.ok:
            files = "1 file" if found.checked == 1 else f"{found.checked:,} files"
            print(f"{files} checked: every byte is as it was stored")
    found.raise_if_broken()


def _record(finding: Finding) -> dict[str, Any]:
    return {**dataclasses.asdict(finding), "path": str(finding.path)}
