"""``pocketlm search [TEXT]``: models of the hub, of Azure's catalog and of the curated one."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from dataclasses import asdict
from datetime import UTC, date, datetime
from typing import TYPE_CHECKING, Annotated, Any

import typer

from pocketlm.cli.output import AsJson

if TYPE_CHECKING:
    from pocketlm.search import Found, Query, Range, Results

_Texts = list[str] | None
_Text = Annotated[str, typer.Argument(help="Words that the name must have.")]
_Source = Annotated[str, typer.Option(help="hub, azure, catalog or all.")]
_Params = Annotated[str | None, typer.Option(help="A range of parameters, as 0.5B..4B.")]
_Class = Annotated[str | None, typer.Option("--class", help="Micro, Small or Medium.")]
_Licence = Annotated[_Texts, typer.Option("--license", "--licence", help="Such as apache-2.0.")]
_Task = Annotated[_Texts, typer.Option(help="Such as text-generation.")]
_Language = Annotated[_Texts, typer.Option("--language", "--lang", help="A code such as es.")]
_Format = Annotated[_Texts, typer.Option(help="gguf, safetensors, onnx or mlx.")]
_Library = Annotated[str | None, typer.Option(help="Such as transformers.")]
_Publisher = Annotated[str | None, typer.Option(help="Whose models.")]
_Benchmark = Annotated[_Texts, typer.Option(help="A result of its page, as MMLU>=60.")]
_Gated = Annotated[
    bool | None, typer.Option("--gated/--not-gated", help="Whether terms must be accepted first.")
]
_Downloads = Annotated[int, typer.Option(min=0, help="Downloads in a month, at least.")]
_Likes = Annotated[int, typer.Option(min=0, help="Likes, at least.")]
_Since = Annotated[str | None, typer.Option(help="Not older: 2026-01-31, 90d, 6m or 1y.")]
_Device = Annotated[str | None, typer.Option(help="Azure: cpu, gpu or npu.")]
_Deployment = Annotated[
    str | None, typer.Option(help="Azure: serverless, managed, provisioned, batch or local.")
]
_Tunable = Annotated[bool | None, typer.Option("--fine-tunable/--not-fine-tunable", help="Azure.")]
_Sold = Annotated[
    bool | None, typer.Option("--sold-by-azure/--not-sold-by-azure", help="Azure: under its SLA.")
]
_Subscription = Annotated[
    str | None, typer.Option(help="Azure: what this subscription has deployed, instead.")
]
_Location = Annotated[
    str | None, typer.Option(help="Azure: what it can deploy in this region, as eastus.")
]
_Sort = Annotated[str, typer.Option(help="downloads, likes, trending, created or modified.")]
_Limit = Annotated[int, typer.Option(help="Models of each source on a page.")]
_Page = Annotated[int, typer.Option(help="Which page.")]
_Count = Annotated[
    bool, typer.Option("--count/--no-count", help="Count parameters from the weights' headers.")
]
_Refresh = Annotated[bool, typer.Option("--refresh", help="Ask, whatever is kept.")]


def search(
    text: _Text = "",
    source: _Source = "hub",
    params: _Params = None,
    size_class: _Class = None,
    license: _Licence = None,
    task: _Task = None,
    language: _Language = None,
    format: _Format = None,
    library: _Library = None,
    publisher: _Publisher = None,
    benchmark: _Benchmark = None,
    gated: _Gated = None,
    min_downloads: _Downloads = 0,
    min_likes: _Likes = 0,
    since: _Since = None,
    device: _Device = None,
    deployment: _Deployment = None,
    fine_tunable: _Tunable = None,
    sold_by_azure: _Sold = None,
    subscription: _Subscription = None,
    location: _Location = None,
    sort: _Sort = "downloads",
    limit: _Limit = 20,
    page: _Page = 1,
    count: _Count = True,
    refresh: _Refresh = False,
    as_json: AsJson = False,
) -> None:
    """Find models on the Hugging Face hub, in Azure's or our catalog."""
    from pocketlm.search.query import parse_benchmark, parse_query, parse_since

    query = parse_query(
        text=text,
        source=source,
        parameters=_range(params, size_class),
        licences=tuple(license or ()),
        tasks=tuple(task or ()),
        languages=tuple(code.lower() for code in language or ()),
        formats=tuple(format or ()),
        library=library,
        publisher=publisher,
        benchmarks=tuple(parse_benchmark(one) for one in benchmark or ()),
        gated=gated,
        min_downloads=min_downloads,
        min_likes=min_likes,
        since=None if since is None else parse_since(since),
        device=device,
        deployment=deployment,
        fine_tunable=fine_tunable,
        sold_by_azure=sold_by_azure,
        subscription=subscription,
        location=location,
        sort=sort,
        limit=limit,
        page=page,
        count=count,
        refresh=refresh,
    )
    _answer(query, as_json)


