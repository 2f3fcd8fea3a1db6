"""HTTP as the store needs it: safe redirects, errors in our words, and a switch that ends it all.

Redirects are followed by hand: a header for one host (Authorization above all) never reaches
another, and https never becomes http. Offline, nothing is sent.
"""

from __future__ import annotations

import ssl
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING

from pocketlm.errors import NotFoundError, SourceError

if TYPE_CHECKING:
    from types import TracebackType

    import httpx

    from pocketlm.store.egress import Egress

_MAX_REDIRECTS = 10
_MAX_DOCUMENT = 64 << 20
_REDIRECTS = (301, 302, 303, 307, 308)
# What may follow to another host: nothing that says who we are.
_SAFE_HEADERS = {"accept", "accept-encoding", "range", "if-range"}


class Web:
    """A pool of connections, opened at the first use. Threads may share one.

    Args:
        offline: refuse every request with a SourceError.
        certificates: a file of trusted certificates instead of the usual ones.
        proxy: for every request, instead of those that the environment names.
        egress: where it may go; None is anywhere.
        patience_s: seconds without a byte after which an answer is given up.
    """

    def __init__(
        self,
        *,
        offline: bool = False,
        certificates: str | None = None,
        proxy: str | None = None,
        egress: Egress | None = None,
        patience_s: float = 30.0,
    ) -> None:
        self.offline = offline
        self.egress = egress
        self._patience_s = patience_s
        self._opening = threading.Lock()
        self._certificates = certificates
        self._proxy = proxy
        self._client: httpx.Client | None = None

    def __enter__(self) -> Web:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._client is not None:
            self._client.close()

    def _open(self) -> httpx.Client:
        with self._opening:
            if self._client is None:
                self._client = self._new()
            return self._client

    def _new(self) -> httpx.Client:
        import httpx

        from pocketlm import __version__

        verify: ssl.SSLContext | bool = True
        if self._certificates:
            verify = ssl.create_default_context(cafile=self._certificates)
        transport = None
        if self.egress is not None and self._proxy is None:
            transport = self.egress.transport(verify)
        return httpx.Client(
            verify=verify,
            proxy=self._proxy,
            transport=transport,
            follow_redirects=False,
            timeout=httpx.Timeout(self._patience_s, connect=self._patience_s / 2),
            headers={"User-Agent": f"pocketlm/{__version__}"},
        )

    @contextmanager
    def stream(
        self,
        url: str,
        headers: Mapping[str, str],
        broken: Callable[[Exception], Exception] | None = None,
    ) -> Iterator[httpx.Response]:
        """The answer to a GET after redirects, its body not read yet.

        ``broken`` says what a failed connection is raised as; a SourceError without it.
        """
        import httpx

        self._refuse_offline(url)
        sent = dict(headers)
        for turn in range(_MAX_REDIRECTS):
            request = self._build(url, sent)
            if self.egress is not None:
                self.egress.check(request.url, first=turn == 0)
            try:
                response = self._open().send(request, stream=True)
            except (httpx.TransportError, OSError) as error:
                raise (broken or _unreachable(url))(error) from error
            try:
                target = _redirect(response)
                if target is None:
                    yield response
                    return
            finally:
                response.close()
            if (target.scheme, target.host, target.port) != _origin(response.request.url):
                sent = {k: v for k, v in sent.items() if k.lower() in _SAFE_HEADERS}
            url = str(target)
        raise SourceError(f"{url} redirects more than {_MAX_REDIRECTS} times")

    def _build(self, url: str, headers: Mapping[str, str]) -> httpx.Request:
        import httpx

        try:
            return self._open().build_request("GET", url, headers=dict(headers))
        except httpx.InvalidURL as error:
            raise SourceError(f"'{url}' is not a URL: {error}") from error

    def chunks(
        self, response: httpx.Response, broken: Callable[[Exception], Exception]
    ) -> Iterator[bytes]:
        """The body as it arrives. A connection that ends early is raised as ``broken`` says."""
        import httpx

        try:
            yield from response.iter_raw()
        except (httpx.TransportError, httpx.StreamError, OSError) as error:
            raise broken(error) from error

    def get(
        self, url: str, headers: Mapping[str, str] | None = None
    ) -> tuple[httpx.Response, bytes]:
        """A small document, whatever the status. Raises SourceError where it cannot be had."""
        with self.stream(url, headers or {}) as response:
            return response, _document(response, url)

    def post(
        self, url: str, headers: Mapping[str, str], content: bytes
    ) -> tuple[httpx.Response, bytes]:
        """The small document that answers a question; no redirect is followed.

        Raises SourceError where it cannot be had.
        """
        import httpx

        self._refuse_offline(url)
        try:
            with self._open().stream(
                "POST", url, headers=dict(headers), content=content
            ) as response:
                return response, _document(response, url)
        except (httpx.TransportError, httpx.InvalidURL, OSError) as error:
            raise _unreachable(url)(error) from error

    def send(
        self,
        method: str,
        url: str,
        headers: Mapping[str, str],
        content: bytes | Iterable[bytes] = b"",
    ) -> httpx.Response:
        """The answer to a request that changes something; no redirect is followed.

        Raises SourceError where there is none.
        """
        import httpx

        self._refuse_offline(url)
        try:
            response = self._open().request(method, url, headers=dict(headers), content=content)
        except (httpx.TransportError, httpx.DecodingError, httpx.InvalidURL, OSError) as error:
            raise _unreachable(url)(error) from error
        return response

    def _refuse_offline(self, url: str) -> None:
        if self.offline:
            raise SourceError(
                f"{url} was not asked for: PocketLM is offline",
                hint="Unset POCKETLM_OFFLINE and HF_HUB_OFFLINE to allow the network.",
            )

    def refusal(self, response: httpx.Response, name: str) -> Exception:
        """The error for a status that is not an answer: 401, 403, 404 and the rest."""
        url, status = response.request.url, response.status_code
        code = response.headers.get("X-Error-Code", "")
        if status in (404, 410):
            why = f"{status} {code}".strip()
            return NotFoundError(f"{name} does not exist at {url} ({why})")
        if code == "GatedRepo":
            return SourceError(
                f"{name} is gated: its terms must be accepted first",
                hint="Accept them on the model's page and set HF_TOKEN to a token of that account.",
            )
        if status in (401, 403):
            return SourceError(
                f"{url.host} does not allow the download of {name} ({status})",
                hint="It may want a login: HF_TOKEN for the hub, the index URL or .netrc for pypi.",
            )
        return SourceError(f"{url.host} answered {status} when asked for {name}")


