"""JSON from a source: asked for, tried again, kept, and taken from what is kept where need be.

An answer that is younger than a quarter of an hour is not asked for again; an older one is with its
ETag, so that it travels only where it changed. Where the network fails, or the source refuses, what
is kept answers and ``failures`` says why. A source that could not be reached once is not waited for
again in the same search.
"""

from __future__ import annotations

import hashlib
import json
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from pocketlm.errors import NotFoundError, PocketLMError, RequestError, SourceError
from pocketlm.search.cache import Cache, Kept
from pocketlm.store.web import Web

if TYPE_CHECKING:
    import httpx

FRESH = timedelta(minutes=15)
LONGEST_WAIT_S = 10.0
_TRIES = 3
_AGAIN = (429, 500, 502, 503, 504)
_KEEP = ("etag", "link", "azureml-served-by-cluster")
_TOKEN_HINT = "Set HF_TOKEN to a token that is allowed to, or remove one that has run out."


@dataclass(frozen=True)
class Ask:
    """One request. With ``content`` it is a POST, which changes nothing either.

    ``name``: what is asked for, in messages.
    """

    url: str
    name: str
    headers: Mapping[str, str] = field(default_factory=dict)
    content: bytes | None = None

    @property
    def key(self) -> str:
        """Differs for those who may see different things, without having their token in it."""
        token = self.headers.get("Authorization", "")
        who = hashlib.sha256(token.encode()).hexdigest()[:16] if token else "anybody"
        return f"{who} {self.url} {(self.content or b'').decode()}"


class Answers:
    """Asks for JSON and keeps it. Threads may share one.

    Attributes:
        oldest: when the oldest answer that was used came; None before the first.
        cached: whether one that was kept was used.
        failures: why it had to be.
    """

    def __init__(
        self,
        web: Web,
        cache: Cache,
        *,
        refresh: bool = False,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
        sleep: Callable[[float], None] = lambda seconds: time.sleep(seconds),
    ) -> None:
        self.web, self.cache = web, cache
        self.oldest: datetime | None = None
        self.cached = False
        self.failures: list[str] = []
        self._refresh, self._now, self._sleep = refresh, now, sleep
        self._lost: dict[str, PocketLMError] = {}
        self._lock = threading.Lock()

    def get(self, ask: Ask) -> Kept:
        """The answer, new or kept. Raises SourceError or NotFoundError where there is neither."""
        kept = self.cache.get(ask.key)
        if kept is not None and self.is_fresh(kept):
            return self.used(kept, cached=True)
        try:
            found = self._ask(ask, kept)
        except PocketLMError as error:
            if kept is None or isinstance(error, RequestError):
                raise
            with self._lock:
                if str(error) not in self.failures:
                    self.failures.append(str(error))
            return self.used(kept, cached=True)
        self.cache.put(ask.key, found)
        return self.used(found, cached=False)

    def earlier(self, ask: Ask, error: PocketLMError) -> list[Kept]:
        """Where a source has no answer: what it has answered to other questions that begin as this
        one does. Raises ``error`` where it has answered none."""
        found = self.cache.beginning(ask.key.rstrip())
        if not found or isinstance(error, RequestError):
            raise error
        self.failures.append(str(error))
        return [self.used(kept, cached=True) for kept in found]

    def is_fresh(self, kept: Kept) -> bool:
        """Whether it is not to be asked for again."""
        return not self._refresh and timedelta() <= self._now() - kept.fetched < FRESH

    def used(self, kept: Kept, *, cached: bool) -> Kept:
        """Notes that an answer is used, and gives it back."""
        with self._lock:
            self.oldest = min(self.oldest or kept.fetched, kept.fetched)
            self.cached = self.cached or cached
        return kept

    def _ask(self, ask: Ask, kept: Kept | None) -> Kept:
        host = urlsplit(ask.url).netloc
        if host in self._lost:
            raise self._lost[host]
        headers = dict(ask.headers)
        if kept is not None and "etag" in kept.headers:
            headers["If-None-Match"] = kept.headers["etag"]
        try:
            response, body = self._tried(ask, headers)
        except SourceError as error:
            where = ask.url.partition("?")[0]  # filters make the URL too long to read
            lost = SourceError(error.message.replace(ask.url, where), hint=error.hint)
            self._lost[host] = lost
            raise lost from error
        if response.status_code == 304 and kept is not None:
            return Kept(kept.body, self._now(), kept.headers)
        if response.status_code != 200:
            raise _refusal(response, ask, self._now())
        named = {n: response.headers[n] for n in _KEEP if n in response.headers}
        return Kept(_json(body, ask), self._now(), named)

    def _tried(self, ask: Ask, headers: Mapping[str, str]) -> tuple[httpx.Response, bytes]:
        for turn in range(1, _TRIES + 1):
            if ask.content is None:
                response, body = self.web.get(ask.url, headers)
            else:
                response, body = self.web.post(ask.url, headers, ask.content)
            wait = retry_after(response, self._now())
            short = 0.5 * turn if wait is None else wait
            if response.status_code not in _AGAIN or turn == _TRIES or short > LONGEST_WAIT_S:
                break
            self._sleep(short)
        return response, body


def retry_after(response: httpx.Response, now: datetime) -> float | None:
    """Seconds that the answer asks to wait; None where it does not. RFC 9110, 10.2.3."""
    value = response.headers.get("Retry-After", "").strip()
    if value.isascii() and value.isdigit() and len(value) < 10:
        return float(value)
    try:
        when = parsedate_to_datetime(value)
    except ValueError:
        return None
    if when.tzinfo is None:
        when = when.replace(tzinfo=UTC)
    return max(0.0, (when - now).total_seconds())


def _json(body: bytes, ask: Ask) -> object:
    try:
        return json.loads(body)
    except (ValueError, RecursionError) as error:
        host = urlsplit(ask.url).netloc
        raise SourceError(f"{host} answered with no JSON when asked for {ask.name}") from error


def _refusal(response: httpx.Response, ask: Ask, now: datetime) -> PocketLMError:
    host, status = urlsplit(ask.url).netloc, response.status_code
    if status == 429:
        wait = retry_after(response, now)
        when = "later" if wait is None else f"in {duration(wait)}"
        return SourceError(
            f"{host} has had too many requests (429) and wants the next one {when}",
            hint="A token in HF_TOKEN raises the hub's limit." if _is_hub(ask) else None,
        )
    if status in (401, 403):
        return SourceError(
            f"{host} refuses to tell {ask.name} ({status})",
            hint=_TOKEN_HINT if _is_hub(ask) else None,
        )
    if status in (404, 410):
        return NotFoundError(f"{host} does not know {ask.name} ({status})")
    return SourceError(f"{host} answered {status} when asked for {ask.name}")


def _is_hub(ask: Ask) -> bool:
    return ask.content is None


def duration(seconds: float) -> str:
    """How long to wait, in words."""
    return f"{seconds:.0f} seconds" if seconds < 120 else f"{seconds / 60:.0f} minutes"
