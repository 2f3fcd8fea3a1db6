"""Answers in shapes that nobody expects never end a search with anything but our own errors."""

from __future__ import annotations

import copy
import json
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pocketlm.cli.search import _record, _row
from pocketlm.errors import SourceError
from pocketlm.search import AtLeast, Found, Query, search
from pocketlm.search.azure_records import read_entity, read_summary
from pocketlm.search.filters import fits, order
from pocketlm.search.hub_records import read_record
from pocketlm.search.known import Known
from search.fake_hub import FakeHub, record
from search.test_azure import entity, summary
from search.test_hub import CARD, EVAL
from store.local_server import LocalServer

KNOWN = Known.now()
HUB = record(
    "acme/tiny-1B",
    **CARD,
    **EVAL,
    safetensors={"parameters": {"BF16": 5}, "total": 5},
    gguf={"total": 5, "architecture": "llama", "context_length": 2048},
)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3)
    ),
    max_leaves=8,
)


def places(value: Any, at: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """The path of every value inside."""
    inner = value.items() if isinstance(value, dict) else enumerate(value)
    found = []
    for key, one in inner:
        found.append((*at, key))
        if isinstance(one, dict | list):
            found += places(one, (*at, key))
    return found


@st.composite
def mutated(draw: st.DrawFn, base: dict[str, Any]) -> Any:
    """``base`` with up to four of its values replaced by anything, or removed."""
    value = copy.deepcopy(base)
    for _ in range(draw(st.integers(1, 4))):
        paths = places(value)
        if not paths:
            break
        *way, last = draw(st.sampled_from(paths))
        inner = value
        for key in way:
            inner = inner[key]
        if isinstance(inner, dict) and draw(st.booleans()):
            del inner[last]
        else:
            inner[last] = draw(JSON)
    return value


def use(found: Found | None) -> None:
    """Everything that is done with what was read."""
    if found is None:
        return
    query = Query(text="a", benchmarks=(AtLeast("MMLU-Pro", 1),), min_likes=1, sort="modified")
    fits(found, query)
    order(query)(found)
    order(Query())(found)
    assert all(isinstance(cell, str) for cell in _row(found, query))
    json.dumps(_record(found))


@settings(max_examples=300, deadline=None)
@given(mutated(HUB) | JSON)
def test_records_of_the_hub(value: Any) -> None:
    use(read_record(value, KNOWN))


@settings(max_examples=300, deadline=None)
@given(mutated(summary("Phi-4-mini-instruct")) | JSON)
def test_summaries_of_azure(value: Any) -> None:
    use(read_summary(value, KNOWN))


@settings(max_examples=300, deadline=None)
@given(mutated(entity("Phi-4-mini-instruct-generic-cpu")) | JSON)
def test_entities_of_azure(value: Any) -> None:
    use(read_entity(value, KNOWN))


@settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(value=JSON)
def test_whole_answers_of_the_hub(value: Any, server: LocalServer) -> None:
    hub = FakeHub(server, body=json.dumps([HUB, value] if value else value).encode())
    try:
        found = search(Query(refresh=True)).found
    except SourceError:
        assert not isinstance(value, list)
    else:
        assert all(one.id for one in found)
    assert hub.asked


def test_one_record_that_is_none_takes_nothing_from_the_others(hub: FakeHub) -> None:
    hub.records = [record("acme/a"), {"id": 7}, None, record("../etc"), record("acme/b")]
    results = search(Query())
    assert [found.id for found in results.found] == ["acme/a", "acme/b"]
    assert "3 records of the hub were not understood" in results.notes


@pytest.mark.parametrize("body", [b"{}", b'"text"', b"null", b"3"])
def test_no_list_of_models_is_said(body: bytes, hub: FakeHub) -> None:
    hub.body = body
    with pytest.raises(SourceError, match="answered with no list"):
        search(Query())


def test_endless_files_of_a_record_are_bounded(hub: FakeHub) -> None:
    siblings = [{"rfilename": f"{i}.bin"} for i in range(10_000)]
    hub.records = [record("acme/a", siblings=siblings, tags=["x" * 10_000])]
    (found,) = search(Query()).found
    assert len(found.files) == 4096
    assert len(found.tags[0]) == 300