def _answer(query: Query, as_json: bool) -> None:
    from pocketlm import search as floor
    from pocketlm.cli.output import progress

    with progress() as report:
        results = floor.search(query, progress=report)
    _warn(results)
    if as_json:
        _write_json(results, query)
    else:
        _write_table(results, query)


def _range(params: str | None, size_class: str | None) -> Range | None:
    from pocketlm.errors import RequestError
    from pocketlm.search.query import class_range, parse_range

    if params is not None and size_class is not None:
        raise RequestError("--params and --class both limit the size", hint="Use one of them.")
    if size_class is not None:
        return class_range(size_class)
    return None if params is None else parse_range(params)


def _warn(results: Results) -> None:
    from pocketlm.cli.output import harmless

    for origin in results.origins:
        if origin.failure is not None:
            kept = "; this is what was kept" if origin.cached else ""
            print(f"pocketlm: {harmless(origin.failure)}{kept}", file=sys.stderr)
    for note in results.notes:
        print(f"pocketlm: {harmless(note)}", file=sys.stderr)


def _write_json(results: Results, query: Query) -> None:
    from pocketlm.cli.output import write_json

    write_json(
        {
            "page": query.page,
            "found": [_record(found) for found in results.found],
            "origins": [_plain(asdict(origin)) for origin in results.origins],
            "notes": list(results.notes),
        }
    )


def _record(found: Found) -> dict[str, Any]:
    """All but the names of the files, which may be thousands."""
    return {name: value for name, value in _plain(asdict(found)).items() if name != "files"}


def _plain(facts: dict[str, Any]) -> dict[str, Any]:
    return {n: v.isoformat() if isinstance(v, date) else v for n, v in facts.items()}


def _write_table(results: Results, query: Query) -> None:
    from pocketlm.cli.output import harmless, write_table

    if not results.found:
        again = "" if query.page == 1 else f" on page {query.page}"
        print(f"Nothing fits{again}.")
    head = ["MODEL", "PARAMETERS", "CLASS", "LICENCE", "FORMATS", "DOWNLOADS", "NOTE"]
    rows = [_row(found, query) for found in results.found]
    used = [i for i in range(len(head)) if i < 2 or any(row[i] for row in rows)]
    write_table([head[i] for i in used], [[row[i] for i in used] for row in rows])
    for line in _ages(results, query):
        print(harmless(line))


def _row(found: Found, query: Query) -> list[str]:
    return [
        found.id if found.ref.startswith("azureml:") else found.ref,
        _parameters(found),
        found.size_class or "",
        found.licence or "not said",
        ",".join(found.formats),
        "" if found.downloads is None else f"{found.downloads:,}",
        "; ".join(_notes(found, query)),
    ]


def _parameters(found: Found) -> str:
    from pocketlm.cli.output import count_text

    if found.parameters is None:
        return "not known"
    mark = "?" if found.counted == "source" else ""
    return count_text(found.parameters) + mark


def _notes(found: Found, query: Query) -> Iterator[str]:
    from pocketlm.cli.output import count_text
    from pocketlm.search.filters import plain

    if found.catalog is not None and found.source != "catalog":
        yield f"catalog: {found.catalog}"
    if found.gated:
        yield "gated"
    for who, count, share in (
        ("Azure" if found.source == "azure" else "the hub", found.stated, 0.005),
        ("its name", found.name_parameters, 0.1),
    ):
        if count is not None and _differ(count, found.parameters, share):
            yield f"{who} says {count_text(count)}"
    if found.uncounted is not None:
        yield f"not counted: {found.uncounted}"
    if found.devices or found.deployments:
        yield ",".join(found.devices + found.deployments)
    wanted = {plain(limit.benchmark) for limit in query.benchmarks}
    for score in found.scores:
        if plain(score.benchmark) in wanted:
            whose = f" ({score.source})" if score.source and "/" not in score.source else ""
            yield f"{score.benchmark} {score.value:g}{whose}"


def _differ(one: int, other: int | None, share: float) -> bool:
    return other is not None and abs(one - other) > share * other


def _ages(results: Results, query: Query) -> Iterator[str]:
    marked = any(found.counted == "source" for found in results.found)
    if marked:
        yield "? is the source's own count, which may count packed or doubled weights."
    for origin in results.origins:
        if origin.cached and origin.fetched is not None:
            yield f"{origin.source}: cached {_ago(datetime.now(UTC) - origin.fetched)}"
    if any(origin.more for origin in results.origins):
        yield f"More with --page {query.page + 1}."


def _ago(age: Any) -> str:
    seconds = max(0.0, age.total_seconds())
    for unit, size in (("day", 86400), ("hour", 3600), ("minute", 60)):
        if seconds >= size:
            number = int(seconds // size)
            return f"{number} {unit}{'s' if number > 1 else ''} ago"
    return "just now"
