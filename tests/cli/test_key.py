"""``pocketlm key``: a key is shown once, listed without its secret, and revoked."""

from __future__ import annotations

import json

import pytest

from pocketlm.cli.main import main
from pocketlm.serve.guard.keys import KeyFile
from pocketlm.store import Store


def test_the_life_of_a_key(capsys: pytest.CaptureFixture[str]) -> None:
    limits = ["--scope", "manage", "--scope", "infer", "--model", "qwen3:*", "--expires", "90d"]
    assert main(["key", "create", "laptop", *limits, "--rate", "60/m", "--concurrency", "4"]) == 0
    text = capsys.readouterr().out.strip()
    store = Store()
    key = KeyFile(store.home, store.shelf.locks).find(text)
    assert key is not None
    assert (key.scopes, key.models, key.concurrency) == (("infer", "manage"), ("qwen3:*",), 4)
    assert main(["key", "list"]) == 0
    listed = capsys.readouterr().out
    assert "laptop" in listed
    assert "valid" in listed
    assert text[-32:] not in listed
    assert main(["key", "revoke", "laptop"]) == 0
    capsys.readouterr()
    assert main(["key", "list", "--json"]) == 0
    (record,) = json.loads(capsys.readouterr().out)
    assert record["state"] == "revoked"
    assert "hash" not in record


def test_json_has_the_key_once(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["key", "create", "a", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["key"].startswith("plm_")


@pytest.mark.parametrize(
    "arguments",
    [
        ["create"],
        ["create", "a", "--scope", "root"],
        ["create", "a", "--rate", "fast"],
        ["create", "a", "--expires", "soon"],
        ["list", "a"],
        ["list", "--scope", "infer"],
        ["revoke"],
    ],
)
def test_wrong_usage(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["key", *arguments]) == 2
    assert "pocketlm: " in capsys.readouterr().err


def test_revoking_what_is_not_there(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["key", "revoke", "nobody"]) == 1
    assert "no live key" in capsys.readouterr().err
