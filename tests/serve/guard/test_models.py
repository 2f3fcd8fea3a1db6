"""Models that a key may use, and what one request may ask of one."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from tests.serve.guard.conftest import MESSAGE, Site
from tests.serve.scripted import Script

from pocketlm.errors import RequestError
from pocketlm.serve.generation import ChatPrompt, Constraint
from pocketlm.serve.guard.models import MAX_SCHEMA_DEPTH, check_constraint, check_prompt


def ask(site: Site, key: dict[str, str], model: str) -> int:
    body = MESSAGE | {"model": model}
    return site.client.post("/v1/messages", json=body, headers=key).status_code


def test_a_key_uses_its_models_only(site: Site) -> None:
    key = site.key(models=("tiny:*",), scopes=("infer", "manage"))
    assert ask(site, key, "tiny") == 200
    assert ask(site, key, "tiny:latest") == 200
    for name in ("other:1b", "other", "nowhere", "./tiny:latest", "*"):
        assert ask(site, key, name) == 403, name
    body = {"model": "other:1b"}
    assert site.client.post("/admin/load", json=body, headers=key).status_code == 403
    assert site.client.post("/admin/unload", json=body, headers=key).status_code == 403


def test_lists_show_only_models_of_the_key(site: Site) -> None:
    everything, some = site.key("all"), site.key("some", models=("tiny:*",))
    site.fleet.loaded_names.update({"tiny:latest": None, "other:1b": None})
    names = [
        [one["name"] for one in site.client.get("/admin/models", headers=key).json()["models"]]
        for key in (everything, some)
    ]
    assert names == [["tiny:latest", "other:1b"], ["tiny:latest"]]


def test_an_alias_counts_as_what_it_stands_for(make_site: Callable[..., Site]) -> None:
    site = make_site(aliases={"gpt": "other:1b"})
    assert ask(site, site.key("a", models=("tiny:*",)), "gpt") == 403
    assert ask(site, site.key("b", models=("g*",)), "other:1b") == 403


def test_an_answer_is_cut_when_its_time_is_over(make_site: Callable[..., Site]) -> None:
    site = make_site(max_seconds=0.2)
    site.fleet.script_or_function = Script(("a", "b", "never"), delay=0.12)
    answer = site.client.post("/v1/messages", json=MESSAGE).json()
    assert answer["stop_reason"] in ("max_tokens", "model_context_window_exceeded")
    assert answer["content"][0]["text"] == "a"
    assert site.fleet.open == 0


def test_messages_are_counted(make_site: Callable[..., Site]) -> None:
    site = make_site(max_messages=2)
    body: dict[str, Any] = MESSAGE | {"messages": [{"role": "user", "content": "Hi"}] * 3}
    answer = site.client.post("/v1/messages", json=body)
    assert answer.status_code == 400
    with pytest.raises(RequestError, match="3 messages"):
        check_prompt(ChatPrompt(messages=body["messages"]), 2)


def test_schemas_are_bounded() -> None:
    schema: dict[str, Any] = {}
    for _ in range(MAX_SCHEMA_DEPTH - 1):
        schema = {"items": schema}
    check_constraint(Constraint(kind="json", value=schema))
    with pytest.raises(RequestError, match="deep"):
        check_constraint(Constraint(kind="json", value={"items": {"items": schema}}))
    with pytest.raises(RequestError, match="characters"):
        check_constraint(Constraint(kind="regex", value="a" * 300_000))
