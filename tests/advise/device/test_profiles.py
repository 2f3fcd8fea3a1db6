"""Profiles: every one is a device with a source for each figure, and names are found."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from pocketlm import _native
from pocketlm.advise.device import find_device, from_json, profiles, to_json
from pocketlm.advise.device.profiles import read_table, table
from pocketlm.errors import NotFoundError, RequestError

GIB = 1 << 30


@pytest.mark.parametrize("name", list(profiles()))
def test_a_profile_is_a_device(name: str) -> None:
    device = profiles()[name]
    assert from_json(to_json(device), name) == device
    assert device.rates is not None
    assert device.rates.threads == device.cores == sum(k.cores for k in device.core_kinds)
    assert 0 < device.ram_free < device.ram == int(name.rpartition("-")[2][:-2]) * GIB
    assert "derived" in device.rates.source


def test_rates_follow_from_published_facts() -> None:
    rates = profiles()["raspberry-pi-5-8gb"].rates
    assert rates is not None
    assert rates.read_bandwidth == pytest.approx(0.7 * 4 * 4.267e9)
    assert rates.int8 == pytest.approx(0.62 * 4 * 2.4e9 * 32)
    assert rates.f32 == pytest.approx(0.78 * 4 * 2.4e9 * 8)


def test_what_was_measured_takes_the_place_of_a_formula() -> None:
    rates = profiles()["raspberry-pi-4-4gb"].rates
    assert rates is not None
    assert rates.read_bandwidth == 5.56e9
    assert rates.source.startswith("read bandwidth as it was measured")


@pytest.mark.parametrize("name", list(table().device))
def test_every_figure_has_its_source(name: str) -> None:
    sources = table().device[name].sources
    assert {"cpu", "cores", "memory", "caches", "reserved"} <= set(sources)
    assert all(len(source) > 5 for source in sources.values())


FAULTY = """
[share.int8]
share = 0.5
source = "s"
[share.f32]
share = 0.5
source = "s"
[share.ddr]
share = {share}
source = "s"
[core.big]
title = "Big"
int8 = 32
f32 = 8
source = "s"
[device.some]
title = "Some"
cpu = "Some CPU"
isa = "{isa}"
cores = [{{ core = "{core}", count = 4, clock = 1e9 }}]
memory = {{ bits = 32, transfers = 1e9, share = "ddr" }}
gib = [4]
reserved = 1.0
caches = {{}}
[device.some.sources]
cpu = "s"
cores = "s"
memory = "s"
caches = "s"
{reserved} = "s"
"""
GOOD = {"share": "0.5", "isa": "neon", "core": "big", "reserved": "reserved"}


def test_a_table_is_read() -> None:
    assert list(read_table(FAULTY.format(**GOOD)).device) == ["some"]


@pytest.mark.parametrize(
    ("fault", "says"),
    [
        ({"share": "1.5"}, "share"),
        ({"isa": "mmx"}, "isa"),
        ({"core": "small"}, "small"),
        ({"reserved": "ram"}, "reserved"),
    ],
)
def test_a_faulty_table_is_refused(fault: dict[str, str], says: str) -> None:
    with pytest.raises(ValueError, match=says):
        read_table(FAULTY.format(**GOOD | fault))


def test_names() -> None:
    assert find_device("Raspberry-Pi-5-8GB") is profiles()["raspberry-pi-5-8gb"]
    assert find_device("this", probe=False).isa == _native.isa()


@pytest.mark.parametrize(
    ("name", "meant"), [("rasberry-pi5", "raspberry-pi-5-8gb"), ("macbook", "macbook-air-m1-8gb")]
)
def test_unknown_names_get_suggestions(name: str, meant: str) -> None:
    with pytest.raises(NotFoundError, match=meant):
        find_device(name)


def test_a_file_from_another_machine(tmp_path: Path) -> None:
    path = tmp_path / "there.json"
    device = profiles()["phone-mid-4gb"]
    path.write_text(to_json(device))
    assert find_device(str(path)) == device


def test_another_machine_is_not_this_one(tmp_path: Path) -> None:
    path = tmp_path / "kiosk.json"
    path.write_text(to_json(find_device("this", probe=False)))
    assert find_device(str(path)).name == "kiosk"


def test_files_that_describe_no_device(tmp_path: Path) -> None:
    with pytest.raises(NotFoundError, match="no such file"):
        find_device(str(tmp_path / "none.json"))
    with pytest.raises(RequestError, match="cannot be read"):
        find_device(f"{tmp_path}/")
    with pytest.raises(RequestError, match="cannot be read"):
        find_device("a/\0")
    path = tmp_path / "d.json"
    path.write_text(json.dumps({"name": "x"}))
    with pytest.raises(RequestError, match=rf"{path} describes no device: cpu"):
        find_device(str(path))
    path.write_bytes(b" " * (1 << 20) + b"{}")
    with pytest.raises(RequestError, match="more than"):
        find_device(str(path))
