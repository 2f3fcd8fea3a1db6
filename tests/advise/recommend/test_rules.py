"""The rules: each has a source, names what exists, and a faulty file is refused."""

from __future__ import annotations

import re
from importlib.resources import files

import pytest

from pocketlm import catalog
from pocketlm.advise.recommend.rules import read_rules, rules

TEXT = (files("pocketlm.advise.recommend") / "rules.toml").read_text("utf-8")


def test_every_rule_has_its_source() -> None:
    found = rules()
    assert found.room.source
    assert all(one.source for one in found.guideline.values())
    assert {"types", "kv", "exponent", "score"} <= set(found.loss.sources)
    assert {"unscored", "slow_start", "types"} <= set(found.sources)


def test_uses_name_tables_and_collections_of_the_catalog() -> None:
    tables, collections = catalog.tables(), set(catalog.collections())
    known = {(one.table, one.benchmark) for entry in catalog.entries() for one in entry.scores}
    for name, use in rules().use.items():
        assert use.table in tables, name
        assert {(use.table, benchmark) for benchmark in use.benchmarks} <= known, name
        assert {*use.collections, *use.favours} <= collections, name


def test_languages_and_licences_are_those_of_the_catalog() -> None:
    spoken = {code.partition("-")[0] for entry in catalog.entries() for code in entry.languages}
    assert spoken <= set(rules().languages)
    licences = {entry.licence.lower() for entry in catalog.entries()}
    assert {"apache-2.0", "mit"} <= licences & set(rules().licences["permissive"])
    assert not {"gemma", "llama3.2"} & set(rules().licences["permissive"])


def test_smaller_models_and_fewer_bits_lose_more() -> None:
    loss = rules().loss
    at = [loss.of("Q4_0", count) for count in (135_000_000, 1_200_000_000, 8_030_261_248)]
    assert at == sorted(at, reverse=True)
    assert at[-1] == loss.types["Q4_0"]
    considered = [loss.types[type] for type in rules().types]
    assert considered == sorted(considered)


@pytest.mark.parametrize(
    ("found", "instead", "complaint"),
    [
        ('types = ["BF16", "Q8_0"', 'types = ["BF16", "Q9_0"', "no file types"),
        ("Q2_K = 0.445\n", "", "what .*Q2_K.* lose is missing"),
        ('kv = ["f16", "q8"]', 'kv = ["f16", "q4"]', "KV cache loses is missing"),
        ('use = "desktop-assistant" }]', 'use = "dreaming" }]', "no uses .*dreaming"),
        ('types = ["Q4_0"]', 'types = ["Q4_0"]\nclasses = ["Micro"]', "about types and about"),
        ('classes = ["Micro"]', 'situation = "ample"', "situation but no types"),
        ('classes = ["Micro"]', 'classes = ["Tiny"]', "Tiny|Micro"),
        ("margin = 0.1", "margin = 1.5", "margin"),
        ("unscored = 10.0", "unscored = 10.0\ncolour = 1", "colour"),
    ],
)
def test_faulty_rules_are_refused(found: str, instead: str, complaint: str) -> None:
    assert found in TEXT
    with pytest.raises(ValueError, match=complaint):
        read_rules(TEXT.replace(found, instead, 1))


def test_a_use_without_sources_is_refused() -> None:
    text = re.sub(r"(?m)^min_speed = \"reading.*\n", "", TEXT, count=1)
    with pytest.raises(ValueError, match="gives no source of"):
        read_rules(text)
