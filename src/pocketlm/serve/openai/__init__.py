"""The OpenAI API over loaded models, and the routes of vLLM that its clients use beside it.

A route is a file. ``bodies`` and ``*_request`` say what may be asked and turn it into a
``Generation``; ``answering``, ``chunks`` and ``logprobs`` turn what comes back into OpenAI's
shapes. Bodies are checked by pydantic; answers are written as plain JSON, since that is done for
every token.
"""

from __future__ import annotations

from fastapi import APIRouter

from pocketlm.serve.openai import chat, completions, embeddings, models, responses, tokens, version
from pocketlm.serve.services import Services


def router(services: Services) -> APIRouter:
    """All routes."""
    routes = APIRouter()
    for part in (chat, completions, responses, embeddings, models, tokens):
        routes.include_router(part.router(services))
    routes.include_router(version.router())
    return routes
