"""Tokens, models and the version."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import httpx
import pytest
from tests.serve.openai.clients import USER, client, post
from tests.serve.scripted import FACTS, ScriptedFleet

from pocketlm import __version__

Serve = Callable[..., str]


@pytest.mark.parametrize("prefix", ["", "/v1"])
def test_texts_become_tokens_and_back(serve: Serve, prefix: str) -> None:
    url = serve(ScriptedFleet())
    body = {"model": "tiny", "prompt": "aé", "return_token_strs": True}
    assert post(url, f"{prefix}/tokenize", body).json() == {
        "count": 3,
        "max_model_len": 4096,
        "tokens": [97, 195, 169],
        "token_strs": ["a", "�", "�"],
    }
    tokens = {"model": "tiny", "tokens": [97, 195, 169]}
    assert post(url, f"{prefix}/detokenize", tokens).json() == {"prompt": "aé"}


def test_conversations_become_tokens(serve: Serve) -> None:
    found = post(serve(ScriptedFleet()), "/tokenize", {"model": "tiny", "messages": [USER]})
    assert bytes(found.json()["tokens"]) == b"<user>Hi"


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/tokenize", {}),
        ("/tokenize", {"prompt": "a", "messages": [USER]}),
        ("/tokenize", {"messages": [USER], "add_special_tokens": True}),
        ("/detokenize", {}),
        ("/detokenize", {"tokens": [256]}),
        ("/detokenize", {"tokens": [-1]}),
    ],
)
def test_bad_requests_are_refused(serve: Serve, path: str, body: dict[str, object]) -> None:
    assert post(serve(ScriptedFleet()), path, {"model": "tiny", **body}).status_code == 400


def test_what_a_harness_reads_of_the_tokenizer(serve: Serve) -> None:
    facts = replace(FACTS, eos_text="<end>", special_texts={"<end>": 3})
    url = serve(ScriptedFleet(facts=facts), models=("tiny",))
    info = httpx.get(f"{url}/tokenizer_info").json()
    assert (info["eos_token"], info["bos_token"]) == ("<end>", None)
    assert info["chat_template"] == FACTS.template


def test_models_are_listed(serve: Serve) -> None:
    fleet = ScriptedFleet()
    fleet.loaded_names["tiny:latest"] = None
    asking = client(serve(fleet, aliases={"gpt-4o": "tiny"}))
    assert [model.id for model in asking.models.list()] == ["gpt-4o", "tiny:latest"]
    assert asking.models.retrieve("tiny").id == "tiny"
    answer = httpx.get(f"{serve(fleet)}/v1/models/org/none")
    assert (answer.status_code, answer.json()["error"]["code"]) == (404, "model_not_found")
    assert "There are: tiny:latest." in answer.text


def test_version(serve: Serve) -> None:
    assert httpx.get(f"{serve(ScriptedFleet())}/version").json() == {"version": __version__}
