"""``/api/blobs/{digest}``: bytes for ``create``, hashed while they are written."""

from __future__ import annotations

import asyncio

from fastapi import APIRouter, Request, Response

from pocketlm.errors import RequestError
from pocketlm.serve.failures import failure
from pocketlm.serve.services import Services
from pocketlm.store.digests import sha256_of
from pocketlm.store.uploads import Upload

_PIECE = 4 << 20  # bytes that are written in one go


def add_routes(routes: APIRouter, services: Services) -> None:
    """Whether a blob is here, and the way to bring one."""
    shelf = services.store.shelf

    @routes.head("/blobs/{digest}")
    async def look(digest: str, request: Request) -> Response:
        """200 where the blob is here, else 404."""
        there = shelf.blobs.size(sha256_of(digest)) is not None
        return Response() if there else failure(request.url.path, 404, f"no blob {digest}")

    @routes.post("/blobs/{digest}")
    async def bring(digest: str, request: Request) -> Response:
        """201 where the blob is new; 200 where it was here. Its bytes must be those of its name."""
        sha256 = sha256_of(digest)
        if shelf.blobs.size(sha256) is not None:
            return Response(status_code=200)
        upload = Upload(shelf, sha256)
        try:
            await asyncio.to_thread(upload.open, _length(request))
            await _receive(request, upload)
            await asyncio.to_thread(upload.finish)
        finally:
            await asyncio.to_thread(upload.close)
        return Response(status_code=201)


async def _receive(request: Request, upload: Upload) -> None:
    held = bytearray()
    async for chunk in request.stream():
        held += chunk
        if len(held) >= _PIECE:
            await asyncio.to_thread(upload.write, bytes(held))
            held.clear()
    await asyncio.to_thread(upload.write, bytes(held))


def _length(request: Request) -> int | None:
    text = request.headers.get("content-length")
    if text is None:
        return None
    if not text.isdecimal() or len(text) > 18:
        raise RequestError(f"Content-Length is {text[:40]!r}, expected a number of bytes")
    return int(text)
