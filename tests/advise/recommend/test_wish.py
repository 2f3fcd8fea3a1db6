"""Wishes: what is read of them, what is refused and with which suggestion."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pocketlm.advise.recommend.wish import Wish, ram_for, terms, usable, with_ram
from pocketlm.errors import NotFoundError, RequestError

from .devices import GIB, LAPTOP, PHONE, VM, device


def test_what_is_not_given_is_the_use_s() -> None:
    found = terms(Wish(use="coding", device=VM, offline=False))
    assert (found.context, found.min_speed) == (8192, 10.0)
    found = terms(Wish(use="CODING", device=VM, context="4k", min_speed=3, offline=False))
    assert (found.context, found.min_speed) == (4096, 3.0)
    assert found.licences is None
    assert found.language is None


def test_licences_are_names_or_groups() -> None:
    found = terms(Wish(device=VM, license="permissive, Gemma")).licences
    assert found is not None
    assert {"mit", "apache-2.0", "gemma"} <= found
    assert terms(Wish(device=VM, license="any")).licences is None


@pytest.mark.parametrize("text", ["es", "ES", "Spanish", "es-MX", "es_AR", " spanish "])
def test_a_language_is_a_code_or_a_name(text: str) -> None:
    assert terms(Wish(device=VM, lang=text)).language == "es"


@pytest.mark.parametrize(
    ("wrong", "kind", "message"),
    [
        ({"device": replace(VM, rates=None)}, RequestError, "how fast vm-2-cores reads"),
        ({"use": "code"}, NotFoundError, r"no use 'code'\. Did you mean 'coding'\?"),
        ({"use": ""}, NotFoundError, "There are chat-mobile, education-tablet"),
        ({"device": "raspberry"}, NotFoundError, "Did you mean 'raspberry-pi"),
        ({"license": "apache2"}, NotFoundError, r"no licence 'apache2'\. Did you mean 'apache"),
        ({"license": "mit,,"}, NotFoundError, "no licence ''"),
        ({"lang": "spansh"}, NotFoundError, "Did you mean 'spanish'"),
        ({"lang": "xx"}, NotFoundError, "no language 'xx'"),
        ({"ram": "4"}, RequestError, "the RAM is '4', expected an amount of at least 64 MiB"),
        ({"ram": "lots"}, RequestError, "expected an amount"),
        ({"ram": -1}, RequestError, "expected an amount"),
        ({"context": "8q"}, RequestError, "expected a number of tokens such as 8192 or 8k"),
        ({"context": 0}, RequestError, "expected a number of tokens"),
        ({"context": True}, RequestError, "expected a number of tokens"),
        ({"min_speed": 0.0}, RequestError, "expected tokens a second above 0"),
        ({"min_speed": float("nan")}, RequestError, "expected tokens a second above 0"),
        ({"min_speed": -3.0}, RequestError, "expected tokens a second above 0"),
    ],
)
def test_refusals(wrong: dict[str, Any], kind: type[RequestError], message: str) -> None:
    with pytest.raises(kind, match=message):
        terms(Wish(**({"device": VM} | wrong)))


def test_ram_that_is_named_keeps_what_the_system_takes() -> None:
    found = terms(Wish(device=LAPTOP, ram="8GB")).device
    assert (found.ram, found.ram_free) == (8 * GIB, 4 * GIB)
    assert found.ram - found.ram_free == LAPTOP.ram - LAPTOP.ram_free
    busy = device(ram=32 * GIB, taken=30 * GIB)
    assert with_ram(busy, 4 * GIB).ram_free == 2 * GIB


def test_the_quota_of_a_container_is_its_ram() -> None:
    inside = replace(VM, memory_quota=2 * GIB, ram_free=1 * GIB)
    assert with_ram(inside, 8 * GIB).ram_free == 7 * GIB
    assert "2.0 GiB less 1.0 GiB" in terms(Wish(device=inside)).room


devices = st.sampled_from([PHONE, VM, LAPTOP, device(ram=32 * GIB, taken=30 * GIB)])


@given(devices, st.integers(1, 1 << 40))
def test_the_ram_for_an_amount_is_the_least(where: Any, needed: int) -> None:
    least = ram_for(where, needed)
    assert usable(with_ram(where, least)) >= needed
    assert usable(with_ram(where, least - 1)) < needed


@given(devices, st.integers(1 << 26, 1 << 40), st.integers(0, 1 << 40))
def test_more_ram_is_never_less_usable(where: Any, ram: int, more: int) -> None:
    assert usable(with_ram(where, ram)) <= usable(with_ram(where, ram + more))
