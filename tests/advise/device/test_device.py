"""A device's record: there and back as JSON, and nothing that its bounds do not allow."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pocketlm.advise.device.device import (
    Accelerator,
    CoreKind,
    Device,
    Rates,
    Throughput,
    from_json,
    to_json,
)
from pocketlm.errors import RequestError

RATES = Rates(
    3.5e10,
    4e11,
    9e10,
    2,
    datetime(2026, 11, 23, tzinfo=UTC),
    "measured",
    Throughput(2e10, 2e11, 5e10),
    3e10,
)
DEVICE = Device(
    name="this",
    cpu="Some CPU",
    cores=2,
    isa="avx2",
    caches={"L1d": 32768, "L2": 1 << 20},
    ram=8 << 30,
    ram_free=4 << 30,
    memory_limit="the cgroup's limit",
    disk_free=None,
    accelerators=(Accelerator("gpu", "NVIDIA", "Orin", None, "nvgpu"),),
    rates=RATES,
    source="read from this machine",
    memory_quota=6 << 30,
    core_kinds=(CoreKind(1, "performance", 1024), CoreKind(1, "efficiency", 400, 1.8e9)),
)


@pytest.mark.parametrize("rates", [RATES, None])
def test_a_device_survives_json(rates: Rates | None) -> None:
    device = replace(DEVICE, rates=rates)
    assert from_json(to_json(device), "there") == device


@pytest.mark.parametrize(
    ("at", "value", "field"),
    [
        (("ram",), 0, "ram"),
        (("ram",), 1 << 60, "ram"),
        (("ram",), "8 GB", "ram"),
        (("ram",), True, "ram"),
        (("cores",), 0, "cores"),
        (("cores",), 2.5, "cores"),
        (("name",), "x" * 1000, "name"),
        (("cpu",), "\x1b[2J", "cpu"),
        (("caches",), {str(i): 1 for i in range(99)}, "caches"),
        (("caches", "L2"), -1, "caches.L2"),
        (("accelerators",), [{"kind": "tpu", "vendor": "", "name": ""}], "accelerators.0.kind"),
        (("rates", "int8"), 0, "rates.int8"),
        (("rates", "int8"), 1e300, "rates.int8"),
        (("rates", "measured"), "yesterday", "rates.measured"),
        (("rates", "one_thread", "f32"), None, "rates.one_thread.f32"),
        (("surprise",), 1, "surprise"),
    ],
)
def test_what_no_device_has_is_named(at: tuple[str, ...], value: Any, field: str) -> None:
    document = json.loads(to_json(DEVICE))
    inner = document
    for name in at[:-1]:
        inner = inner[name]
    inner[at[-1]] = value
    with pytest.raises(RequestError, match=rf"d\.json describes no device: {field}: "):
        from_json(json.dumps(document), "d.json")


def test_what_is_missing_is_named() -> None:
    document = json.loads(to_json(DEVICE))
    del document["isa"]
    with pytest.raises(RequestError, match="isa: Field required"):
        from_json(json.dumps(document), "d.json")


@pytest.mark.parametrize(
    "text",
    ["", "null", "[]", "{", '"' + "x" * 99, "[" * 100_000, '{"ram": NaN}', "\0", b"\xff\xfe"],
    ids=["nothing", "null", "list", "open", "half", "deep", "nan", "nul", "utf-16"],
)
def test_what_is_no_device_is_refused(text: str | bytes) -> None:
    with pytest.raises(RequestError, match="describes no device"):
        from_json(text, "d.json")


_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner),
    max_leaves=8,
)


@given(name=st.sampled_from(sorted(json.loads(to_json(DEVICE)))), value=_JSON)
@settings(max_examples=200, deadline=None)
def test_any_value_is_a_device_or_a_clear_error(name: str, value: Any) -> None:
    document = json.loads(to_json(DEVICE)) | {name: value}
    try:
        device = from_json(json.dumps(document), "d.json")
    except RequestError as refused:
        message = refused.message
    else:
        assert from_json(to_json(device), "again") == device
        return
    assert f"d.json describes no device: {name}" in message


def test_infinity_is_no_rate() -> None:
    text = to_json(DEVICE).replace("35000000000.0", "Infinity")
    with pytest.raises(RequestError, match="read_bandwidth"):
        from_json(text, "d.json")
