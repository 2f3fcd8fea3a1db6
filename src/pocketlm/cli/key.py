"""``pocketlm key create|list|revoke``: who may use a server."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from pocketlm.cli.output import AsJson
from pocketlm.errors import RequestError

if TYPE_CHECKING:
    from pocketlm.serve.guard.keys import Key, KeyFile, Scope

_CREATE_ONLY = ("scope", "model", "expires", "rate", "concurrency")


def key(
    action: Annotated[Literal["create", "list", "revoke"], typer.Argument(help="What to do.")],
    name: Annotated[
        str | None, typer.Argument(help="Of the key; for revoke, its id or name.")
    ] = None,
    scope: Annotated[
        list[str] | None,
        typer.Option(help="What it may do: infer (default), manage or admin."),
    ] = None,
    model: Annotated[
        list[str] | None, typer.Option(help="Models it may use, as qwen3:*. Default: all.")
    ] = None,
    expires: Annotated[str | None, typer.Option(help="How long it is valid, as 90d.")] = None,
    rate: Annotated[str | None, typer.Option(help="Requests per s, m or h, as 60/m.")] = None,
    concurrency: Annotated[int | None, typer.Option(min=1, help="Requests at once.")] = None,
    as_json: AsJson = False,
) -> None:
    """Make, list and revoke the keys of servers of this store."""
    from pocketlm.serve.guard.keys import KeyFile, make_key, parse_lifetime, parse_rate
    from pocketlm.store import Store

    store = Store()
    keys = KeyFile(store.home, store.shelf.locks)
    limits = (scope, model, expires, rate, concurrency)
    if action != "create":
        given = [n for n, v in zip(_CREATE_ONLY, limits, strict=True) if v]
        if given:
            raise RequestError(f"--{given[0]} is for 'pocketlm key create'")
    if action == "list":
        if name is not None:
            raise RequestError("'pocketlm key list' takes no name")
        _list(keys, as_json)
        return
    if name is None:
        raise RequestError(f"'pocketlm key {action}' needs the name of a key")
    if action == "revoke":
        _revoke(keys, name, as_json)
        return
    made, text = make_key(
        name,
        scopes=_scopes(scope or ["infer"]),
        models=model or (),
        lifetime=None if expires is None else parse_lifetime(expires),
        rate=None if rate is None else parse_rate(rate),
        concurrency=concurrency,
    )
    keys.add(made)
    _show(made, text, as_json)


def _scopes(given: Sequence[str]) -> list[Scope]:
    from pocketlm.serve.guard.keys import SCOPES

    for one in given:
        if one not in SCOPES:
            raise RequestError(f"--scope is '{one}', expected one of {', '.join(SCOPES)}")
    return [scope for scope in SCOPES if scope in given]


def _show(made: Key, text: str, as_json: bool) -> None:
    """The only time that the key can be seen."""
    from pocketlm.cli.output import write_json
    from pocketlm.serve.guard.keys import public_record

    if as_json:
        write_json(public_record(made) | {"key": text})
        return
    print(text)
    print("Keep it: only its hash is stored, it cannot be shown again.", file=sys.stderr)


def _revoke(keys: KeyFile, name: str, as_json: bool) -> None:
    from pocketlm.cli.output import write_json
    from pocketlm.serve.guard.keys import public_record

    ended = keys.revoke(name)
    if as_json:
        write_json(public_record(ended))
    else:
        print(f"Revoked {ended.id} ({ended.name}); running servers refuse it from now on.")


def _list(keys: KeyFile, as_json: bool) -> None:
    from pocketlm.cli.output import write_json, write_table
    from pocketlm.serve.guard.keys import public_record

    found = [public_record(one) for one in keys.all()]
    if as_json:
        write_json(found)
        return
    if not found:
        print("There are no keys. 'pocketlm key create NAME' makes one.")
    rows = [
        (
            one["id"],
            one["name"],
            ", ".join(one["scopes"]),
            ", ".join(one["models"]) or "all",
            (one["expires"] or "never")[:10],
            one["state"],
        )
        for one in found
    ]
    write_table(("ID", "NAME", "SCOPES", "MODELS", "EXPIRES", "STATE"), rows)
