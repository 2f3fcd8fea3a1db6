"""One request to an endpoint: time limits, no redirects, and its failures in our words.

What a server says of an error is repeated, short and without our secrets. Bodies come unencoded, so
what is read is as large as what was sent.
"""

from __future__ import annotations

import email.utils
import json
import math
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from pocketlm.backends.remote.credentials import Credential
from pocketlm.errors import (
    BusyError,
    ContextError,
    NotFoundError,
    PocketLMError,
    RequestError,
    SourceError,
)
from pocketlm.settings import Settings
from pocketlm.store.remote_refs import RemoteRef

if TYPE_CHECKING:
    import httpx

CONNECT_S = 15.0
READ_S = 180.0  # the longest silence: models that think send nothing while they do
MAX_DOCUMENT = 8 << 20
_MAX_ERROR = 64 << 10
_SHOWN = 400  # characters of a server's message


class RefusedError(RequestError):
    """A request that the endpoint does not take as it is.

    Args:
        parameter: the field at fault, where the endpoint says which.
    """

    def __init__(self, message: str, *, parameter: str = "", hint: str | None = None) -> None:
        super().__init__(message, hint=hint)
        self.parameter = parameter


class Connection:
    """A pool of connections to the endpoint of one ref. Threads may share it."""

    def __init__(self, ref: RemoteRef) -> None:
        self.ref = ref
        self._offline = Settings.from_environment().offline
        self._credential = Credential(ref)
        self._client: httpx.Client | None = None
        self._opening = threading.Lock()

    def close(self) -> None:
        if self._client is not None:
            self._client.close()

    @contextmanager
    def post(self, path: str, body: Mapping[str, Any]) -> Iterator[httpx.Response]:
        """The answer to a POST, its body not read yet.

        Raises SourceError where there is none, BusyError for 429, RequestError and NotFoundError
        for what the endpoint refuses.
        """
        with self._send("POST", f"{self.ref.base}/{path}", body, of_project=False) as response:
            yield response

    def get(self, url: str, *, of_project: bool = False) -> Any:
        """A JSON document. Raises as ``post``."""
        with self._send("GET", url, None, of_project=of_project) as response:
            body = _read(response, MAX_DOCUMENT)
        try:
            return json.loads(body)
        except (ValueError, RecursionError) as error:
            raise SourceError(f"{self.ref.host} answered with something that is no JSON") from error

    @contextmanager
    def _send(
        self, method: str, url: str, body: Mapping[str, Any] | None, *, of_project: bool
    ) -> Iterator[httpx.Response]:
        import httpx

        if self._offline:
            raise SourceError(
                f"{self.ref.host} was not asked: PocketLM is offline",
                hint="Unset POCKETLM_OFFLINE and HF_HUB_OFFLINE to allow the network.",
            )
        secrets = self._credential.headers(of_project=of_project)
        try:
            client = self._open()
        except (ValueError, ImportError, OSError) as error:  # proxies, certificates
            raise SourceError(
                f"the network settings are wrong: {error}", hint="Check HTTPS_PROXY and the like."
            ) from error
        try:
            request = client.build_request(method, url, json=body, headers=dict(secrets))
            response = client.send(request, stream=True)
        except (httpx.TransportError, httpx.InvalidURL, OSError) as error:
            raise self.broken(error) from error
        try:
            if not response.is_success:
                raise self._failure(response, secrets)
            yield response
        finally:
            response.close()

    def _open(self) -> httpx.Client:
        import httpx

        from pocketlm import __version__

        with self._opening:
            if self._client is None:
                self._client = httpx.Client(
                    follow_redirects=False,
                    timeout=httpx.Timeout(READ_S, connect=CONNECT_S),
                    headers={
                        "User-Agent": f"pocketlm/{__version__}",
                        "Accept-Encoding": "identity",
                    },
                )
            return self._client

    def broken(self, error: Exception) -> SourceError:
        """The error for a connection that was not made, or did not last."""
        import httpx

        if isinstance(error, httpx.ReadTimeout):
            return SourceError(f"{self.ref.host} has said nothing for {READ_S:.0f} seconds")
        return SourceError(
            f"{self.ref.host} could not be reached: {error or type(error).__name__}",
            hint="Check the name of the resource, the network and the proxy settings.",
        )

    def _failure(self, response: httpx.Response, secrets: Mapping[str, str]) -> PocketLMError:
        """The error for a status that is no success."""
        code, parameter, message, filters = _told(_read(response, _MAX_ERROR, lenient=True))
        for secret in secrets.values():
            message = message.replace(secret.removeprefix("Bearer "), "…")
        said = f": {message}" if message else ""
        host, model, status = self.ref.host, self.ref.model, response.status_code
        if status == 429 or (status == 503 and "retry-after" in response.headers):
            wait = _retry_after(response.headers)
            return BusyError(
                f"{host} allows no more requests for now ({status}){said}",
                retry_after=wait,
                hint=f"It asks to wait {math.ceil(wait)} s.",
            )
        if status in (401, 403):
            return SourceError(
                f"{host} does not let us in ({status}){said}",
                hint="The key or login is wrong, or has no right to this model.",
            )
        if status == 404:
            of_azure = self.ref.scheme == "azure"
            return NotFoundError(
                f"{host} has no model '{model}' ({status}){said}",
                hint="An azure: ref names the deployment, not the model." if of_azure else None,
            )
        if status in (400, 422) and (code == "content_filter" or filters):
            why = f" for {', '.join(filters)}" if filters else ""
            return RefusedError(f"the content filter of {host} refused the prompt{why}")
        if status in (400, 422) and code == "context_length_exceeded":
            return ContextError(f"the prompt is too long for {model} at {host}{said}")
        if status in (400, 413, 422):
            return RefusedError(f"{host} refused the request ({status}){said}", parameter=parameter)
        return SourceError(f"{host} answered {status}{said}")


