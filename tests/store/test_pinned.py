"""Pulls of a server connect to the address that was checked, and TLS to the name that was asked."""

from __future__ import annotations

import socket
import ssl
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import httpx
import pytest
import trustme

from pocketlm.errors import SourceError
from pocketlm.store.egress import Egress
from pocketlm.store.web import Web

Resolve = Callable[[dict[str, list[str]]], list[str]]


class _Server(HTTPServer):
    """Answers with the Host header that it got; ``target`` is where /away redirects to."""

    target = ""

    def __init__(self, context: ssl.SSLContext | None = None) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        if context is not None:
            self.socket = context.wrap_socket(self.socket, server_side=True)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A handshake that the client gives up is no news."""


class _Handler(BaseHTTPRequestHandler):
    server: _Server

    def do_GET(self) -> None:
        away = self.path == "/away"
        self.send_response(302 if away else 200)
        if away:
            self.send_header("Location", self.server.target)
        self.end_headers()
        if not away:
            self.wfile.write(self.headers["Host"].encode())

    def log_message(self, *_: object) -> None: ...


def _serving(server: _Server) -> Iterator[_Server]:
    thread = threading.Thread(target=server.serve_forever, args=(0.02,))
    thread.start()
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture
def plain() -> Iterator[_Server]:
    yield from _serving(_Server())


@pytest.fixture
def authority() -> trustme.CA:
    return trustme.CA()


@pytest.fixture
def secure(authority: trustme.CA) -> Iterator[_Server]:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("models.example").configure_cert(context)
    yield from _serving(_Server(context))


@pytest.fixture
def resolve(monkeypatch: pytest.MonkeyPatch) -> Resolve:
    """Gives names these addresses, one after the other; returns the names that were asked."""

    def use(addresses: dict[str, list[str]]) -> list[str]:
        asked: list[str] = []

        def getaddrinfo(host: str, port: int, *rest: Any, **options: Any) -> list[Any]:
            if host not in addresses:  # an address: nothing to find
                return real(host, port, *rest, **options)
            asked.append(host)
            left = addresses[host]
            address = left.pop(0) if len(left) > 1 else left[0]
            return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, port))]

        real = socket.getaddrinfo
        monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)
        return asked

    return use


def test_the_name_goes_along_to_the_address(plain: _Server, resolve: Resolve) -> None:
    resolve({"models.example": ["127.0.0.1"]})
    there = f"models.example:{plain.server_port}"
    with Web(egress=Egress.of([there])) as web:
        _, body = web.get(f"http://{there}/")
    assert body.decode() == there


@pytest.mark.parametrize(
    "target",
    [
        "https://169.254.169.254/latest/meta-data/",
        "https://127.0.0.1/",
        "https://[::1]/",
        "https://[::ffff:127.0.0.1]/",
        "https://10.1.2.3/",
        "https://internal.example/",
        "http://93.184.216.34/",
        "http://169.254.169.254/",
    ],
)
def test_a_redirect_cannot_lead_into_the_network(
    plain: _Server, resolve: Resolve, target: str
) -> None:
    resolve({"models.example": ["127.0.0.1"], "internal.example": ["192.168.1.1"]})
    plain.target = target
    there = f"models.example:{plain.server_port}"
    with (
        Web(egress=Egress.of([there])) as web,
        pytest.raises(SourceError, match=r"not a public address|plain http"),
    ):
        web.get(f"http://{there}/away")


def test_a_name_that_changes_its_address_is_asked_once(
    resolve: Resolve, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = resolve({"huggingface.co": ["93.184.216.34", "127.0.0.1"]})
    went: list[str] = []

    def connect(_: object, request: httpx.Request) -> httpx.Response:
        went.append(f"{request.url.host} as {request.headers['Host']}")
        return httpx.Response(200, content=b"ok")

    monkeypatch.setattr(httpx.HTTPTransport, "handle_request", connect)
    with Web(egress=Egress.of(())) as web:
        assert web.get("https://huggingface.co/x")[1] == b"ok"
        assert (asked, went) == (["huggingface.co"], ["93.184.216.34 as huggingface.co"])
        with pytest.raises(SourceError, match="not a public address"):
            web.get("https://huggingface.co/y")


@pytest.mark.parametrize("name", ["models.example", "other.example"])
def test_the_certificate_must_be_the_names(
    secure: _Server, authority: trustme.CA, resolve: Resolve, tmp_path: Path, name: str
) -> None:
    resolve({name: ["127.0.0.1"]})
    authority.cert_pem.write_to_path(str(tmp_path / "ca.pem"))
    there = f"{name}:{secure.server_port}"
    with Web(egress=Egress.of([there]), certificates=str(tmp_path / "ca.pem")) as web:
        if name == "models.example":
            assert web.get(f"https://{there}/")[1].decode() == there
            return
        with pytest.raises(SourceError, match="certificate"):
            web.get(f"https://{there}/")
