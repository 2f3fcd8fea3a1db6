"""The Ollama API below ``/api``: what unmodified clients of Ollama ask for.

| module     | routes                                                                     |
|------------|----------------------------------------------------------------------------|
| answering  | generate, chat: one answer, in NDJSON lines or whole                       |
| vectors    | embed, embeddings                                                          |
| library    | tags, show, ps, copy, delete, version                                      |
| transfers  | pull, push, create: long work with lines of progress                       |
| uploads    | blobs                                                                      |

``bodies`` has the requests, ``options`` and ``durations`` read their finer points, ``names`` finds
the model that a client means, ``route`` gives errors Ollama's words. What is different on purpose
stands in docs/reference/http.md.
"""

from __future__ import annotations

from fastapi import APIRouter

from pocketlm.serve.ollama import answering, library, transfers, uploads, vectors
from pocketlm.serve.ollama.route import OllamaRoute
from pocketlm.serve.services import Services


def router(services: Services) -> APIRouter:
    """All routes below ``/api``."""
    made = APIRouter(prefix="/api", tags=["ollama"], route_class=OllamaRoute)
    for part in (answering, vectors, library, transfers, uploads):
        part.add_routes(made, services)
    return made
