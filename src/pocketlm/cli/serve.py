"""``pocketlm serve [REF...]``: the HTTP server."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Literal

import typer

from pocketlm.errors import RequestError


def serve(
    refs: Annotated[
        list[str] | None,
        typer.Argument(help="Models to load now and keep; others load when asked for."),
    ] = None,
    host: Annotated[str, typer.Option(help="The address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="The port; 0 takes a free one.")] = 11435,
    context: Annotated[
        int | None, typer.Option(help="Tokens of prompt and answer together, of any request.")
    ] = None,
    sequences: Annotated[
        int, typer.Option("--parallel", "--sequences", help="Answers at once, of each model.")
    ] = 16,
    kv_tokens: Annotated[
        int | None, typer.Option(help="Positions of the KV cache that all answers share.")
    ] = None,
    kv: Annotated[Literal["f16", "q8", "f32"], typer.Option(help="Type of the KV cache.")] = "f16",
    threads: Annotated[int | None, typer.Option(help="Default: the physical cores.")] = None,
    speculate: Annotated[
        Literal["ngram", "off"], typer.Option(help="Guess tokens from the text, or not.")
    ] = "ngram",
    memory: Annotated[
        str | None, typer.Option(help="What all models may take, as 6GiB; default: what is free.")
    ] = None,
    keep_alive: Annotated[
        str, typer.Option(help="How long an unused model stays, as 5m; -1 is for ever.")
    ] = "5m",
    queue: Annotated[int, typer.Option(help="Requests that may wait for a model.")] = 512,
    drain: Annotated[float, typer.Option(help="Seconds for answers to end at the end.")] = 30.0,
    alias: Annotated[
        list[str] | None, typer.Option(help="Another name of a model, as gpt-4=qwen3:0.6b.")
    ] = None,
    max_seconds: Annotated[
        float, typer.Option(min=1, help="Seconds after which an answer is cut.")
    ] = 3600.0,
    max_body: Annotated[str, typer.Option(help="Size that a request may have.")] = "16MiB",
    allow_host: Annotated[
        list[str] | None, typer.Option(help="Another name that requests may call the server.")
    ] = None,
    allow_origin: Annotated[
        list[str] | None, typer.Option(help="A site whose pages may ask, as https://a.example.")
    ] = None,
    registry: Annotated[
        list[str] | None, typer.Option(help="Hosts that clients may pull from, not the known ones.")
    ] = None,
    insecure: Annotated[
        bool, typer.Option("--insecure", help="Serve other machines without keys.")
    ] = False,
    strict: Annotated[
        bool, typer.Option("--strict", help="Refuse unknown parameters instead of naming them.")
    ] = False,
    log_json: Annotated[bool, typer.Option("--log-json", help="Log lines of JSON.")] = False,
    tls_cert: Annotated[Path | None, typer.Option(help="Certificate chain, PEM.")] = None,
    tls_key: Annotated[Path | None, typer.Option(help="Its private key, PEM.")] = None,
    as_json: Annotated[
        bool, typer.Option("--json", help="Say where it listens as a line of JSON.")
    ] = False,
) -> None:
    """Serve models over HTTP: the OpenAI, Ollama and Anthropic APIs."""
    from pocketlm.cli.fetching import fetch
    from pocketlm.engine.options import EngineOptions
    from pocketlm.serve.config import ServeConfig
    from pocketlm.serve.server import serve as run
    from pocketlm.store import Store
    from pocketlm.units import parse_bytes

    config = ServeConfig(
        host=host,
        port=port,
        models=tuple(refs or ()),
        engine=EngineOptions(
            context=context,
            threads=threads,
            kv=kv,
            kv_tokens=kv_tokens,
            sequences=sequences,
            speculate=speculate,
        ),
        memory=None if memory is None else parse_bytes(memory, "--memory"),
        keep_alive=_seconds(keep_alive),
        queue=queue,
        drain=drain,
        aliases=_aliases(alias or ()),
        max_seconds=max_seconds,
        max_body=parse_bytes(max_body, "--max-body"),
        hosts=tuple(allow_host or ()),
        origins=tuple(allow_origin or ()),
        registries=tuple(registry or ()),
        insecure=insecure,
        strict=strict,
        log_json=log_json,
        tls_cert=tls_cert,
        tls_key=tls_key,
    )
    for ref in config.models:
        fetch(ref)

    def ready(url: str) -> None:
        if as_json:
            print(json.dumps({"url": url}), flush=True)
        else:
            print(f"pocketlm: serving on {url}", file=sys.stderr, flush=True)

    run(config, Store(), ready=ready)


def _seconds(text: str) -> float:
    """``5m``, ``90s``, ``1h30m``, ``300`` or ``-1`` in seconds."""
    from pocketlm.serve.durations import seconds

    try:
        return seconds(text)
    except ValueError as error:
        raise RequestError(f"--keep-alive is '{text}', expected a time such as 5m") from error


def _aliases(given: Sequence[str]) -> dict[str, str]:
    found = {}
    for one in given:
        name, equals, ref = one.partition("=")
        if not equals or not name or not ref:
            raise RequestError(f"--alias is '{one}', expected NAME=MODEL")
        found[name] = ref
    return found
