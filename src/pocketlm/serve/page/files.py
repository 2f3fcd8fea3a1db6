"""The files of the page: read once, sent with headers that let nothing foreign run.

Everybody may have them, with or without a key: they hold no secrets, and a browser cannot send a
key before the page that asks for it is there.
"""

from __future__ import annotations

import gzip
import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.resources import files
from pathlib import PurePath

from fastapi import APIRouter, Request
from fastapi.responses import PlainTextResponse, Response

from pocketlm.errors import NotFoundError

_TYPES = {
    ".html": "text/html; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
}

# What a model writes is shown on this page, so the browser is told to trust nothing but the files
# themselves: no inline script or style, no other host, no frame around it, and no way to turn text
# into markup (trusted types).
_POLICY = "; ".join(
    (
        "default-src 'none'",
        "script-src 'self'",
        "style-src 'self'",
        "img-src 'self'",
        "connect-src 'self'",
        "base-uri 'none'",
        "form-action 'none'",
        "frame-ancestors 'none'",
        "require-trusted-types-for 'script'",
        "trusted-types 'none'",
    )
)
_HEADERS = {
    "Content-Security-Policy": _POLICY,
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "camera=(), geolocation=(), microphone=()",
    # Kept, but asked for each time: after an update no old module meets a new one.
    "Cache-Control": "no-cache",
}
_GREETING = "Ollama is running"
"""What clients of Ollama look for at ``/``."""


@dataclass(frozen=True)
class PageFile:
    """One file of the page, plain and compressed; ``digest`` is the hash of its content."""

    content: bytes
    compressed: bytes
    type: str
    digest: str


def read_files() -> Mapping[str, PageFile]:
    """Every file of the page, by name."""
    found = {}
    for entry in files(__package__).joinpath("static").iterdir():
        kind = _TYPES.get(PurePath(entry.name).suffix)
        if kind is not None:
            content = entry.read_bytes()
            digest = hashlib.sha256(content).hexdigest()[:32]
            found[entry.name] = PageFile(content, gzip.compress(content, mtime=0), kind, digest)
    return found


def router() -> APIRouter:
    """The page at ``/``, its parts below ``/page/static/``."""
    made = APIRouter()
    all_files = read_files()

    @made.api_route("/", methods=["GET", "HEAD"])
    async def root(request: Request) -> Response:
        """The page for browsers, a greeting for programs."""
        if "text/html" in request.headers.get("accept", ""):
            return _sent(all_files["index.html"], request, ", Accept")
        return PlainTextResponse(_GREETING, headers={"Vary": "Accept"})

    @made.api_route("/page/static/{name}", methods=["GET", "HEAD"])
    async def part(name: str, request: Request) -> Response:
        file = all_files.get(name)
        if file is None:
            raise NotFoundError(f"the page has no file {name!r}")
        return _sent(file, request)

    return made


def _sent(file: PageFile, request: Request, also_varies: str = "") -> Response:
    """The file, or word that the browser has it already (RFC 9110, 13.1.2)."""
    zipped = "gzip" in request.headers.get("accept-encoding", "")
    etag = f'"{file.digest}{"-gzip" if zipped else ""}"'
    headers = {**_HEADERS, "ETag": etag, "Vary": "Accept-Encoding" + also_varies}
    known = request.headers.get("if-none-match", "")
    if etag in (tag.strip().removeprefix("W/") for tag in known.split(",")):
        return Response(status_code=304, headers=headers)
    if zipped:
        headers["Content-Encoding"] = "gzip"
    content = file.compressed if zipped else file.content
    return Response(content, media_type=file.type, headers=headers)
