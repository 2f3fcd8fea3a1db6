"""Where a server may be sent by those who ask it to pull.

Who may ask a server for a pull must not be able to have it knock at the doors of the network it
stands in. So a pull starts at a few hosts only; it goes on, as sources send it to where the bytes
lie, over https and to public addresses only; and the address that was checked is the one that is
connected to, so that a name cannot change its mind in between. Hosts that the server's owner lists
may be private and plain http.
"""

from __future__ import annotations

import ipaddress
import os
import socket
import urllib.request
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from pocketlm.errors import RequestError, SourceError

if TYPE_CHECKING:
    import ssl

    import httpx

# Where the built-in sources begin; "pypi" is what pip is configured for, see ``_from_environment``.
SOURCES = frozenset({"huggingface.co", "registry.ollama.ai", "pypi.org", "files.pythonhosted.org"})
_ALIASES = {"hf.co": "huggingface.co"}
_NAT64 = ipaddress.ip_network("64:ff9b::/96")

Address = ipaddress.IPv4Address | ipaddress.IPv6Address


@dataclass(frozen=True)
class Egress:
    """Attributes:
    hosts: where a pull may begin, as "name" or "name:port".
    listed: those of them that the server's owner named, which may have private addresses.
    """

    hosts: frozenset[str]
    listed: frozenset[str]

    @classmethod
    def of(cls, registries: Iterable[str]) -> Egress:
        """``registries``: hosts to allow instead of the built-in sources'; none for those.

        Raises RequestError for what is no host.
        """
        given = frozenset(_host(text) for text in registries)
        configured = _from_environment()
        if given:
            return cls(given, given)
        return cls(SOURCES | configured, configured)

    def check(self, url: httpx.URL, *, first: bool) -> None:
        """Raises SourceError where ``url`` may not be asked; ``first``: not by a redirect."""
        host = _ALIASES.get(url.host, url.host)
        if first and not self._among(host, url.port, self.hosts):
            raise SourceError(
                f"this server does not pull from {url.host}",
                hint=f"Its owner can allow it with --registry {url.host}.",
            )
        if url.scheme != "https" and not self._among(host, url.port, self.listed):
            raise SourceError(f"this server does not use plain http ({url.host})")

    def address(self, host: str, port: int) -> str:
        """The address to connect to; raises SourceError where one of the host's is not public."""
        private = self._among(host, port, self.listed)
        try:
            found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
        except (OSError, UnicodeError) as error:
            raise SourceError(f"{host} could not be found: {error}") from error
        for *_, there in found:
            if not private and not is_public(str(there[0])):
                raise SourceError(
                    f"{host} is at {there[0]}, which is not a public address: not asked",
                    hint=f"The server's owner can allow it with --registry {host}.",
                )
        return str(found[0][4][0])

    def _among(self, host: str, port: int | None, hosts: frozenset[str]) -> bool:
        return host in hosts or f"{host}:{port}" in hosts

    def transport(self, verify: ssl.SSLContext | bool) -> httpx.BaseTransport | None:
        """Connects to checked addresses; None where a proxy finds the addresses."""
        if {"http", "https", "all"} & set(urllib.request.getproxies()):
            return None
        return _pinned(self, verify)


def is_public(text: str) -> bool:
    """Whether an address is of the public internet, seen through what may wrap one."""
    address: Address = ipaddress.ip_address(text.partition("%")[0])
    if isinstance(address, ipaddress.IPv6Address):
        inner = address.ipv4_mapped or address.sixtofour
        if inner is None and address in _NAT64:
            inner = ipaddress.IPv4Address(int(address) & 0xFFFFFFFF)
        if inner is None and address.teredo is not None:
            return False
        address = inner or address
    return address.is_global and not address.is_multicast


def _host(text: str) -> str:
    """``name`` or ``name:port``, from that or a URL. Raises RequestError."""
    parts = urlsplit(text if "://" in text else f"//{text}")
    try:
        port = parts.port
    except ValueError:
        port = -1
    if not parts.hostname or port == -1 or "*" in text or "@" in parts.netloc:
        raise RequestError(f"'{text}' is no host to pull from, expected one such as example.org")
    return parts.hostname if port is None else f"{parts.hostname}:{port}"


def _from_environment() -> frozenset[str]:
    """Hosts that the server's owner has put in the places of the built-in sources."""
    from pocketlm.store.sources.pip_settings import read_pip_settings

    given = [os.environ.get(name, "") for name in ("HF_ENDPOINT", "POCKETLM_OLLAMA_REGISTRY")]
    with suppress(RequestError):  # it is said by the pull that needs it
        given += read_pip_settings().indexes
    parts = [urlsplit(text) for text in given if text]
    return frozenset(part.hostname for part in parts if part.hostname) - SOURCES


def _pinned(egress: Egress, verify: ssl.SSLContext | bool) -> httpx.BaseTransport:
    import httpx

    class Pinned(httpx.BaseTransport):
        """Connects to the address that was checked; HTTP and TLS still say and want the name."""

        def __init__(self) -> None:
            # One for each name: a connection that TLS has checked for one is not used for another.
            self._by_name: dict[str, httpx.HTTPTransport] = {}

        def handle_request(self, request: httpx.Request) -> httpx.Response:
            url = request.url
            port = url.port or (443 if url.scheme == "https" else 80)
            there = httpx.Request(
                request.method,
                url.copy_with(host=egress.address(url.host, port)),
                headers=request.headers,
                stream=request.stream,
                extensions={**request.extensions, "sni_hostname": url.host},
            )
            inner = self._by_name.get(url.host)
            if inner is None:
                inner = self._by_name.setdefault(url.host, httpx.HTTPTransport(verify=verify))
            return inner.handle_request(there)

        def close(self) -> None:
            for inner in self._by_name.values():
                inner.close()

    return Pinned()
