"""Which names a request may use for this server, and which web pages may ask it.

A page of any site can have a browser send requests to 127.0.0.1, and with a name that it lets point
there (DNS rebinding) it can even read the answers. So, whatever the address that the server listens
on: the Host must be a name of this machine, an Origin must be this server or one that was allowed,
and what changes anything is a POST or DELETE with a JSON body, which no page can send elsewhere
without being asked for its Origin first.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterable
from urllib.parse import urlsplit

from starlette.types import ASGIApp, Message, Receive, Send
from starlette.types import Scope as Connection

from pocketlm.errors import RequestError
from pocketlm.serve.config import ServeConfig
from pocketlm.serve.guard.refusals import Refusal, refuse, values
from pocketlm.serve.observe.metrics import Metrics

LOOPBACK_NAMES = frozenset({"localhost", "127.0.0.1", "::1"})
_READING = ("GET", "HEAD", "OPTIONS")
_CHANGING = ("POST", "DELETE")
_PORTS = {"http": 80, "https": 443}
_HOST = re.compile(r"(\[[0-9a-f:.]+\]|[a-z0-9._-]+)(?::(\d{1,5}))?")
_JSON = re.compile(r"application/(?:json|[a-z0-9.-]+\+json)\s*(?:;.*)?", re.I | re.S)
_MOST_URL = 8 << 10
_MOST_HEADERS = 64 << 10
_BLOBS = "/api/blobs/"
_PAGE = "/"
_ALLOW_HEADERS = "authorization, content-type, x-api-key, api-key, x-request-id, traceparent"


class Hosts:
    """Middleware: Host, Origin, method and content type."""

    def __init__(self, app: ASGIApp, config: ServeConfig, metrics: Metrics) -> None:
        self._app = app
        self._metrics = metrics
        self._names = {_bare(name) for name in (config.host, *config.hosts)}
        self._names -= {"0.0.0.0", "::"}
        self._origins = frozenset(origin(text) for text in config.origins)

    async def __call__(self, scope: Connection, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        try:
            _check_sizes(scope)
            host = self._host(scope)
            asking = self._origin(scope, host)
            preflight = scope["method"] == "OPTIONS" and values(
                scope, b"access-control-request-method"
            )
            if not preflight:
                _check_method(scope)
        except Refusal as refusal:
            await refuse(refusal, self._metrics, scope, receive, send)
            return
        if preflight:
            await _answer_preflight(asking, scope, send)
        elif asking is None:
            await self._app(scope, receive, send)
        else:
            await self._app(scope, receive, _allowing(asking, send))

    def _host(self, scope: Connection) -> tuple[str, int | None]:
        """The name and port that the request gives this server."""
        given = values(scope, b"host")
        match = _HOST.fullmatch(given[0].lower()) if len(given) == 1 else None
        if match is None:
            raise Refusal(400, "host", "the request needs one Host header that names this server")
        name = _bare(match[1])
        if name in LOOPBACK_NAMES or name in self._names or _is_address(name, scope):
            return match[1], int(match[2]) if match[2] else None
        raise Refusal(
            403, "host", f"this server is not called '{name}'; --allow-host {name} would allow it"
        )

    def _origin(self, scope: Connection, host: tuple[str, int | None]) -> str | None:
        """The other site's page that may read the answer; None where there is none."""
        given = values(scope, b"origin")
        if not given:
            _check_site(scope)
            return None
        if len(given) == 1:
            asking = given[0].lower()
            port = host[1] or _PORTS[scope["scheme"]]
            if asking == _origin_text(scope["scheme"], host[0], port):
                return None
            if asking in self._origins:
                return asking
        raise Refusal(
            403, "origin", "pages of this origin may not ask; --allow-origin would allow it"
        )


def _check_sizes(scope: Connection) -> None:
    if len(scope.get("raw_path") or b"") + len(scope["query_string"]) > _MOST_URL:
        raise Refusal(414, "url", f"the URL is longer than {_MOST_URL:,} bytes")
    if sum(len(name) + len(value) for name, value in scope["headers"]) > _MOST_HEADERS:
        raise Refusal(431, "headers", f"the headers have more than {_MOST_HEADERS:,} bytes")


