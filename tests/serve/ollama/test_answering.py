"""generate and chat, driven by Ollama's own client."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import httpx
import ollama
import pytest
from pydantic import BaseModel
from tests.serve.scripted import FACTS, Script, ScriptedFleet

from pocketlm.errors import BusyError, ContextError, ModelFileError
from pocketlm.serve.generation import ChatPrompt, Constraint, FillPrompt, TextPrompt
from pocketlm.store import Store

Serve = Callable[..., str]
Connect = Callable[[str], ollama.Client]
PLAIN = replace(FACTS, capabilities=frozenset({"completion", "tools", "insert"}))
BASE = replace(FACTS, template=None, capabilities=frozenset({"completion"}))
THINKS = replace(FACTS, template="{{ messages }}{% if enable_thinking %}{% endif %}")
USER = [{"role": "user", "content": "Hi"}]
CALL = '<tool_call>\n{"name": "add", "arguments": {"a": 1, "b": 2}}\n</tool_call>'


def add(a: int, b: int) -> int:
    """Adds.

    Args:
        a: one
        b: other
    """
    return a + b


def asked(fleet: ScriptedFleet) -> Any:
    (generation,) = fleet.asked
    return generation


def test_chat_whole(client: ollama.Client, fleet: ScriptedFleet) -> None:
    answer = client.chat("tiny", USER, options={"temperature": 0, "num_predict": 7, "seed": 1})
    assert answer.message.content == "Hello w"
    assert (answer.model, answer.done, answer.done_reason) == ("tiny", True, "length")
    assert answer.eval_count == 7
    assert answer.prompt_eval_count == len("<user>Hi")
    assert (answer.eval_duration, answer.prompt_eval_duration) == (100_000_000, 10_000_000)
    assert (answer.total_duration or 0) > 0
    assert (answer.created_at or "").endswith("Z")
    assert asked(fleet).options == {"temperature": 0, "max_tokens": 7, "seed": 1}
    assert asked(fleet).overflow == "error"


def test_chat_streams_a_line_for_each_piece(client: ollama.Client, fleet: ScriptedFleet) -> None:
    parts = list(client.chat("tiny", USER, stream=True))
    assert [part.message.content for part in parts] == ["Hello", " world", ""]
    assert [part.done for part in parts] == [False, False, True]
    assert parts[-1].done_reason == "stop"
    assert fleet.open == 0


def test_the_async_client_streams_too(url: str) -> None:
    async def talk() -> str:
        async with ollama.AsyncClient(host=url) as client:
            parts = await client.chat("tiny", USER, stream=True)
            return "".join([part.message.content or "" async for part in parts])

    assert asyncio.run(talk()) == "Hello world"


def test_streams_are_lines_of_ndjson(url: str) -> None:
    answer = httpx.post(f"{url}/api/chat", json={"model": "tiny", "messages": USER})
    assert answer.headers["content-type"] == "application/x-ndjson"
    lines = [json.loads(line) for line in answer.text.splitlines()]
    assert lines[0]["message"] == {"role": "assistant", "content": "Hello"}


def test_generate_is_one_message_of_the_user(client: ollama.Client, fleet: ScriptedFleet) -> None:
    answer = client.generate("tiny", "Hi", system="Be brief.")
    assert (answer.response, answer.done_reason) == ("Hello world", "stop")
    prompt = asked(fleet).prompt
    assert isinstance(prompt, ChatPrompt)
    assert list(prompt.messages) == [{"role": "system", "content": "Be brief."}, *USER]


def test_generate_raw_is_plain_text(client: ollama.Client, fleet: ScriptedFleet) -> None:
    client.generate("tiny", "Once", raw=True)
    assert asked(fleet).prompt == TextPrompt(text="Once")


def test_a_model_without_a_template_continues_the_prompt(serve: Serve, connect: Connect) -> None:
    fleet = ScriptedFleet(facts=BASE)
    client = connect(serve(fleet))
    client.generate("tiny", "Once")
    assert asked(fleet).prompt == TextPrompt(text="Once")
    with pytest.raises(ollama.ResponseError, match='"tiny:latest" does not support chat') as error:
        client.chat("tiny", USER)
    assert error.value.status_code == 400


def test_suffix_fills_the_middle(client: ollama.Client, fleet: ScriptedFleet) -> None:
    client.generate("tiny", "def f(", suffix="return 1")
    assert asked(fleet).prompt == FillPrompt(prefix="def f(", suffix="return 1")


def test_a_template_of_the_request_goes_along(client: ollama.Client, fleet: ScriptedFleet) -> None:
    source = "{% for m in messages %}{{ m.content }}{% endfor %}"
    client.generate("tiny", "Hi", template=source)
    assert asked(fleet).prompt.template == source


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"template": "{{ .Prompt }}"}, "written for Go"),
        ({"raw": True, "system": "x"}, "raw mode does not support template, system, or context"),
        ({"context": [1, 2]}, "/api/chat"),
        ({"images": ["aGk="]}, "does not support images"),
        ({"format": "yaml"}, "invalid format"),
        ({"format": 3}, "invalid format"),
        ({"keep_alive": "5 parsecs"}, 'time: invalid duration "5 parsecs"'),
        ({"keep_alive": "5"}, 'time: missing unit in duration "5"'),
        ({"options": {"temperature": "hot"}}, 'option "temperature" must be a number'),
        ({"options": {"num_ctx": 1.5}}, 'option "num_ctx" must be an integer'),
        ({"options": {"stop": [1]}}, 'option "stop" must be an array of strings'),
        ({"options": 3}, "options"),
        ({"prompt": 3}, "prompt"),
        ({"stream": "yes"}, "stream"),
        ({"think": "x" * 3, "model": "dull"}, '"dull" does not support thinking'),
        ({"top_logprobs": 21}, "top_logprobs"),
        ({"suffix": "x", "model": "dull"}, '"dull" does not support insert'),
    ],
)
def test_what_makes_no_sense_is_a_400(serve: Serve, fields: dict[str, Any], words: str) -> None:
    dull = replace(FACTS, name="dull", capabilities=frozenset({"completion"}))
    url = serve(ScriptedFleet(names={"tiny:latest": FACTS, "dull": dull}))
    answer = httpx.post(f"{url}/api/generate", json={"model": "tiny", "prompt": "Hi", **fields})
    assert (answer.status_code, list(answer.json())) == (400, ["error"])
    assert words in answer.json()["error"]


@pytest.mark.parametrize(
    ("body", "words"),
    [(b"", "missing request body"), (b"{", "JSON"), (b"\xff\xfe", ""), (b"[]", ""), (b"3", "")],
)
def test_malformed_bodies(url: str, body: bytes, words: str) -> None:
    headers = {"Content-Type": "application/json"}
    for route in ("generate", "chat", "embed", "show", "pull", "create"):
        answer = httpx.post(f"{url}/api/{route}", content=body, headers=headers)
        assert answer.status_code == 400, route
        assert words in answer.json()["error"]


def test_unknown_models_are_404_in_ollamas_words(client: ollama.Client) -> None:
    for ask in (
        lambda: client.chat("nobody", USER),
        lambda: client.generate("nobody", "Hi"),
        lambda: client.generate("nobody"),
        lambda: list(client.chat("nobody", USER, stream=True)),
        lambda: client.embed("nobody", "Hi"),
        lambda: client.show("nobody"),
        lambda: client.delete("nobody"),
        lambda: client.copy("nobody", "other"),
    ):
        with pytest.raises(ollama.ResponseError, match="model 'nobody' not found") as error:
            ask()
        assert error.value.status_code == 404


def test_wrong_methods_are_405(url: str) -> None:
    for method, path in (("GET", "chat"), ("POST", "tags"), ("GET", "delete"), ("PUT", "show")):
        answer = httpx.request(
            method, f"{url}/api/{path}", headers={"Content-Type": "application/json"}
        )
        assert answer.status_code == 405
        assert "error" in answer.json()


def test_nothing_asked_loads_and_unloads(client: ollama.Client, fleet: ScriptedFleet) -> None:
    answer = client.generate("tiny", keep_alive="1h30m")
    assert (answer.done, answer.done_reason, answer.response) == (True, "load", "")
    assert fleet.loaded_names == {"tiny:latest": 5400}
    assert client.chat("tiny", keep_alive=0).done_reason == "unload"
    assert fleet.loaded_names == {}
    assert client.chat("tiny", keep_alive=-1).done_reason == "load"
    assert fleet.loaded_names == {"tiny:latest": -1}
    assert not fleet.asked


def test_keep_alive_is_told_to_the_fleet(client: ollama.Client, fleet: ScriptedFleet) -> None:
    for given in (0, 2.5, "300ms", "-1s", None):
        client.generate("tiny", "Hi", keep_alive=given)
    assert fleet.kept == [0, 2.5, 0.3, -1, None]


@pytest.mark.parametrize("name", ["tiny", "TINY", "tiny:latest", "Tiny:Latest", "library/tiny"])
def test_names_match_in_any_case(client: ollama.Client, store: Store, name: str) -> None:
    assert client.generate(name, "Hi").model == name


def test_a_context_of_the_request_is_a_limit(client: ollama.Client, fleet: ScriptedFleet) -> None:
    client.generate("tiny", "Hi", options={"num_ctx": 64})
    client.generate("tiny", "Hi", options={"num_ctx": 1 << 20})
    assert [one.context for one in fleet.asked] == [64, FACTS.context]
    with pytest.raises(ollama.ResponseError, match="the context has 8") as error:
        client.generate("tiny", "Hi " * 90, options={"num_ctx": 8})
    assert error.value.status_code == 400


def test_truncation_has_to_be_asked_for(client: ollama.Client, fleet: ScriptedFleet) -> None:
    client._client.post("/api/chat", json={"model": "tiny", "messages": USER, "truncate": True})
    assert asked(fleet).overflow == "truncate"


def test_what_has_no_effect_is_listed(url: str) -> None:
    options = {"num_gpu": 1, "num_thread": 2, "use_mmap": True, "warmth": 1, "temperature": 1}
    body = {"model": "tiny", "prompt": "Hi", "options": options, "shift": True, "süß": 1}
    for stream in (True, False):
        answer = httpx.post(f"{url}/api/generate", json={**body, "stream": stream})
        listed = answer.headers["X-PocketLM-Ignored"].split(", ")
        assert listed == [
            "s??", "options.warmth", "options.num_gpu", "options.num_thread", "options.use_mmap",
            "shift",
        ]  # fmt: skip


def test_strict_servers_refuse_what_is_unknown(serve: Serve) -> None:
    url = serve(ScriptedFleet(), strict=True)
    for extra in ({"options": {"warmth": 1}}, {"warmth": 1}):
        answer = httpx.post(f"{url}/api/generate", json={"model": "tiny", "prompt": "x", **extra})
        assert answer.status_code == 400
        assert "warmth" in answer.json()["error"]


def test_too_many_messages(serve: Serve) -> None:
    url = serve(ScriptedFleet(), max_messages=2)
    answer = httpx.post(f"{url}/api/chat", json={"model": "tiny", "messages": USER * 3})
    assert (answer.status_code, "3 messages" in answer.json()["error"]) == (400, True)


def test_busy_is_503_in_ollamas_words(serve: Serve) -> None:
    url = serve(ScriptedFleet(Script(refuses=BusyError("full", retry_after=2.5))))
    for stream in (True, False):
        body = {"model": "tiny", "messages": USER, "stream": stream}
        answer = httpx.post(f"{url}/api/chat", json=body)
        assert (answer.status_code, answer.headers["Retry-After"]) == (503, "3")
        words = "server busy, please try again.  maximum pending requests exceeded"
        assert answer.json() == {"error": words}


def test_an_error_within_a_stream_is_its_last_line(serve: Serve, connect: Connect) -> None:
    url = serve(ScriptedFleet(Script(("Hel",), error=ModelFileError("it broke"))))
    client = connect(url)
    with pytest.raises(ollama.ResponseError, match="it broke"):
        list(client.chat("tiny", USER, stream=True))
    with pytest.raises(ollama.ResponseError, match="it broke") as error:
        client.chat("tiny", USER)
    assert error.value.status_code == 422


def test_a_client_that_leaves_frees_its_slot(serve: Serve) -> None:
    fleet = ScriptedFleet(Script(("x",) * 1000, delay=0.005))
    url = serve(fleet)
    body = {"model": "tiny", "prompt": "Hi"}
    with httpx.stream("POST", f"{url}/api/generate", json=body) as answer:
        lines = answer.iter_lines()
        assert json.loads(next(lines))["response"] == "x"
        assert fleet.open == 1
    with pytest.raises(httpx.ReadTimeout):
        httpx.post(f"{url}/api/generate", json={**body, "stream": False}, timeout=0.1)
    for _ in range(200):
        if fleet.open == 0:
            break
        asyncio.run(asyncio.sleep(0.01))
    assert fleet.open == 0


class City(BaseModel):
    name: str


def test_a_format_is_a_constraint(client: ollama.Client, fleet: ScriptedFleet) -> None:
    client.chat("tiny", USER, format=City.model_json_schema(), think=False)
    client.chat("tiny", USER, format="json", think=False)
    client.chat("tiny", USER, format="")
    schema, anything, nothing = (one.constraint for one in fleet.asked)
    assert isinstance(schema, Constraint)
    assert (schema.kind, schema.value["properties"]["name"]["type"]) == ("json", "string")
    assert anything.kind == "json"
    assert nothing is None


def test_a_format_leaves_thinking_free(serve: Serve, connect: Connect) -> None:
    fleet = ScriptedFleet(facts=THINKS)
    connect(serve(fleet)).chat("tiny", USER, format="json")
    assert "</think>" in asked(fleet).constraint.value


def test_thinking_is_told_apart(serve: Serve, connect: Connect) -> None:
    fleet = ScriptedFleet(Script(("<think>\nhm", "m\n</think>\n", "\nRome")), facts=THINKS)
    client = connect(serve(fleet))
    whole = client.chat("tiny", USER, think=True)
    assert (whole.message.thinking, whole.message.content) == ("hmm", "Rome")
    parts = list(client.generate("tiny", "Hi", stream=True))
    assert "".join(part.thinking or "" for part in parts) == "hmm"
    assert "".join(part.response or "" for part in parts) == "Rome"
    client.chat("tiny", USER, think=False)
    asks = [one.prompt.variables for one in fleet.asked]
    assert asks == [
        {"enable_thinking": True},
        {"enable_thinking": True},
        {"enable_thinking": False},
    ]


def test_tools_are_offered_and_called(serve: Serve, connect: Connect) -> None:
    fleet = ScriptedFleet(Script((CALL[:30], CALL[30:])), facts=PLAIN)
    client = connect(serve(fleet))
    for answer in (
        client.chat("tiny", USER, tools=[add]),
        next(iter(client.chat("tiny", USER, tools=[add], stream=True))),
    ):
        assert answer.message.tool_calls is not None
        (call,) = answer.message.tool_calls
        assert (call.function.name, call.function.arguments) == ("add", {"a": 1, "b": 2})
    prompt = fleet.asked[0].prompt
    assert prompt.tools[0]["function"]["parameters"]["properties"]["a"]["type"] == "integer"


def test_calls_have_ids_and_results_come_back(serve: Serve, connect: Connect) -> None:
    fleet = ScriptedFleet(Script((CALL + CALL,)), facts=PLAIN)
    client = connect(serve(fleet))
    body = {"model": "tiny", "messages": USER, "tools": [_tool()], "stream": False}
    message = client._client.post("/api/chat", json=body).json()["message"]
    ids = [call["id"] for call in message["tool_calls"]]
    assert [call["function"]["index"] for call in message["tool_calls"]] == [0, 1]
    assert all(len(one) == 13 and one.startswith("call_") for one in ids)
    assert len(set(ids)) == 2
    result = {"role": "tool", "tool_name": "add", "content": "3"}
    client.chat("tiny", [*USER, message, result])
    _, spoken, told = fleet.asked[1].prompt.messages
    assert spoken["tool_calls"][0]["function"] == {"name": "add", "arguments": {"a": 1, "b": 2}}
    assert (told["role"], told["name"], told["content"]) == ("tool", "add", "3")


def _tool() -> dict[str, Any]:
    parameters = {"type": "object", "properties": {"a": {"type": "integer"}}}
    return {"type": "function", "function": {"name": "add", "parameters": parameters}}


def test_log_probabilities(client: ollama.Client) -> None:
    whole = client.generate("tiny", "Hi", logprobs=True, top_logprobs=2)
    assert whole.logprobs is not None
    assert "".join(one.token for one in whole.logprobs) == "Hello world"
    assert whole.logprobs[0].logprob == -0.5
    assert whole.logprobs[0].top_logprobs is not None
    assert [one.logprob for one in whole.logprobs[0].top_logprobs] == [-0.5, -1.5]
    parts = list(client.chat("tiny", USER, logprobs=True, stream=True))
    assert [len(part.logprobs or ()) for part in parts] == [5, 6, 0]


def test_embeddings(client: ollama.Client) -> None:
    answer = client.embed("tiny", ["Hi", "there"])
    assert answer.embeddings == [[0.5] * 4] * 2
    assert answer.prompt_eval_count == 7
    (short,) = client.embed("tiny", "Hi", dimensions=2).embeddings
    assert sum(value * value for value in short) == pytest.approx(1)
    assert client.embed("tiny", "").embeddings == []
    assert client.embeddings("tiny", "Hi").embedding == [0.5] * 4


def test_embeddings_never_truncate_quietly(client: ollama.Client) -> None:
    long = "x" * (FACTS.context + 1)
    with pytest.raises(ollama.ResponseError, match="exceeds the context length") as error:
        client.embed("tiny", long)
    assert (error.value.status_code, "4,097" in str(error.value)) == (400, True)
    assert client.embed("tiny", long, truncate=True).prompt_eval_count == FACTS.context


def test_a_context_error_keeps_its_numbers(serve: Serve) -> None:
    url = serve(ScriptedFleet(Script(refuses=ContextError("5,000 of 4,096"))))
    answer = httpx.post(f"{url}/api/chat", json={"model": "tiny", "messages": USER})
    assert (answer.status_code, answer.json()) == (400, {"error": "5,000 of 4,096"})
