"""``pocketlm catalog`` and ``pocketlm show`` of models that are not here."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest

Run = Callable[..., Any]

ACME = b"""
[acme.support]
ref = "hf:acme/support-1b"
licence = "proprietary"
parameters = 2_000_000_000
context = 4096
languages = ["en", "tlh"]
"""


@pytest.fixture(autouse=True)
def _home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("POCKETLM_HOME", str(tmp_path / "home"))


@pytest.fixture
def acme(tmp_path: Path) -> Path:
    file = tmp_path / "acme.toml"
    file.write_bytes(ACME)
    return file


@pytest.fixture
def url() -> Iterator[str]:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200 if self.path == "/acme.toml" else 404)
            self.end_headers()
            self.wfile.write(ACME if self.path == "/acme.toml" else b"")

        def log_message(self, *_: object) -> None: ...

    with HTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


def test_the_catalog_is_listed(pocketlm: Run) -> None:
    head, first = pocketlm("catalog").out.splitlines()[:2]
    assert head.split()[:4] == ["NAME", "PARAMETERS", "CLASS", "CONTEXT"]
    assert first.startswith("smollm2:135m ")
    entries = pocketlm("catalog", "--json").json()
    assert {"name": "smollm2", "tag": "135m", "class": "Micro", "runs": True}.items() <= entries[
        0
    ].items()


@pytest.mark.parametrize(
    ("options", "inside", "outside"),
    [
        (("--class", "medium"), "qwen3:14b", "qwen3:8b"),
        (("--collection", "ternary"), "bitnet:2b", "qwen3:8b"),
        (("--license", "MIT"), "phi4:14b", "qwen3:8b"),
        (("--language", "sw"), "gemma3:1b", "smollm2:135m"),
        (("--runs",), "qwen3:8b", "lfm2:1.2b"),
    ],
)
def test_filters(pocketlm: Run, options: tuple[str, ...], inside: str, outside: str) -> None:
    names = [line.split()[0] for line in pocketlm("catalog", *options).out.splitlines()]
    assert inside in names
    assert outside not in names


def test_a_word_that_no_model_has_gets_suggestions(pocketlm: Run) -> None:
    said = pocketlm("catalog", "--collection", "reason")
    assert said.code == 1
    assert "reasoning" in said.err


def test_own_catalogs_come_and_go(pocketlm: Run, acme: Path) -> None:
    assert pocketlm("catalog", "add", acme).out == "Added the catalog acme: 1 models.\n"
    assert "of acme" in pocketlm("catalog", "--language", "tlh").out
    assert "Small" in pocketlm("show", "acme:support").out
    assert pocketlm("catalog", "own", "--json").json()[0]["models"] == 1
    assert pocketlm("catalog", "remove", "acme").code == 0
    assert pocketlm("catalog", "remove", "acme").code == 1
    assert "catalog add FILE" in pocketlm("catalog", "own").out


def test_a_catalog_from_the_network_needs_its_hash(pocketlm: Run, url: str) -> None:
    assert "SHA-256" in pocketlm("catalog", "add", f"{url}/acme.toml").err
    wrong = pocketlm("catalog", "add", f"{url}/acme.toml", "--sha256", "0" * 64)
    assert (wrong.code, pocketlm("catalog", "own", "--json").json()) == (1, [])
    right = hashlib.sha256(ACME).hexdigest()
    assert pocketlm("catalog", "add", f"{url}/acme.toml", "--sha256", right).code == 0
    assert "404" in pocketlm("catalog", "add", f"{url}/no.toml", "--sha256", right).err


def test_nothing_is_fetched_offline(
    pocketlm: Run, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("POCKETLM_OFFLINE", "1")
    said = pocketlm("catalog", "add", f"{url}/acme.toml", "--sha256", "0" * 64)
    assert said.code == 1
    assert "offline" in said.err


@pytest.mark.parametrize(
    "arguments",
    [
        ("list", "x"),
        ("add",),
        ("remove", "x", "--name", "y"),
        ("own", "--runs"),
        ("add", "/no/such/file.toml"),
    ],
)
def test_wrong_usage_is_said(pocketlm: Run, arguments: tuple[str, ...]) -> None:
    said = pocketlm("catalog", *arguments)
    assert said.code in (1, 2)
    assert said.err


def test_show_tells_of_a_model_that_is_not_here(pocketlm: Run) -> None:
    said = pocketlm("show", "granite4:1b").out
    assert "1,631,750,144 (Small); granite4:1b sounds like Micro" in said
    assert "fewer than 10 billion" in pocketlm("show", "gemma3:12b").out
    assert "751,632,384 as the hub lists it" in pocketlm("show", "qwen3:0.6b").out
    assert pocketlm("show", "qwen3:0.6b", "--json").json()["here"] is False
    assert pocketlm("show", "qwen3:0.6b", "--path").code == 1
    assert "qwen3:0.6b" in pocketlm("show", "qwen3:0.6").err


def test_show_tells_what_the_catalog_knows_of_a_model_that_is_here(
    pocketlm: Run, tiny_gguf: Path
) -> None:
    pocketlm("import", tiny_gguf, "qwen3:0.6b")
    pocketlm("import", tiny_gguf, "mine")
    said = pocketlm("show", "qwen3:0.6b", "--json").json()
    assert said["facts"]["parameters"] == 640
    assert said["catalog"]["parameters"] == 596_049_920
    assert pocketlm("show", "mine", "--json").json()["catalog"] is None
