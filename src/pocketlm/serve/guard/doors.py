"""The door: who asks, whether they may do this, and whether it is too much at once.

Once there are keys, everything wants one but what ``OPEN`` has. What is not in the tables below
wants an admin, so a new route is closed until somebody decides.
"""

from __future__ import annotations

import math
import re
from contextvars import ContextVar
from datetime import UTC, datetime
from typing import Literal

from starlette.types import ASGIApp, Receive, Send
from starlette.types import Scope as Connection

from pocketlm.errors import ModelFileError
from pocketlm.serve.guard.keys import Key, KeyFile, Scope, Uses
from pocketlm.serve.guard.refusals import Refusal, refuse, values
from pocketlm.serve.observe.entry import UNCOUNTED, current
from pocketlm.serve.observe.metrics import Metrics

Wanted = Literal["open", "any", "read"] | Scope

# The key of the request that is being answered; None where none is needed.
asking: ContextVar[Key | None] = ContextVar("key", default=None)

_OPEN = re.compile(r"/|/health|/ready|/favicon\.ico|/page/static/[^/]+")
_ANY = re.compile(r"/metrics")
_READ = re.compile(
    r"/v1/models(?:/.+)?|/v1/responses/[^/]+|/api/(?:tags|ps|version)|/version|(?:/v1)?/tokenizer_info"
    r"|/page/(?:models|catalog|live|memory)|/admin/models|/openapi\.json"
)
_INFER = re.compile(
    r"/v1/(?:chat/completions|completions|embeddings|responses|responses/[^/]+|messages|messages/count_tokens)"
    r"|/api/(?:generate|chat|embed|embeddings)|(?:/v1)?/(?:de)?tokenize"
)
_READ_BY_POST = re.compile(r"/api/show")
_MANAGE = re.compile(r"/api/(?:pull|push|create|copy|delete|blobs/[^/]+)|/admin/(?:load|unload)")


def wanted(method: str, path: str) -> Wanted:
    """What a request needs: nothing, any key, a key that may infer or manage, or that scope."""
    if method in ("GET", "HEAD", "OPTIONS"):
        if _OPEN.fullmatch(path):
            return "open"
        if _ANY.fullmatch(path):
            return "any"
        if _READ.fullmatch(path):
            return "read"
    elif _INFER.fullmatch(path):
        return "infer"
    elif _READ_BY_POST.fullmatch(path):
        return "read"
    return "manage" if _MANAGE.fullmatch(path) else "admin"


class Doors:
    """Middleware: keys, scopes, rates and requests at once.

    Args:
        alone: whether the server may answer without keys: only this machine reaches it, or its
            owner insists.
    """

    def __init__(self, app: ASGIApp, keys: KeyFile, metrics: Metrics, *, alone: bool) -> None:
        self._app = app
        self._keys = keys
        self._metrics = metrics
        self._alone = alone
        self._uses = Uses()

    async def __call__(self, scope: Connection, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        try:
            key = self._enter(scope)
            if key is not None and scope["path"] not in UNCOUNTED:
                self._count(key)
        except Refusal as refusal:
            await refuse(refusal, self._metrics, scope, receive, send)
            return
        token = asking.set(key)
        try:
            await self._app(scope, receive, send)
        finally:
            asking.reset(token)
            if key is not None and scope["path"] not in UNCOUNTED:
                self._uses.end(key)

    def _enter(self, scope: Connection) -> Key | None:
        """The key of the request; None where none is needed."""
        need = wanted(scope["method"], scope["path"])
        if need == "open":
            return None
        try:
            known = self._keys.all()
        except (ModelFileError, OSError) as error:
            raise Refusal(503, "keys", "the server cannot read its API keys") from error
        if not known and self._alone:
            return None
        key = self._valid(scope)
        _note(key)
        if need == "read":
            allowed = key.allows("infer") or key.allows("manage")
        else:
            allowed = need == "any" or key.allows(need)
        if not allowed:
            raise Refusal(
                403, "scope", f"{scope['method']} {scope['path']} needs a key with scope {need}"
            )
        return key

    def _count(self, key: Key) -> None:
        """Counts a request in; Refusal where the key has too many."""
        again = self._uses.begin(key)
        if again is not None:
            seconds = str(max(1, math.ceil(again)))
            raise Refusal(
                429, "rate", f"too many requests of this key: ask again in {seconds} s",
                {"Retry-After": seconds},
            )  # fmt: skip

    def _valid(self, scope: Connection) -> Key:
        text = _credential(scope)
        if text is None:
            raise _unknown("an API key is needed: send 'Authorization: Bearer plm_...'", False)
        key = self._keys.find(text)
        if key is None:
            raise _unknown("the API key is not known here", True)
        state = key.state(datetime.now(UTC))
        if state != "valid":
            raise _unknown(f"the API key is {state}", True)
        return key


def _credential(scope: Connection) -> str | None:
    """The key that the request carries; Refusal for two different ones."""
    given = [*values(scope, b"x-api-key"), *values(scope, b"api-key")]
    for value in values(scope, b"authorization"):
        scheme, _, text = value.partition(" ")
        if scheme.lower() != "bearer":
            raise _unknown("the Authorization must be 'Bearer plm_...'", False)
        given.append(text.strip())
    if len(set(given)) > 1:
        raise Refusal(400, "credentials", "the request carries different API keys: send one")
    return given[0] if given and given[0] else None


def _unknown(message: str, invalid: bool) -> Refusal:
    error = ', error="invalid_token"' if invalid else ""
    return Refusal(401, "key", message, {"WWW-Authenticate": f'Bearer realm="pocketlm"{error}'})


def _note(key: Key) -> None:
    entry = current.get()
    if entry is not None:
        entry.key = key.id
