"""The page for people at ``/``: a chat, the models and what the server is doing, in a browser.

``files`` serves the page itself, which is static and needs nothing from elsewhere; ``routes`` has
the few facts that the APIs, which the page uses for all else, do not tell.
"""

from __future__ import annotations

from fastapi import APIRouter

from pocketlm.serve.page import files, routes
from pocketlm.serve.services import Services


def router(services: Services) -> APIRouter:
    """``/`` and everything below ``/page/``; no part of the APIs, so in no schema."""
    made = APIRouter(include_in_schema=False)
    made.include_router(files.router())
    made.include_router(routes.router(services))
    return made
