"""Models of the Hugging Face hub.

The questions are those of huggingface_hub's ``list_models``, parameter by parameter, and token and
endpoint are the client's. They are sent by our own connection, since ``list_models`` ends at the
first record whose shape it does not expect, and shows neither an ETag nor how long a busy hub wants
to be left alone.

The hub's filters narrow what it sends; ours decide. By parameters it filters with its own total,
which can be a sixth of the truth (packed weights) or half as much again (heads stored twice): it is
asked for a wider range, and the headers of what it answers are counted.
"""

from __future__ import annotations

import os
import re
import urllib.parse
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import UTC, datetime

from pocketlm.catalog import size_class
from pocketlm.errors import BusyError, PocketLMError, SourceError
from pocketlm.progress import Progress, ProgressCallback, silent
from pocketlm.search.answers import Answers, Ask, duration
from pocketlm.search.cache import Kept
from pocketlm.search.fields import count, mapping
from pocketlm.search.filters import fits, fits_parameters, order
from pocketlm.search.found import Found
from pocketlm.search.headers import Repository, count_parameters
from pocketlm.search.hub_records import read_record
from pocketlm.search.known import Known
from pocketlm.search.query import Query, Range
from pocketlm.store.sources.hub import DEFAULT_ENDPOINT, hub_token

PAGE = 100
MOST_PAGES = 10
MOST_COUNTS = 120
MOST_BYTES = 96 << 20
_AT_ONCE = 8
_EXPAND = (
    "author", "cardData", "createdAt", "downloads", "evalResults", "gated", "gguf", "lastModified",
    "library_name", "likes", "model-index", "pipeline_tag", "safetensors", "sha", "siblings",
    "tags", "trendingScore",
)  # fmt: skip
_SORT = {
    "downloads": "downloads", "likes": "likes", "trending": "trendingScore",
    "created": "createdAt", "modified": "lastModified",
}  # fmt: skip
# Licences that the hub can filter by. Of others it knows no more than that they are others.
_LICENCES = frozenset((
    "afl-3.0", "agpl-3.0", "apache-2.0", "artistic-2.0", "bigcode-openrail-m",
    "bigscience-bloom-rail-1.0", "bigscience-openrail-m", "bsd", "bsd-2-clause", "bsd-3-clause",
    "bsl-1.0", "c-uda", "cc", "cc-by-2.0", "cc-by-3.0", "cc-by-4.0", "cc-by-nc-2.0", "cc-by-nc-3.0",
    "cc-by-nc-4.0", "cc-by-nc-nd-4.0", "cc-by-nc-sa-4.0", "cc-by-nd-4.0", "cc-by-sa-3.0",
    "cc-by-sa-4.0", "cc0-1.0", "creativeml-openrail-m", "ecl-2.0", "epl-2.0", "eupl-1.1", "gemma",
    "gfdl", "gpl", "gpl-2.0", "gpl-3.0", "isc", "lgpl", "lgpl-2.1", "lgpl-3.0", "llama2", "llama3",
    "llama3.1", "llama3.2", "llama3.3", "llama4", "mit", "mpl-2.0", "odc-by", "openrail",
    "openrail++", "osl-3.0", "pddl", "unlicense", "wtfpl", "zlib",
))  # fmt: skip
# What the hub's total may be of the true count: 4-bit weights in bytes of 8, with other tensors
# beside them; a head stored twice in a model that is mostly vocabulary.
_LEAST_SHARE, _MOST_SHARE = 1 / 8, 2.0
_NEXT = re.compile(r'<([^<>]+)>\s*;[^<]*\brel="?next"?')


