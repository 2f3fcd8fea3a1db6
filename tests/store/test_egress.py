"""Where a server may be sent to pull: not into its own network, whatever name or redirect leads."""

from __future__ import annotations

import socket

import httpx
import pytest

from pocketlm.errors import RequestError, SourceError
from pocketlm.store import egress as module
from pocketlm.store.egress import Egress, is_public


@pytest.mark.parametrize(
    "address",
    [
        "127.0.0.1", "10.0.0.1", "172.16.0.1", "192.168.1.1", "169.254.169.254", "100.100.100.200",
        "0.0.0.0", "224.0.0.1", "::1", "::", "fe80::1%eth0", "fd00:ec2::254", "::ffff:127.0.0.1",
        "64:ff9b::a9fe:a9fe", "2002:7f00:1::", "ff02::1",
    ],
)  # fmt: skip
def test_what_is_not_public(address: str) -> None:
    assert not is_public(address)


def test_public() -> None:
    assert is_public("1.1.1.1")
    assert is_public("2606:4700::1111")


@pytest.fixture
def policy(monkeypatch: pytest.MonkeyPatch) -> Egress:
    monkeypatch.setattr(module, "_from_environment", frozenset)
    return Egress.of(())


def test_a_pull_begins_at_known_hosts_over_https(policy: Egress) -> None:
    policy.check(httpx.URL("https://huggingface.co/a"), first=True)
    policy.check(httpx.URL("https://cdn.example/a"), first=False)
    for url, first in (
        ("https://evil.example/a", True),
        ("https://huggingface.co.evil.example/a", True),
        ("http://huggingface.co/a", True),
        ("http://169.254.169.254/latest/meta-data", False),
    ):
        with pytest.raises(SourceError):
            policy.check(httpx.URL(url), first=first)


def test_a_name_that_leads_inside_is_refused(
    policy: Egress, monkeypatch: pytest.MonkeyPatch
) -> None:
    def found(host: str, port: int, **options: object) -> list[object]:
        addresses = {"huggingface.co": ["1.1.1.1"], "evil.example": ["1.1.1.1", "10.0.0.1"]}
        return [(0, 0, 0, "", (one, port)) for one in addresses[host]]

    monkeypatch.setattr(socket, "getaddrinfo", found)
    assert policy.address("huggingface.co", 443) == "1.1.1.1"
    with pytest.raises(SourceError, match="not a public address"):
        policy.address("evil.example", 443)


def test_listed_hosts_may_be_private_and_plain() -> None:
    policy = Egress.of(["127.0.0.1:5000"])
    policy.check(httpx.URL("http://127.0.0.1:5000/v2"), first=True)
    assert policy.address("127.0.0.1", 5000) == "127.0.0.1"
    for url in ("http://127.0.0.1:5001/v2", "https://huggingface.co/a"):
        with pytest.raises(SourceError):
            policy.check(httpx.URL(url), first=True)
    for bad in ("*", "*.example", "", "u@h", "h:99999"):
        with pytest.raises(RequestError):
            Egress.of([bad])
