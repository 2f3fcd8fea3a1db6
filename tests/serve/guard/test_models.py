"""Models that a key may use, and what one request may ask of one."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tests.serve.guard.conftest import MESSAGE, Site
from tests.serve.scripted import Script

from pocketlm.errors import RequestError
from pocketlm.gguf import write_gguf
from pocketlm.serve.generation import ChatPrompt, Constraint, Fleet
from pocketlm.serve.guard.models import (
    MAX_SCHEMA_DEPTH,
    GuardedFleet,
    check_constraint,
    check_prompt,
)
from pocketlm.serve.guard.shelf import GuardedStore
from pocketlm.store import Store


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


# What names a model: method, path, and a body in which {} is the model.
NAMING = [
    ("POST", "/v1/chat/completions", {"model": "{}", "messages": MESSAGE["messages"]}),
    ("POST", "/v1/completions", {"model": "{}", "prompt": "Hi"}),
    ("POST", "/v1/responses", {"model": "{}", "input": "Hi"}),
    ("POST", "/v1/embeddings", {"model": "{}", "input": "Hi"}),
    ("POST", "/v1/messages", MESSAGE | {"model": "{}"}),
    ("POST", "/v1/messages/count_tokens", {"model": "{}", "messages": MESSAGE["messages"]}),
    ("POST", "/tokenize", {"model": "{}", "prompt": "Hi"}),
    ("POST", "/detokenize", {"model": "{}", "tokens": [72]}),
    ("GET", "/tokenizer_info?model={}", None),
    ("POST", "/api/generate", {"model": "{}", "prompt": "Hi", "stream": False}),
    ("POST", "/api/chat", {"model": "{}", "messages": MESSAGE["messages"], "stream": False}),
    ("POST", "/api/embed", {"model": "{}", "input": "Hi"}),
    ("POST", "/api/embeddings", {"model": "{}", "prompt": "Hi"}),
    ("POST", "/admin/load", {"model": "{}"}),
    ("POST", "/admin/unload", {"model": "{}"}),
    ("GET", "/page/memory?model={}", None),
]


@pytest.mark.parametrize(("method", "path", "body"), NAMING, ids=[one[1] for one in NAMING])
def test_every_route_that_names_a_model_asks_the_key(
    site: Site, method: str, path: str, body: dict[str, Any] | None
) -> None:
    key = site.key(models=("tiny:*",), scopes=("infer", "manage"))

    def status(model: str) -> int:
        filled = None if body is None else {k: model if v == "{}" else v for k, v in body.items()}
        answer = site.client.request(method, path.format(model), json=filled, headers=key)
        return answer.status_code

    assert status("tiny") not in (401, 403)
    assert status("other:1b") == 403


@pytest.fixture
def stocked(site: Site, tmp_path: Path) -> Site:
    """With the models tiny:latest and other:1b in its store."""
    file = tmp_path / "tiny.gguf"
    write_gguf(file, {"general.architecture": "llama"}, [])
    for name in ("tiny:latest", "other:1b"):
        site.store.import_path(file, name, copy=True)
    return site


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/api/show", {"model": "other:1b"}),
        ("/api/copy", {"source": "other:1b", "destination": "tiny:two"}),
        ("/api/copy", {"source": "tiny", "destination": "other:two"}),
        ("/api/delete", {"model": "other:1b"}),
        ("/api/create", {"model": "other:two", "from": "tiny", "stream": False}),
        ("/api/create", {"model": "tiny:two", "from": "other:1b", "stream": False}),
        ("/api/pull", {"model": "other:two", "stream": False}),
        ("/api/push", {"model": "other:1b", "stream": False}),
    ],
)
def test_the_store_is_as_closed_as_the_models(
    stocked: Site, path: str, body: dict[str, Any]
) -> None:
    key = stocked.key(models=("tiny:*",), scopes=("infer", "manage"))
    before = [model.name for model in stocked.store.list()]
    method = "DELETE" if path == "/api/delete" else "POST"
    answer = stocked.client.request(method, path, json=body, headers=key)
    assert answer.status_code in (403, 404), answer.text
    assert [model.name for model in stocked.store.list()] == before
    names = [one["name"] for one in stocked.client.get("/api/tags", headers=key).json()["models"]]
    assert names == ["tiny:latest"]


def test_what_the_key_has_may_be_copied_and_made(stocked: Site) -> None:
    key = stocked.key(models=("tiny:*",), scopes=("infer", "manage"))
    for path, body in (
        ("/api/copy", {"source": "tiny", "destination": "tiny:two"}),
        ("/api/create", {"model": "tiny:three", "from": "tiny", "stream": False}),
    ):
        answer = stocked.client.post(path, json=body, headers=key)
        assert answer.status_code == 200, answer.text


def test_every_method_of_store_and_fleet_is_decided() -> None:
    """A method that is new must be guarded, or named here with why it need not be."""
    open_ones = {
        "setup",  # takes a model that ``resolve`` has given
        "push",  # resolves what it pushes
        "full_name",  # says nothing of what is there
        "verify", "remove_unused",  # no route has them; they name no model
    }  # fmt: skip
    public = {name for name in vars(Store) if not name.startswith("_")}
    assert public - vars(GuardedStore).keys() == open_ones
    asked = {name for name in vars(Fleet) if not name.startswith("_")}
    assert asked <= vars(GuardedFleet).keys()


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


def test_a_load_is_not_waited_for_without_end(make_site: Callable[..., Site]) -> None:
    site = make_site(max_seconds=0.05)
    site.fleet.load_delay = 30
    answer = site.client.post("/v1/messages", json=MESSAGE)
    assert answer.status_code == 503
    assert "was not loaded" in answer.text
    assert int(answer.headers["Retry-After"]) >= 1
    assert site.refused()["queue"] == 1


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