class Hub:
    """One search of the hub.

    Attributes:
        looked_at: models that the filters were held against.
        notes: bounds that were met, records that were skipped.
    """

    def __init__(self, answers: Answers, progress: ProgressCallback = silent) -> None:
        self.endpoint = (os.environ.get("HF_ENDPOINT") or DEFAULT_ENDPOINT).rstrip("/")
        self.looked_at = 0
        self.notes: list[str] = []
        token = hub_token()
        self._headers = {"Authorization": f"Bearer {token}"} if token else {}
        self._answers = answers
        self._known = Known.now()
        self._counts_left = MOST_COUNTS
        self._busy = False
        self._received = 0
        self._report = progress

    def search(self, query: Query, wanted: int) -> list[Found]:
        """The first ``wanted`` models that fit, in the hub's order, or as many as there are.

        Raises SourceError where the hub has no answer to the first question.
        """
        chosen: list[Found] = []
        for page in self._pages(query):
            fitting = [found for found in page if fits(found, query)]
            while fitting and len(chosen) < wanted:
                batch, fitting = fitting[:_AT_ONCE], fitting[_AT_ONCE:]
                if query.parameters is not None and query.count:
                    batch = self.count(batch)
                chosen += [found for found in batch if fits_parameters(found, query)]
            if len(chosen) >= wanted:
                break
        return chosen[:wanted]

    def count(self, found: Sequence[Found]) -> list[Found]:
        """With what the headers say of those that nobody has counted yet."""
        todo = [i for i, one in enumerate(found) if one.counted in (None, "source")]
        todo = [i for i in todo if found[i].uncounted is None and found[i].files]
        if len(todo) > self._counts_left:
            self._note(f"only {MOST_COUNTS} models were counted: the rest have the hub's totals")
        todo = todo[: self._counts_left]
        self._counts_left -= len(todo)
        counted = list(found)
        if todo:
            with ThreadPoolExecutor(min(_AT_ONCE, len(todo))) as threads:
                results = threads.map(self._count_one, [found[i] for i in todo])
                for done, (i, one) in enumerate(zip(todo, results, strict=True)):
                    self._report(Progress("count parameters", done, len(todo)))
                    counted[i] = one
        return counted

    def _count_one(self, found: Found) -> Found:
        """Counts hold for a commit, so they are kept for ever."""
        key = f"count {self.endpoint}/{found.id}@{found.revision}"
        kept = self._answers.cache.get(key) if found.revision else None
        total = count(mapping(kept.body).get("parameters")) if kept else None
        if total is None:
            gone = self._answers.web.offline or self._answers.failures
            if gone or self._busy or self._received > MOST_BYTES:
                return found  # as has been said
            try:
                total = self._read_headers(found)
            except BusyError as error:
                self._busy = True
                self._note(
                    f"{error.message} and wants the next one in {duration(error.retry_after)}: "
                    "what is not counted has the hub's totals"
                )
                return found
            except PocketLMError as error:
                return replace(found, uncounted=" ".join(error.message.split())[:160])
            if found.revision:
                self._answers.cache.put(key, Kept({"parameters": total}, datetime.now(UTC)))
        return replace(found, parameters=total, counted="headers", size_class=size_class(total))

    def _read_headers(self, found: Found) -> int:
        revision = found.revision or "main"
        base = f"{self.endpoint}/{urllib.parse.quote(found.id)}/resolve/{revision}/"
        repository = Repository(self._answers.web, base, self._headers)
        try:
            return count_parameters(repository, found.id, found.files)
        finally:
            self._received += repository.received
            if self._received > MOST_BYTES:
                self._note(
                    f"more than {MOST_BYTES >> 20} MiB of headers were read: "
                    "what is not counted has the hub's totals"
                )

    def _pages(self, query: Query) -> Iterator[list[Found]]:
        url: str | None = f"{self.endpoint}/api/models?{urllib.parse.urlencode(question(query))}"
        for number in range(MOST_PAGES):
            if url is None:
                return
            try:
                kept = self._answers.get(Ask(url, "its models", self._headers))
            except PocketLMError as error:
                if number == 0:
                    yield self._earlier(query, error)
                    return
                self._note(f"what follows could not be had: {error.message}")
                return
            yield self._records(kept.body)
            url = self._next(kept)
        if url is not None:
            self._note(
                f"only the first {self.looked_at:,} models of the hub were looked at: "
                "narrow the search for the rest"
            )

    def _earlier(self, query: Query, error: PocketLMError) -> list[Found]:
        """Every model that the hub has told of in searches before, as it was told of last."""
        ask = Ask(f"{self.endpoint}/api/models?", "its models", self._headers)
        models: dict[str, Found] = {}
        for kept in self._answers.earlier(ask, error):
            for found in self._records(kept.body):
                models.setdefault(found.id, found)
        self.looked_at = len(models)
        self._note(f"looked among the {len(models):,} models of the hub that were seen before")
        return sorted(models.values(), key=order(query))

    def _records(self, body: object) -> list[Found]:
        if not isinstance(body, list):
            raise SourceError(f"{self.endpoint} answered with no list when asked for models")
        self.looked_at += len(body)
        found = [record for one in body if (record := read_record(one, self._known)) is not None]
        if len(found) < len(body):
            self._note(f"{len(body) - len(found)} records of the hub were not understood")
        return found

    def _next(self, kept: Kept) -> str | None:
        """The next page, which must be of the hub as well: the token goes with the request."""
        match = _NEXT.search(kept.headers.get("link", ""))
        if match is None:
            return None
        url: str = urllib.parse.urljoin(self.endpoint, match[1])
        if not url.startswith(f"{self.endpoint}/"):
            self._note("the hub's next page is on another host: not followed")
            return None
        return url

    def _note(self, text: str) -> None:
        if text not in self.notes:
            self.notes.append(text)


def question(query: Query) -> list[tuple[str, str]]:
    """The parameters of the first request, as the hub's own client writes them.

    Several filters must all hold there, so of filters that take any of several values only single
    ones are sent.
    """
    asked = [("filter", one) for one in _filters(query)]
    if query.gated is not None:
        asked.append(("gated", "true" if query.gated else "false"))
    if len(query.tasks) == 1:
        asked.append(("pipeline_tag", query.tasks[0]))
    if query.parameters is not None:
        asked.append(("num_parameters", _wider(query.parameters)))
    if query.publisher:
        asked.append(("author", query.publisher))
    if query.text:
        asked.append(("search", query.text))
    asked += [("sort", _SORT[query.sort]), ("limit", str(PAGE))]
    return asked + [("expand", one) for one in _EXPAND]


def _filters(query: Query) -> Iterator[str]:
    if len(query.licences) == 1 and query.licences[0].lower() in _LICENCES:
        yield f"license:{query.licences[0].lower()}"
    for values in (query.languages, query.formats):
        if len(values) == 1:
            yield values[0]
    if query.library:
        yield query.library


def _wider(wanted: Range) -> str:
    """The range of the hub's totals that may hide a count in the range that is wanted."""
    ends = []
    if wanted.least:
        ends.append(f"min:{_LEAST_SHARE * wanted.least / 1e9:.6f}B")
    if wanted.below is not None:
        ends.append(f"max:{_MOST_SHARE * wanted.below / 1e9:.6f}B")
    return ",".join(ends) or "min:0B"
