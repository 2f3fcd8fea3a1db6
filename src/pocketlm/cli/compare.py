"""``pocketlm compare REF...``: models side by side: facts, sizes, speeds, scores and answers."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from pocketlm.cli.output import AsJson
from pocketlm.errors import RequestError

if TYPE_CHECKING:
    from pocketlm.advise.comparison.trying import Tried


def compare(
    refs: Annotated[
        list[str], typer.Argument(metavar="REF...", help="Models: names, paths, remote refs.")
    ],
    types: Annotated[
        str | None, typer.Option(help="File types whose size is told, with commas.")
    ] = None,
    device: Annotated[
        str, typer.Option(help="Predict speed for a profile or file of another device.")
    ] = "this",
    context: Annotated[
        int | None, typer.Option(help="Tokens that memory is for; default: 4,096.")
    ] = None,
    kv: Annotated[Literal["f16", "q8", "f32"], typer.Option(help="Type of the KV cache.")] = "f16",
    threads: Annotated[int | None, typer.Option(help="Default: the physical cores.")] = None,
    measure: Annotated[
        bool, typer.Option("--measure", help="Run those that are here: speed and perplexity.")
    ] = False,
    text: Annotated[
        Path | None, typer.Option(help="For --measure: a UTF-8 text instead of our own.")
    ] = None,
    prompt: Annotated[
        str | None, typer.Option("--try", help="A prompt that every model answers.")
    ] = None,
    max_tokens: Annotated[int, typer.Option(help="For --try: longest answer, in tokens.")] = 256,
    temperature: Annotated[float, typer.Option(help="For --try: 0 takes the likeliest.")] = 0.0,
    top_p: Annotated[float, typer.Option(help="For --try: only the best of mass P.")] = 1.0,
    seed: Annotated[int, typer.Option(help="For --try: the same for all models.")] = 0,
    html: Annotated[Path | None, typer.Option(help="Write one page with charts.")] = None,
    markdown: Annotated[bool, typer.Option("--markdown", help="Write Markdown.")] = False,
    as_json: AsJson = False,
) -> None:
    """Compare models: facts, sizes, memory, scores, speed, answers."""
    from pocketlm.advise.comparison.comparison import compare as run
    from pocketlm.advise.footprint import DEFAULT_TYPES
    from pocketlm.cli.footprint import _names
    from pocketlm.cli.output import progress

    if markdown and as_json:
        raise RequestError("--markdown and --json both go to stdout", hint="Choose one of them.")
    if text is not None and not measure:
        raise RequestError("--text is what --measure reads", hint="Give both.")
    if html is not None and not html.parent.is_dir():
        raise RequestError(f"there is no folder {html.parent} for the page")
    options = {
        "max_tokens": max_tokens, "temperature": temperature, "top_p": top_p, "seed": seed,
    }  # fmt: skip
    if prompt is not None:
        _check(prompt, options)
    with progress() as report:
        found = run(
            refs,
            types=DEFAULT_TYPES if types is None else _names(types),
            device=device,
            context=context,
            kv=kv,
            threads=threads,
            measure=measure,
            text=text,
            progress=report,
        )
    tried: list[Tried] = []
    alone = prompt is not None and not (as_json or markdown)
    if prompt is not None:
        from pocketlm.cli.trying import ask

        tried = ask(found, prompt, options, kv=kv, threads=threads, shown=alone)
    _write(found, prompt, options, tried, html, markdown=markdown, as_json=as_json, alone=alone)
    if any(one.finish is not None and one.finish.reason == "cancelled" for one in tried):
        raise typer.Exit(130)
    if tried and all(one.error is not None for one in tried):
        raise typer.Exit(1)


def _check(prompt: str, options: dict[str, Any]) -> None:
    """Bad options are said before any work."""
    from pocketlm.engine.sampling import resolve

    if not prompt.strip():
        raise RequestError("the prompt of --try is empty")
    resolve(options)


def _write(
    found: Any,
    prompt: str | None,
    options: dict[str, Any],
    tried: list[Tried],
    html: Path | None,
    *,
    markdown: bool,
    as_json: bool,
    alone: bool,
) -> None:
    from dataclasses import asdict
    from shutil import get_terminal_size

    from pocketlm.cli.output import harmless, write_json

    if html is not None:
        from pocketlm.advise.comparison.page import page
        from pocketlm.files import save

        save(html, page(found, prompt=prompt, tried=tried).encode())
    if as_json:
        record = asdict(found)
        if prompt is not None:
            answers = [asdict(one) for one in tried]
            record["try"] = {"prompt": prompt, "options": options, "answers": answers}
        write_json(record)
    elif markdown:
        from pocketlm.advise.comparison.markdown import answers_text, markdown_text

        print(harmless(markdown_text(found)), end="")
        if prompt is not None:
            print(harmless(answers_text(prompt, tried)), end="")
    elif not alone:
        from pocketlm.advise.comparison.console import console_text

        print(harmless(console_text(found, get_terminal_size((100, 24)).columns)), end="")
