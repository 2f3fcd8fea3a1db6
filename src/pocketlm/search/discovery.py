"""``search``: asks the sources that are wanted and gives one page of what fits.

Each source pages for itself. A source that fails takes nothing from the others: its origin says
why. Only where every source fails without a kept answer is the failure raised.
"""

from __future__ import annotations

from collections.abc import Callable

from pocketlm.errors import PocketLMError
from pocketlm.progress import ProgressCallback, silent
from pocketlm.search.answers import Answers
from pocketlm.search.cache import Cache
from pocketlm.search.curated import search_catalog
from pocketlm.search.found import Found, Origin, Results, SourceName
from pocketlm.search.query import Query
from pocketlm.settings import Settings
from pocketlm.store.web import Web

PATIENCE_S = 15.0


def search(
    query: Query, *, settings: Settings | None = None, progress: ProgressCallback = silent
) -> Results:
    """Models that fit ``query``.

    settings: where answers are kept, and whether the network may be used; the environment's
        without.
    progress: is told how far the counting is.

    Raises SourceError where nothing at all could be had.
    """
    settings = settings or Settings.from_environment()
    cache = Cache(settings.home / "search")
    wanted: tuple[SourceName, ...] = (
        ("catalog", "hub", "azure") if query.source == "all" else (query.source,)
    )
    found: list[Found] = []
    origins: list[Origin] = []
    notes: list[str] = []
    errors: list[PocketLMError] = []
    with Web(offline=settings.offline, patience_s=PATIENCE_S) as web:
        for source in wanted:
            answers = Answers(web, cache, refresh=query.refresh)
            try:
                models, origin = _SOURCES[source](query, answers, notes, progress)
            except PocketLMError as error:
                errors.append(error)
                origins.append(Origin(source, failure=str(error)))
                continue
            found += models
            origins.append(origin)
    if len(errors) == len(wanted):
        raise errors[0]
    cache.prune()
    return Results(tuple(found), tuple(origins), tuple(notes + cache.faults))


def _hub(
    query: Query, answers: Answers, notes: list[str], progress: ProgressCallback
) -> tuple[list[Found], Origin]:
    from pocketlm.search.hub import Hub

    hub = Hub(answers, progress)
    models = hub.search(query, query.page * query.limit + 1)
    page = _page(models, query)
    if query.count:
        page = hub.count(page)
    notes += hub.notes
    return page, _origin("hub", query, models, answers, hub.looked_at)


def _catalog(
    query: Query, answers: Answers, notes: list[str], progress: ProgressCallback
) -> tuple[list[Found], Origin]:
    models, looked_at = search_catalog(query)
    return _page(models, query), _origin("catalog", query, models, answers, looked_at)


def _azure(
    query: Query, answers: Answers, notes: list[str], progress: ProgressCallback
) -> tuple[list[Found], Origin]:
    if query.subscription is not None:
        from pocketlm.search.azure_account import search_subscription

        models, looked_at = search_subscription(query, answers)
    else:
        from pocketlm.search.azure import Azure

        azure = Azure(answers)
        models = azure.search(query)
        looked_at = azure.looked_at
        notes += azure.notes
    return _page(models, query), _origin("azure", query, models, answers, looked_at)


def _page(models: list[Found], query: Query) -> list[Found]:
    return models[(query.page - 1) * query.limit : query.page * query.limit]


def _origin(
    source: SourceName, query: Query, models: list[Found], answers: Answers, looked_at: int
) -> Origin:
    return Origin(
        source,
        looked_at,
        more=len(models) > query.page * query.limit,
        fetched=answers.oldest,
        cached=answers.cached,
        failure="; ".join(answers.failures) or None,
    )


_Source = Callable[[Query, Answers, list[str], ProgressCallback], tuple[list[Found], Origin]]
_SOURCES: dict[SourceName, _Source] = {"catalog": _catalog, "hub": _hub, "azure": _azure}
