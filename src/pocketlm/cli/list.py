"""``pocketlm list``: the models of the store, or of an endpoint."""

from __future__ import annotations

from typing import Annotated

import typer

from pocketlm.cli.output import AsJson
from pocketlm.errors import RequestError


def list_models(
    place: Annotated[
        str | None,
        typer.Argument(metavar="[PLACE]", help="azure:RESOURCE[/PROJECT] or openai:URL, instead."),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """List the models that are here, or that an endpoint tells of."""
    if place is not None:
        from pocketlm.cli.remote import list_models as list_remote
        from pocketlm.store.remote_refs import is_remote

        if not is_remote(place):
            raise RequestError(
                f"'{place}' is no endpoint whose models can be listed",
                hint="Give azure:RESOURCE[/PROJECT] or openai:URL; 'show' tells of one model.",
            )
        list_remote(place, as_json=as_json)
    else:
        _list_store(as_json)


def _list_store(as_json: bool) -> None:
    from pocketlm.cli.output import count_text, record, size_text, write_json, write_table
    from pocketlm.store import Store

    store = Store()
    models = store.list()
    if as_json:
        write_json([record(model) for model in models])
        return
    if not models:
        print(
            f"There are no models in {store.home}. 'pocketlm pull smollm2:135m' gets a small one."
        )
    rows = [
        (
            model.name,
            size_text(model.manifest.size),
            count_text(model.manifest.facts.parameters),
            model.manifest.facts.size_class,
            model.manifest.facts.family,
            model.manifest.facts.quantization,
            model.manifest.facts.licence or "not said",
        )
        for model in models
        if model.manifest is not None
    ]
    write_table(("NAME", "SIZE", "PARAMETERS", "CLASS", "FAMILY", "QUANTIZATION", "LICENCE"), rows)