def _document(response: httpx.Response, url: str) -> bytes:
    """The body of an answer, bounded. Raises SourceError where it breaks off or is too long."""
    import httpx

    body = bytearray()
    try:
        for chunk in response.iter_bytes():
            body += chunk
            if len(body) > _MAX_DOCUMENT:
                raise SourceError(f"{url} is longer than {_MAX_DOCUMENT:,} bytes")
    except (httpx.TransportError, httpx.DecodingError) as error:
        raise _unreachable(url)(error) from error
    return bytes(body)


def _origin(url: httpx.URL) -> tuple[str, str, int | None]:
    return url.scheme, url.host, url.port


def _redirect(response: httpx.Response) -> httpx.URL | None:
    """Where the answer sends us, None where it is the answer."""
    import httpx

    if response.status_code not in _REDIRECTS:
        return None
    here = response.request.url
    try:
        target = here.join(response.headers.get("Location", ""))
    except httpx.InvalidURL as error:
        raise SourceError(f"{here.host} redirects to something that is no URL") from error
    if target.scheme not in ("http", "https") or not target.host:
        raise SourceError(f"{here.host} redirects to '{target}', which is not followed")
    if here.scheme == "https" and target.scheme != "https":
        raise SourceError(f"{here.host} redirects to plain http ({target.host}): not followed")
    return target


def _unreachable(url: str) -> Callable[[Exception], Exception]:
    def error_for(error: Exception) -> Exception:
        return SourceError(
            f"{url} could not be reached: {error or type(error).__name__}",
            hint="Check the network and the proxy settings.",
        )

    return error_for