def origin(text: str) -> str:
    """An origin as browsers write it. Raises RequestError for what is none."""
    try:
        parts = urlsplit(text.strip().lower().rstrip("/"))
        port = parts.port or _PORTS.get(parts.scheme)
    except ValueError:
        port = None
    if port is None or not parts.hostname or parts.path or parts.query or "@" in parts.netloc:
        raise RequestError(f"'{text}' is no origin, expected one such as https://chat.example.org")
    if not _HOST.fullmatch(parts.netloc):
        raise RequestError(f"'{text}' is no origin: wildcards are not possible, name each")
    name = f"[{parts.hostname}]" if ":" in parts.hostname else parts.hostname
    return _origin_text(parts.scheme, name, port)


def check_names(names: Iterable[str]) -> None:
    """Raises RequestError for an allowed host that is no name of one."""
    for name in names:
        if not _HOST.fullmatch(_bracketed(name.lower())) or _bare(name) in ("0.0.0.0", "::"):
            raise RequestError(f"'{name}' is no name of a host; wildcards are not possible")


def _bracketed(name: str) -> str:
    return f"[{name}]" if name.count(":") > 1 and not name.startswith("[") else name


def _bare(name: str) -> str:
    return name.lower().strip("[]").removesuffix(".")


def _origin_text(scheme: str, name: str, port: int) -> str:
    shown = "" if port == _PORTS[scheme] else f":{port}"
    return f"{scheme}://{name}{shown}"


def _is_address(name: str, scope: Connection) -> bool:
    """Whether it is the address that the client has connected to: no name, so none to rebind."""
    server = scope.get("server")
    try:
        return server is not None and ipaddress.ip_address(name) == ipaddress.ip_address(server[0])
    except ValueError:
        return False


def _check_site(scope: Connection) -> None:
    """A browser that tells no Origin may say that another site asks, as for an image.

    Following a link to the page for people is no harm.
    """
    site = values(scope, b"sec-fetch-site")
    if not site or site[0] in ("same-origin", "none"):
        return
    if scope["method"] == "GET" and scope["path"] == _PAGE:
        mode = values(scope, b"sec-fetch-mode")
        if mode == ["navigate"] and values(scope, b"sec-fetch-dest") == ["document"]:
            return
    raise Refusal(403, "origin", "pages of other sites may not ask; --allow-origin would allow it")


def _check_method(scope: Connection) -> None:
    method = scope["method"]
    if method in _READING:
        return
    if method not in _CHANGING:
        allow = {"Allow": ", ".join((*_READING, *_CHANGING))}
        raise Refusal(405, "method", f"{method} is not a method of this server", allow)
    if scope["path"].startswith(_BLOBS) and method == "POST":
        return
    kind = values(scope, b"content-type")
    if method == "DELETE" and not kind and not has_body(scope):
        return
    if len(kind) != 1 or not _JSON.fullmatch(kind[0]):
        raise Refusal(
            415, "content_type", "the body must be JSON: send 'Content-Type: application/json'"
        )


def has_body(scope: Connection) -> bool:
    """Whether the request says that a body follows."""
    length = values(scope, b"content-length")
    return bool(values(scope, b"transfer-encoding")) or length not in ([], ["0"])


async def _answer_preflight(asking: str | None, scope: Connection, send: Send) -> None:
    headers = [(b"vary", b"Origin"), (b"content-length", b"0")]
    if asking is not None:
        headers += [
            (b"access-control-allow-origin", asking.encode()),
            (b"access-control-allow-methods", b"GET, HEAD, POST, DELETE"),
            (b"access-control-allow-headers", _ALLOW_HEADERS.encode()),
            (b"access-control-max-age", b"600"),
        ]
        if values(scope, b"access-control-request-private-network"):
            headers.append((b"access-control-allow-private-network", b"true"))
    await send({"type": "http.response.start", "status": 204, "headers": headers})
    await send({"type": "http.response.body", "body": b""})


def _allowing(asking: str, send: Send) -> Send:
    """Lets the page of ``asking`` read the response."""

    async def sending(message: Message) -> None:
        if message["type"] == "http.response.start":
            message["headers"] = [
                *message["headers"],
                (b"access-control-allow-origin", asking.encode()),
                (b"access-control-expose-headers", b"x-request-id, retry-after"),
                (b"vary", b"Origin"),
            ]
        await send(message)

    return sending
