"""Catalogs of users: kept, found behind what ships, and left out where they are faulty."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest

from pocketlm import catalog
from pocketlm.catalog.own import add_catalog, own_catalogs, remove_catalog
from pocketlm.errors import ModelFileError, NotFoundError, RequestError

ACME = b"""
[acme.support]
title = "Acme's support model"
ref = "hf:acme/support-1b"
licence = "proprietary"
parameters = 1_000_000_000
context = 4096
collections = ["acme"]
"""


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("POCKETLM_HOME", str(tmp_path))
    return tmp_path


def test_an_own_catalog_comes_behind_what_ships(home: Path) -> None:
    add_catalog(home, "acme", ACME, catalog.shipped())
    entry = catalog.find("acme", "support")
    assert entry is not None
    assert entry.origin == "acme"
    assert catalog.entries()[-1] == entry
    assert [str(one) for one in catalog.collections()["acme"]] == ["acme:support"]
    remove_catalog(home, "acme")
    assert catalog.find("acme", None) is None
    with pytest.raises(NotFoundError, match="acme"):
        remove_catalog(home, "acme")


def test_a_faulty_file_is_named_and_left_out(home: Path, caplog: pytest.LogCaptureFixture) -> None:
    add_catalog(home, "acme", ACME, catalog.shipped())
    (home / "catalogs" / "broken.toml").write_text("[x\n")
    with caplog.at_level(logging.WARNING):
        assert catalog.find("acme", "support") is not None
    assert "broken.toml" in caplog.text
    faults = {one.name: one.fault for one in own_catalogs(home)}
    assert faults["acme"] is None
    assert "not TOML" in (faults["broken"] or "")


def test_what_is_hidden_is_said(home: Path, caplog: pytest.LogCaptureFixture) -> None:
    add_catalog(home, "acme", ACME, catalog.shipped())
    (home / "catalogs" / "other.toml").write_bytes(
        ACME + ACME.replace(b"acme.support", b'smollm2."135m"')
    )
    with caplog.at_level(logging.WARNING):
        catalog.entries()
        catalog.entries()
    assert [record.message.split()[0] for record in caplog.records] == [
        "acme:support",
        "smollm2:135m",
    ]
    found = catalog.find("smollm2", "135m")
    assert found is not None
    assert found.origin == ""


@pytest.mark.parametrize(
    ("name", "content", "complaint"),
    [
        ("../acme", ACME, "cannot name a catalog"),
        ("acme", b"\xff", "acme is not UTF-8"),
        ("acme", b"[a.b]\nparameters = 1", "a:b of the catalog: ref"),
        ("acme", b"a = 1", "'a' of the catalog is no model"),
        ("acme", ACME.replace(b"acme.support", b'smollm2."135m"'), "ships with PocketLM"),
    ],
)
def test_what_cannot_be_kept_is_refused(
    home: Path, name: str, content: bytes, complaint: str
) -> None:
    with pytest.raises((ModelFileError, RequestError), match=complaint):
        add_catalog(home, name, content, catalog.shipped())
    assert own_catalogs(home) == []
