"""Which models a query lets through. The sources filter too, where they can and by their own
counts and words; what they answer is held against every filter again."""

from __future__ import annotations

import re
from collections.abc import Callable
from datetime import UTC, datetime

from pocketlm.search.found import Found
from pocketlm.search.query import AtLeast, Query, comparable

_EVER = datetime(1970, 1, 1, tzinfo=UTC)
# What Azure's catalog calls the tasks of the hub, and what its ways to deploy are.
_TASKS = {"chat-completion": "text-generation", "chat-completions": "text-generation"}


def fits(found: Found, query: Query) -> bool:
    """Whether every filter but that of parameters holds; what is not said fits no filter."""
    return (
        _named(found, query.text)
        and _among(found.licence, query.licences)
        and _any_of(tuple(_TASKS.get(t, t) for t in found.tasks) + found.tasks, query.tasks)
        and _any_of(found.languages, query.languages)
        and _any_of(found.formats, query.formats)
        and (query.library is None or query.library.lower() == (found.library or "").lower())
        and (query.publisher is None or query.publisher.lower() in (found.publisher or "").lower())
        and all(_reaches(found, limit) for limit in query.benchmarks)
        and query.gated in (None, found.gated)
        and (found.downloads or 0) >= query.min_downloads
        and (found.likes or 0) >= query.min_likes
        and _since(found, query)
        and _on_azure(found, query)
    )


def fits_parameters(found: Found, query: Query) -> bool:
    """Whether the best count that there is lies in the range."""
    if query.parameters is None:
        return True
    return found.parameters is not None and found.parameters in query.parameters


def _named(found: Found, words: str) -> bool:
    """Every word is in the id or the title, or in the catalog's name of the model."""
    where = " ".join(filter(None, (found.id, found.title, found.catalog))).lower()
    return all(word in where for word in words.lower().split())


def _among(value: str | None, wanted: tuple[str, ...]) -> bool:
    return not wanted or (value or "").lower() in {one.lower() for one in wanted}


def _any_of(values: tuple[str, ...], wanted: tuple[str, ...]) -> bool:
    return not wanted or not {v.lower() for v in values}.isdisjoint(w.lower() for w in wanted)


def _reaches(found: Found, limit: AtLeast) -> bool:
    name = plain(limit.benchmark)
    return any(
        name == plain(score.benchmark) and comparable(score.value, limit.value) >= limit.value
        for score in found.scores
    )


def plain(benchmark: str) -> str:
    """A benchmark's name without what spellings differ in: ``MMLU-Pro``, ``mmlu_pro``."""
    return re.sub(r"[^a-z0-9+]", "", benchmark.lower())


def _since(found: Found, query: Query) -> bool:
    """Whether the model, or where that is not said its last change, is not older."""
    when = found.created if query.sort == "created" else found.modified or found.created
    return query.since is None or (when is not None and when.date() >= query.since)


def _on_azure(found: Found, query: Query) -> bool:
    return (
        (query.device is None or query.device in found.devices)
        and (query.deployment is None or query.deployment in found.deployments)
        and query.fine_tunable in (None, found.fine_tunable)
        and query.sold_by_azure in (None, found.sold_by_azure)
    )


def order(query: Query) -> Callable[[Found], tuple[object, ...]]:
    """A key that sorts as the query asks, the most first; what is not said comes last."""

    def key(found: Found) -> tuple[object, ...]:
        value: float
        if query.sort in ("created", "modified"):
            when = found.created if query.sort == "created" else found.modified
            value = (when or found.created or _EVER).timestamp()
        else:
            counts = {
                "downloads": found.downloads, "likes": found.likes, "trending": found.trending,
            }  # fmt: skip
            said = counts[query.sort]
            value = (found.trending or 0) if said is None else said  # all that Azure has
        return -value, found.id.lower()

    return key