def _read(response: httpx.Response, limit: int, *, lenient: bool = False) -> bytes:
    """A body of at most ``limit`` bytes; lenient: what of it can be had."""
    import httpx

    body = bytearray()
    try:
        for chunk in response.iter_raw():
            body += chunk
            if len(body) > limit:
                if lenient:
                    break
                raise SourceError(f"the answer of {response.url.host} exceeds {limit:,} bytes")
    except (httpx.TransportError, httpx.StreamError, OSError) as error:
        if not lenient:
            raise SourceError(f"{response.url.host} ended its answer early") from error
    return bytes(body)


def _told(body: bytes) -> tuple[str, str, str, list[str]]:
    """Code, parameter, message and content filters of an error's body; anything may be missing."""
    try:
        document = json.loads(body)
    except (ValueError, RecursionError):
        return "", "", "", []
    error = document.get("error", document) if isinstance(document, dict) else None
    if isinstance(error, str):
        return "", "", short(error), []
    if not isinstance(error, dict):
        return "", "", "", []
    inner = error.get("innererror")
    results = inner.get("content_filter_result") if isinstance(inner, dict) else None
    filters = [
        f"{short(name)} ({short(str(found['severity']))})" if "severity" in found else short(name)
        for name, found in (results.items() if isinstance(results, dict) else ())
        if isinstance(found, dict) and found.get("filtered") is True
    ]
    code, parameter, message = (str(error.get(key) or "") for key in ("code", "param", "message"))
    return code, parameter, short(message).removesuffix("."), filters[:8]


def short(text: str) -> str:
    """One line that is not too long, of what a server wrote."""
    line = " ".join(text.split())
    return line if len(line) <= _SHOWN else line[: _SHOWN - 1] + "…"


def _retry_after(headers: Mapping[str, str]) -> float:
    """Seconds, from RFC 9110's header (a number or a date) or Azure's own in milliseconds."""
    for name, scale in (("retry-after-ms", 1e-3), ("retry-after", 1.0)):
        value = headers.get(name, "").strip()
        try:
            seconds = float(value) * scale
        except ValueError:
            continue
        if math.isfinite(seconds) and seconds >= 0:
            return seconds
    try:
        when = email.utils.parsedate_to_datetime(headers.get("retry-after", ""))
        return max(0.0, when.timestamp() - time.time())
    except (ValueError, TypeError, OverflowError):
        return 1.0
