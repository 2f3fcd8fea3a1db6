"""Models of the Azure AI Foundry catalog, without an account.

Two services answer, neither of them documented to last: the gallery of the portal, and where that
fails the index behind it, which Foundry Local asks. Both filter by few fields, so the newest or
best liked models are fetched, up to a bound, and every filter is held against them here.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Mapping

from pocketlm.errors import PocketLMError, SourceError
from pocketlm.search.answers import Answers, Ask
from pocketlm.search.azure_records import read_entity, read_summary
from pocketlm.search.fields import items, mapping
from pocketlm.search.filters import fits, fits_parameters, order
from pocketlm.search.found import Found
from pocketlm.search.known import Known
from pocketlm.search.query import Query

GALLERY = "https://api.catalog.azureml.ms/asset-gallery/v1.0/models"
INDEX = "https://ai.azure.com/api/{region}/ux/v1.0/entities/crossRegion"
DEFAULT_REGION = "centralus"
PAGE = 100
MOST_PAGES = 20
_CLUSTER = re.compile(r"vienna-([a-z0-9]{2,30})-\d+")
_ORDER = {"created": "createdTime", "modified": "createdTime"}
_LONGEST_TOKEN = 16 << 10


class Azure:
    """One search of the catalog.

    Attributes:
        looked_at: models that the filters were held against.
        notes: bounds that were met, records that were skipped, which service answered.
    """

    def __init__(self, answers: Answers) -> None:
        self.looked_at = 0
        self.notes: list[str] = []
        self._answers = answers
        self._known = Known.now()

    def search(self, query: Query) -> list[Found]:
        """Every model that fits, of those that were looked at, in the order that is wanted.

        Raises SourceError where neither service has an answer.
        """
        try:
            found = self._gallery(query)
        except PocketLMError as error:
            found = self._second(query, error)
        chosen = [one for one in found if fits(one, query) and fits_parameters(one, query)]
        return sorted(chosen, key=order(query))

    def _second(self, query: Query, first: PocketLMError) -> list[Found]:
        """What there is where the gallery fails: the index, or models that it told of before."""
        try:
            found = self._index(query)
        except PocketLMError as second:
            both = SourceError(
                f"the catalog of Azure AI Foundry has no answer: {first.message}; {second.message}",
                hint=second.hint or first.hint,
            )
            kept = self._answers.earlier(Ask(GALLERY, "", content=b""), both)
            told = [mapping(one.body).get("summaries") for one in kept]
            read = (read_summary(one, self._known) for page in told for one in items(page))
            models = {one.ref: one for one in read if one is not None}
            self.looked_at = len(models)
            self.notes.append(f"looked among the {len(models):,} models that were seen before")
            return list(models.values())
        self.notes.append(
            f"Azure's gallery failed, its index answered in its place: {first.message}"
        )
        return found

    def _gallery(self, query: Query) -> list[Found]:
        field = _ORDER.get(query.sort, "popularity")
        body: dict[str, object] = {
            "filters": gallery_filters(query),
            "order": [{"field": field, "direction": "desc"}],
            "pageSize": PAGE,
        }
        read = _reader("summaries", lambda answer: answer)
        return self._all(
            GALLERY, body, read, read_summary, lambda token: {"continuationToken": token}
        )

    def _index(self, query: Query) -> list[Found]:
        filters = [
            _equal("type", "models"),
            _equal("kind", "Versioned"),
            _equal("labels", "latest"),
        ]
        if query.device is not None:
            filters.append(_equal("properties/variantInfo/variantMetadata/device", query.device))
        asked: dict[str, object] = {
            "filters": filters,
            "freeTextSearch": query.text,
            "pageSize": PAGE,
            "skip": None,
            "continuationToken": None,
        }
        registry = {"resourceId": "azureml", "entityContainerType": "Registry"}
        body: dict[str, object] = {"resourceIds": [registry], "indexEntitiesRequest": asked}

        def following(token: str) -> dict[str, object]:
            return {"indexEntitiesRequest": asked | {"continuationToken": token}}

        read = _reader("value", lambda answer: mapping(answer.get("indexEntitiesResponse")))
        url = INDEX.format(region=self._region())
        return self._all(url, body, read, read_entity, following)

    def _region(self) -> str:
        """Where the gallery answered from when it last did: pages of the index stay in a region."""
        ask = self._ask(GALLERY, {"filters": [_equal("labels", "latest")], "pageSize": 1})
        try:
            kept = self._answers.get(ask)
        except PocketLMError:
            return DEFAULT_REGION
        match = _CLUSTER.match(kept.headers.get("azureml-served-by-cluster", ""))
        return match[1] if match else DEFAULT_REGION

    def _all(
        self,
        url: str,
        body: dict[str, object],
        read: Callable[[object], tuple[list[object], str | None]],
        record: Callable[[object, Known], Found | None],
        following: Callable[[str], dict[str, object]],
    ) -> list[Found]:
        found: dict[str, Found] = {}
        unread = 0
        for values in self._pages(url, body, read, following):
            self.looked_at += len(values)
            for value in values:
                one = record(value, self._known)
                if one is None:
                    unread += 1
                else:
                    found.setdefault(one.ref, one)
        if unread:
            self.notes.append(f"{unread} records of Azure's catalog were not understood")
        return list(found.values())

    def _pages(
        self,
        url: str,
        body: dict[str, object],
        read: Callable[[object], tuple[list[object], str | None]],
        following: Callable[[str], dict[str, object]],
    ) -> Iterator[list[object]]:
        seen: set[str] = set()
        for number in range(MOST_PAGES):
            try:
                values, token = read(self._answers.get(self._ask(url, body)).body)
            except PocketLMError as error:
                if number == 0:
                    raise
                self.notes.append(f"what follows could not be had: {error.message}")
                return
            yield values
            if not token or token in seen:
                return
            seen.add(token)
            body = body | following(token)
        self.notes.append(
            f"only the first {self.looked_at:,} models of Azure's catalog were looked at: "
            "name a publisher or a licence for the rest"
        )

    def _ask(self, url: str, body: Mapping[str, object]) -> Ask:
        headers = {
            "Content-Type": "application/json",
            "Accept": "application/json",
            "User-Agent": "AzureAiStudio",  # without it the index answers 400
        }
        content = json.dumps(body, sort_keys=True).encode()
        return Ask(url, "the models of Azure AI Foundry", headers, content)


def gallery_filters(query: Query) -> list[dict[str, object]]:
    """What the gallery can filter by itself; others are held against its answers."""
    filters = [_equal("labels", "latest")]
    if query.publisher:
        filters.append(_contains("publisher", query.publisher))
    if len(query.licences) == 1:
        filters.append(_contains("license", query.licences[0]))
    return filters


def _equal(field: str, value: str) -> dict[str, object]:
    return {"field": field, "operator": "eq", "values": [value]}


def _contains(field: str, value: str) -> dict[str, object]:
    return {"field": field, "operator": "contains", "values": [value]}


def _reader(
    name: str, inner: Callable[[Mapping[str, object]], Mapping[str, object]]
) -> Callable[[object], tuple[list[object], str | None]]:
    """Reads a page: its records and the token of the next one. Raises SourceError for no page."""

    def read(body: object) -> tuple[list[object], str | None]:
        answer = inner(mapping(body))
        values = answer.get(name)
        if not isinstance(values, list):
            raise SourceError(f"Azure's catalog answered without '{name}'")
        token = answer.get("continuationToken")
        fit = isinstance(token, str) and 0 < len(token) <= _LONGEST_TOKEN
        return values, str(token) if fit else None

    return read
