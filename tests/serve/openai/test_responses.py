"""The Responses API as the official client drives it."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import httpx
import pytest
from openai.types.responses import Response
from tests.serve.answers.families import QWEN3
from tests.serve.openai.clients import CALL, WEATHER, client, post
from tests.serve.scripted import Script, ScriptedFleet

from pocketlm.errors import PocketLMError
from pocketlm.serve.generation import ChatPrompt

QWEN = replace(QWEN3, name="tiny:latest")
FLAT: Any = {"type": "function", **WEATHER["function"], "strict": False}
ROUTE = "/v1/responses"
Serve = Callable[..., str]

ANSWER = Script(("<think>hm", "m</think>\n\n", "Well.", "\n" + CALL), reason="stop")


def test_an_answer_is_items(serve: Serve) -> None:
    fleet = ScriptedFleet(ANSWER, facts=QWEN)
    found = client(serve(fleet)).responses.create(model="tiny", input="Hi", tools=[FLAT])
    assert [item.type for item in found.output] == ["reasoning", "message", "function_call"]
    thinking, message, call = [item.to_dict() for item in found.output]
    assert thinking["content"] == [{"type": "reasoning_text", "text": "hmm"}]
    assert message["content"][0]["text"].strip() == "Well."  # type: ignore[index]
    assert (call["name"], call["arguments"]) == ("weather", '{"city": "Rome"}')
    assert found.status == "completed"
    assert found.usage is not None
    assert found.usage.output_tokens_details.reasoning_tokens > 0
    assert found.to_dict()["store"] is False


def test_the_shape_is_the_published_one(serve: Serve) -> None:
    body = {"model": "tiny", "input": "Hi", "top_logprobs": 1, "temperature": 1, "top_p": 1}
    raw = post(serve(ScriptedFleet()), ROUTE, body)
    found = Response.model_validate_json(raw.content, strict=True)
    assert found.output_text == "Hello world"
    (message,) = raw.json()["output"]
    scores = message["content"][0]["logprobs"]
    assert [one["token"] for one in scores] == list("Hello world")


def test_events_come_in_order_and_make_the_response(serve: Serve) -> None:
    url = serve(ScriptedFleet(ANSWER, facts=QWEN))
    events = list(client(url).responses.create(model="tiny", input="Hi", tools=[FLAT], stream=True))
    assert [event.sequence_number for event in events] == list(range(len(events)))
    kinds: list[str] = []
    for event in events:
        if not kinds or event.type != kinds[-1]:
            kinds.append(event.type)
    assert kinds == [
        "response.created",
        "response.in_progress",
        "response.output_item.added",
        "response.content_part.added",
        "response.reasoning_text.delta",
        "response.reasoning_text.done",
        "response.content_part.done",
        "response.output_item.done",
        "response.output_item.added",
        "response.content_part.added",
        "response.output_text.delta",
        "response.output_text.done",
        "response.content_part.done",
        "response.output_item.done",
        "response.output_item.added",
        "response.function_call_arguments.delta",
        "response.function_call_arguments.done",
        "response.output_item.done",
        "response.completed",
    ]
    last = events[-1]
    assert last.type == "response.completed"
    assert [item.type for item in last.response.output] == ["reasoning", "message", "function_call"]
    added = [event for event in events if event.type == "response.output_item.added"]
    assert [event.output_index for event in added] == [0, 1, 2]


def test_the_clients_own_stream_reads_it(serve: Serve) -> None:
    url = serve(ScriptedFleet(Script(("Hel", "lo"))))
    with client(url).responses.stream(model="tiny", input="Hi") as stream:
        final = stream.get_final_response()
    assert final.output_text == "Hello"


def test_items_become_messages(serve: Serve) -> None:
    fleet = ScriptedFleet(facts=QWEN)
    client(serve(fleet)).responses.create(
        model="tiny",
        instructions="Be brief.",
        input=[
            {"role": "user", "content": [{"type": "input_text", "text": "Weather?"}]},
            {
                "type": "reasoning",
                "id": "rs_1",
                "summary": [{"type": "summary_text", "text": "hm"}],
            },
            {"type": "function_call", "call_id": "c1", "name": "weather", "arguments": "{}"},
            {"type": "function_call_output", "call_id": "c1", "output": "Sun."},
        ],
        tools=[FLAT],
        reasoning={"effort": "none"},
        max_output_tokens=5,
        truncation="auto",
        text={"format": {"type": "json_schema", "name": "x", "schema": {"type": "object"}}},
    )
    (asked,) = fleet.asked
    prompt = asked.prompt
    assert isinstance(prompt, ChatPrompt)
    assert [message["role"] for message in prompt.messages] == [
        "system",
        "user",
        "assistant",
        "tool",
    ]
    assert prompt.messages[2]["reasoning_content"] == "hm"
    assert prompt.messages[2]["tool_calls"][0]["function"]["name"] == "weather"
    assert prompt.variables == {"enable_thinking": False}
    assert (asked.overflow, asked.options["max_tokens"]) == ("truncate", 5)
    assert asked.constraint is not None


def test_an_answer_cut_short_is_incomplete(serve: Serve) -> None:
    url = serve(ScriptedFleet())
    found = client(url).responses.create(model="tiny", input="Hi", max_output_tokens=3)
    assert (found.status, found.output_text) == ("incomplete", "Hel")
    assert found.incomplete_details is not None
    assert found.incomplete_details.reason == "max_output_tokens"


def test_an_answer_that_fails_says_so(serve: Serve) -> None:
    url = serve(ScriptedFleet(Script(("a",), error=PocketLMError("the engine failed"))))
    assert post(url, ROUTE, {"model": "tiny", "input": "Hi"}).status_code == 500
    lines = post(url, ROUTE, {"model": "tiny", "input": "Hi", "stream": True}).text.splitlines()
    last = json.loads([line for line in lines if line.startswith("data: ")][-1][6:])
    assert last["type"] == "response.failed"
    assert last["response"]["error"]["message"] == "the engine failed"


@pytest.mark.parametrize(
    "more",
    [
        {"previous_response_id": "resp_1"},
        {"conversation": "conv_1"},
        {"background": True},
        {"prompt": {"id": "p"}},
        {"input": []},
        {"input": [{"type": "item_reference", "id": "x"}]},
        {"input": [{"type": "function_call", "name": "x"}]},
        {"tools": [{"type": "web_search"}]},
        {"include": ["file_search_call.results"]},
        {"truncation": "some"},
    ],
)
def test_what_is_not_done_is_refused(serve: Serve, more: dict[str, Any]) -> None:
    fleet = ScriptedFleet()
    answer = post(serve(fleet), ROUTE, {"model": "tiny", "input": "Hi", **more})
    assert answer.status_code == 400
    assert not fleet.asked


def test_nothing_is_stored(serve: Serve) -> None:
    url = serve(ScriptedFleet())
    stored = post(url, ROUTE, {"model": "tiny", "input": "Hi", "store": True})
    assert stored.headers["X-PocketLM-Ignored"] == "store"
    assert httpx.get(f"{url}{ROUTE}/{stored.json()['id']}").status_code == 404
