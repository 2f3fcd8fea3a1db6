"""A running server, as the verbs that talk to it reach it."""

from __future__ import annotations

import os
from typing import Annotated, Any

import typer

from pocketlm.errors import PocketLMError, RequestError, SourceError

Url = Annotated[
    str | None,
    typer.Option("--url", help="The server; default: POCKETLM_HOST, or this machine's."),
]
_WAIT_S = 600.0  # for a model to load, or its answers to end


def ask(method: str, path: str, url: str | None, body: dict[str, Any] | None = None) -> Any:
    """What the server says to a request, as JSON.

    The key is taken from POCKETLM_API_KEY. Raises SourceError where there is no server, and what
    it refuses with its own words.
    """
    import httpx

    base = _base(url)
    key = os.environ.get("POCKETLM_API_KEY")
    headers = {"Authorization": f"Bearer {key}"} if key else {}
    try:
        answer = httpx.request(
            method, base + path, json=body, headers=headers, timeout=_WAIT_S, trust_env=False
        )
    except (httpx.InvalidURL, httpx.UnsupportedProtocol) as error:
        raise RequestError(f"'{base}' is not the URL of a server: {error}") from error
    except httpx.HTTPError as error:
        raise SourceError(
            f"there is no server at {base}: {error}", hint="'pocketlm serve' starts one."
        ) from error
    return _content(base, answer)


def _base(url: str | None) -> str:
    from pocketlm.serve.config import DEFAULT_PORT

    given = url or os.environ.get("POCKETLM_HOST") or f"127.0.0.1:{DEFAULT_PORT}"
    return (given if "://" in given else f"http://{given}").rstrip("/")


def _content(base: str, answer: Any) -> Any:
    try:
        content = answer.json()
    except ValueError as error:
        raise SourceError(f"what answers at {base} is not PocketLM") from error
    if answer.is_success:
        return content
    try:
        said = content["error"]["message"]
    except (KeyError, TypeError):
        said = str(content)
    raise (RequestError if answer.status_code < 500 else PocketLMError)(f"{base} says: {said}")
