"""Amounts as people write them."""

from __future__ import annotations

import pytest

from pocketlm.errors import RequestError
from pocketlm.units import parse_bytes, parse_tokens


@pytest.mark.parametrize(
    ("text", "amount", "as_ram"),
    [
        ("4GB", 4 * 10**9, 4 << 30),
        ("4 gb", 4 * 10**9, 4 << 30),
        ("4g", 4 * 10**9, 4 << 30),
        ("4GiB", 4 << 30, 4 << 30),
        ("4gi", 4 << 30, 4 << 30),
        (" 512m ", 512 * 10**6, 512 << 20),
        (".5TiB", 1 << 39, 1 << 39),
        ("1.5kB", 1500, 1536),
        ("4,294,967,296", 1 << 32, 1 << 32),
        ("7b", 7, 7),
    ],
)
def test_bytes(text: str, amount: int, as_ram: int) -> None:
    assert parse_bytes(text, "--memory") == amount
    assert parse_bytes(text, "--ram", ram=True) == as_ram


@pytest.mark.parametrize(
    ("text", "count"),
    [("8k", 8192), ("8K", 8192), ("8192", 8192), ("8,192", 8192), ("1m", 1 << 20), ("1.5k", 1536)],
)
def test_tokens(text: str, count: int) -> None:
    assert parse_tokens(text, "--context") == count


@pytest.mark.parametrize(
    "text", ["", "GB", "4XB", "-4GB", "4 G B", "1e9", "nan", "inf", "0", "٤GB", "9" * 400, "4GBB"]
)
def test_what_is_no_amount_is_refused_with_what_is_wanted(text: str) -> None:
    with pytest.raises(RequestError, match=r"--ram is '.*', expected an amount such as 6GiB"):
        parse_bytes(text, "--ram")
    with pytest.raises(RequestError, match=r"expected a number of tokens such as 8192 or 8k"):
        parse_tokens(text, "--context")


def test_the_least_amount_is_said() -> None:
    with pytest.raises(RequestError, match="at least 64 MiB"):
        parse_bytes("4", "--ram", least=64 << 20)


@pytest.mark.parametrize("text", ["0.5", "2g", "1.0001k"])
def test_tokens_are_whole(text: str) -> None:
    with pytest.raises(RequestError, match="tokens"):
        parse_tokens(text, "--context")
