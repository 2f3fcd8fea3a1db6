"""``pocketlm run REF [PROMPT]``: one answer, written to stdout as it is made."""

from __future__ import annotations

import dataclasses
import json
import sys
from typing import Annotated, Any, Literal, cast

import typer

from pocketlm.errors import CapacityError, RequestError

OVERFLOW_HINT = (
    "Shorten the prompt, lower --max-tokens, give a larger --context, "
    "or choose --on-overflow stop or truncate."
)


def run(
    ref: Annotated[str, typer.Argument(help="A model: smollm2:135m, hf:ORG/REPO, ./model.gguf …")],
    prompt: Annotated[
        str | None, typer.Argument(help="The prompt; '-' or nothing reads it from stdin.")
    ] = None,
    system: Annotated[str | None, typer.Option(help="The system message.")] = None,
    max_tokens: Annotated[int | None, typer.Option(help="Longest answer, in tokens.")] = None,
    temperature: Annotated[float | None, typer.Option(help="0 takes the likeliest token.")] = None,
    top_k: Annotated[int | None, typer.Option(help="Only the K best tokens; 0 is off.")] = None,
    top_p: Annotated[float | None, typer.Option(help="Only the best tokens of mass P.")] = None,
    min_p: Annotated[
        float | None, typer.Option(help="Only tokens at least this probable beside the best.")
    ] = None,
    typical_p: Annotated[float | None, typer.Option(help="Only typical tokens of mass P.")] = None,
    repetition_penalty: Annotated[float | None, typer.Option(help="Above 1 repeats less.")] = None,
    frequency_penalty: Annotated[float | None, typer.Option(help="For every occurrence.")] = None,
    presence_penalty: Annotated[float | None, typer.Option(help="For any occurrence.")] = None,
    seed: Annotated[int | None, typer.Option(help="The same seed gives the same text.")] = None,
    stop: Annotated[list[str] | None, typer.Option(help="Ends the answer; repeatable.")] = None,
    context: Annotated[
        int | None, typer.Option(help="Tokens of prompt and answer together.")
    ] = None,
    threads: Annotated[int | None, typer.Option(help="Default: the physical cores.")] = None,
    kv: Annotated[Literal["f16", "q8", "f32"], typer.Option(help="Type of the KV cache.")] = "f16",
    speculate: Annotated[
        str, typer.Option(help="Guess tokens: ngram (from the text), off, or a smaller model.")
    ] = "ngram",
    think: Annotated[
        bool | None, typer.Option(help="Let a model that can think do so, or not.")
    ] = None,
    on_overflow: Annotated[
        Literal["error", "stop", "truncate"],
        typer.Option(help="Where prompt and answer exceed the context."),
    ] = "error",
    raw: Annotated[bool, typer.Option("--raw", help="Continue the text; no template.")] = False,
    stats: Annotated[bool, typer.Option("--stats", help="What it cost, to stderr.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object instead.")] = False,
) -> None:
    """Answer one prompt."""
    request = _request(prompt, system, think, raw=raw)
    options = _given(
        max_tokens=max_tokens,
        temperature=temperature,
        top_k=top_k,
        top_p=top_p,
        min_p=min_p,
        typical_p=typical_p,
        repetition_penalty=repetition_penalty,
        frequency_penalty=frequency_penalty,
        presence_penalty=presence_penalty,
        seed=seed,
        stop=stop,
    )
    load_options = _given(context=context, threads=threads, kv=kv, speculate=speculate)
    from pocketlm.store.remote_refs import is_remote

    if is_remote(ref):
        from pocketlm.cli.remote import answer, refuse_local_options

        refuse_local_options(**load_options, on_overflow=on_overflow, raw=raw, think=think)
        if answer(ref, request["messages"], options, stats=stats, as_json=as_json) == "cancelled":
            raise typer.Exit(130)
        return
    request["on_overflow"] = on_overflow
    reason = _answer(ref, load_options, request, options, stats=stats, as_json=as_json)
    if reason == "cancelled":
        raise typer.Exit(130)


def _answer(
    ref: str,
    load_options: dict[str, Any],
    request: dict[str, Any],
    options: dict[str, Any],
    *,
    stats: bool,
    as_json: bool,
) -> str:
    """Loads, answers and writes; returns why the answer ended."""
    from pocketlm.cli.answering import (
        notices,
        show,
        start_quickly,
        stats_lines,
        stop_on_interrupt,
    )

    start_quickly()
    from pocketlm.cli.fetching import load, warn_of_base
    from pocketlm.engine.answer import collect
    from pocketlm.engine.sampling import resolve

    resolve(options)  # a bad option is said before a model is loaded
    with load(ref, **load_options) as model, stop_on_interrupt() as cancel:
        try:
            chunks = model.stream(**request, **options, cancel=cancel)
        except CapacityError as error:  # the same, in the words of the command line
            raise CapacityError(error.message, hint=OVERFLOW_HINT) from error
        completion = collect(chunks) if as_json else show(chunks)
        if as_json:
            print(json.dumps(_record(ref, model, completion), ensure_ascii=False))
        lines = notices(completion, model, cast("int | None", options.get("max_tokens")))
        for notice in lines:
            print(f"pocketlm: {notice}", file=sys.stderr)
        if "messages" in request:
            warn_of_base(ref)
        if stats:
            for line in stats_lines(completion.stats, completion.finish_reason, model):
                print(line, file=sys.stderr)
        return completion.finish_reason


def _prompt(given: str | None) -> str:
    if given is not None and given != "-":
        return given
    if sys.stdin.isatty():
        raise RequestError(
            "there is no prompt",
            hint="Give it as an argument or on stdin, or use 'pocketlm chat' to talk.",
        )
    text = sys.stdin.read()
    if not text.strip():
        raise RequestError("the prompt on stdin is empty")
    return text.removesuffix("\n")


def _request(
    prompt: str | None, system: str | None, think: bool | None, *, raw: bool
) -> dict[str, Any]:
    """What is asked, as ``Model.stream`` takes it."""
    if raw and (system is not None or think is not None):
        raise RequestError("--raw has no chat template for --system or --think to go into")
    text = _prompt(prompt)
    if raw:
        return {"messages": text, "raw": True}
    if not text.strip():
        raise RequestError("the prompt is empty")
    head = [] if system is None else [{"role": "system", "content": system}]
    return {
        "messages": [*head, {"role": "user", "content": text}],
        "template_options": _given(enable_thinking=think, thinking=think),
    }


def _given(**options: Any) -> dict[str, Any]:
    """The options that were given; the others are the model's or ours to set."""
    return {name: value for name, value in options.items() if value is not None}


def _record(ref: str, model: Any, completion: Any) -> dict[str, Any]:
    from pocketlm.engine.machine import peak_memory

    return {
        "model": ref,
        "text": completion.text,
        "finish_reason": completion.finish_reason,
        "stats": {
            "load_s": model.load_s,
            **dataclasses.asdict(completion.stats),
            "peak_memory_bytes": peak_memory(),
        },
    }
