"""The Messages API as the official client drives it."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import anthropic
import httpx
import pytest
from tests.serve.answers.families import QWEN3, SMOLLM2
from tests.serve.scripted import FACTS, Script, ScriptedFleet

from pocketlm.errors import BusyError, PocketLMError
from pocketlm.serve.anthropic import routes
from pocketlm.serve.generation import ChatPrompt, Generation

QWEN = replace(QWEN3, name="tiny:latest")
USER = {"role": "user", "content": "Hi"}
TOOL: Any = {
    "name": "weather",
    "description": "Tells the weather.",
    "input_schema": {
        "type": "object",
        "properties": {"city": {"type": "string"}},
        "required": ["city"],
    },
}
CALL = '<tool_call>\n{"name": "weather", "arguments": {"city": "Rome"}}\n</tool_call>'


def client(url: str) -> anthropic.Anthropic:
    return anthropic.Anthropic(base_url=url, api_key="none", max_retries=0, timeout=10)


def ask(url: str, **more: Any) -> anthropic.types.Message:
    asked: dict[str, Any] = {"model": "tiny", "max_tokens": 100, "messages": [USER]}
    with client(url) as asking:
        return asking.messages.create(**{**asked, **more})


def stream(url: str, **more: Any) -> list[Any]:
    """The events as they come over the wire."""
    asked: dict[str, Any] = {"model": "tiny", "max_tokens": 100, "messages": [USER]}
    with client(url) as asking, asking.messages.create(**{**asked, **more, "stream": True}) as sent:
        return list(sent)


def test_an_answer_is_a_message(serve: Callable[..., str]) -> None:
    fleet = ScriptedFleet(Script(("Hello", " world")))
    message = ask(
        serve(fleet),
        system="Be brief.",
        extra_body={"temperature": 0.5, "top_k": 3, "top_p": 0.9},  # not all clients name them
        stop_sequences=["###"],
        metadata={"user_id": "u"},
    )
    assert [block.to_dict() for block in message.content] == [
        {"type": "text", "text": "Hello world"}
    ]
    assert message.id.startswith("msg_")
    assert (message.role, message.type, message.model) == ("assistant", "message", "tiny")
    assert (message.stop_reason, message.stop_sequence) == ("end_turn", None)
    assert message.usage.output_tokens == 11
    assert message.usage.input_tokens == len("<system>Be brief.<user>Hi")
    assert message.usage.cache_read_input_tokens == 0
    (asked,) = fleet.asked
    assert asked.options == {
        "max_tokens": 100,
        "temperature": 0.5,
        "top_k": 3,
        "top_p": 0.9,
        "stop": ["###"],
    }
    assert asked.overflow == "stop"
    assert fleet.open == 0


def test_the_events_of_a_stream_come_in_order(serve: Callable[..., str]) -> None:
    script = Script(("<think>\nHm", ".</think>\n\nSee", ": ", CALL[:30], CALL[30:]))
    events = stream(
        serve(ScriptedFleet(script, facts=QWEN)),
        tools=[TOOL],
        thinking={"type": "enabled", "budget_tokens": 1024},
        max_tokens=999,
    )
    assert [event.type for event in events] == [
        "message_start",
        "content_block_start",
        *["content_block_delta"] * 3,
        "content_block_stop",
        "content_block_start",
        *["content_block_delta"] * 2,
        "content_block_stop",
        "content_block_start",
        "content_block_delta",
        "content_block_stop",
        "message_delta",
        "message_stop",
    ]
    deltas = [event.delta.to_dict() for event in events if event.type == "content_block_delta"]
    assert deltas == [
        {"type": "thinking_delta", "thinking": "Hm"},
        {"type": "thinking_delta", "thinking": "."},
        {"type": "signature_delta", "signature": ""},
        {"type": "text_delta", "text": "See"},
        {"type": "text_delta", "text": ":"},
        {"type": "input_json_delta", "partial_json": '{"city": "Rome"}'},
    ]
    assert [e.index for e in events if e.type == "content_block_start"] == [0, 1, 2]
    assert events[-2].delta.stop_reason == "tool_use"
    assert events[-2].usage.output_tokens > 0


@pytest.mark.parametrize("thinks", [True, False])
def test_a_stream_adds_up_to_the_message(serve: Callable[..., str], thinks: bool) -> None:
    script = Script(("<think>Hm.</think>See:", CALL, "\n" + CALL, "So."))
    url = serve(ScriptedFleet(script, facts=QWEN))
    asked: Any = {"model": "tiny", "max_tokens": 999, "messages": [USER], "tools": [TOOL]}
    if thinks:
        asked["thinking"] = {"type": "adaptive"}
    with client(url) as asking, asking.messages.stream(**asked) as streamed:
        assembled = streamed.get_final_message().to_dict()
    whole = ask(url, **asked).to_dict()

    def bare(message: dict[str, Any]) -> Any:
        kept = {k: v for k, v in message.items() if k != "id" and v is not None}
        blocks = [{k: v for k, v in b.items() if k != "id"} for b in message["content"]]
        return {**kept, "content": blocks}

    assert bare(assembled) == bare(whole)
    kinds = [block["type"] for block in whole["content"]]
    assert kinds == ["thinking", "text", "tool_use", "tool_use", "text"]
    assert whole["content"][2]["input"] == {"city": "Rome"}
    assert whole["content"][2]["id"].startswith("toolu_")


def test_a_turn_with_tools_goes_there_and_back(serve: Callable[..., str]) -> None:
    scripts = [Script((CALL,)), Script(("Sunny.",))]
    fleet = ScriptedFleet(lambda _: scripts[len(fleet.asked)], facts=QWEN)
    url = serve(fleet)
    message = ask(url, tools=[TOOL])
    assert message.stop_reason == "tool_use"
    (call,) = message.content
    assert call.type == "tool_use"
    result: Any = {
        "type": "tool_result",
        "tool_use_id": call.id,
        "content": [{"type": "text", "text": "No clouds"}],
        "is_error": True,
    }
    turns: Any = [
        USER,
        {"role": "assistant", "content": message.content},
        {"role": "user", "content": [result, {"type": "text", "text": "So?"}]},
    ]
    answer = ask(url, tools=[TOOL], messages=turns)
    assert (answer.content[0].type, answer.stop_reason) == ("text", "end_turn")
    prompt = fleet.asked[1].prompt
    assert isinstance(prompt, ChatPrompt)
    assert [m["role"] for m in prompt.messages] == ["user", "assistant", "tool", "user"]
    assert prompt.messages[1]["tool_calls"][0]["function"] == {
        "name": "weather",
        "arguments": {"city": "Rome"},
    }
    assert prompt.messages[2]["content"] == "Error: No clouds"
    assert prompt.messages[2]["name"] == "weather"
    assert prompt.tools is not None
    assert prompt.tools[0]["function"]["parameters"] == TOOL["input_schema"]


@pytest.mark.parametrize(
    ("choice", "told", "constrained"),
    [
        (None, True, False),
        ({"type": "auto"}, True, False),
        ({"type": "auto", "disable_parallel_tool_use": True}, True, True),
        ({"type": "any"}, True, True),
        ({"type": "tool", "name": "weather"}, True, True),
        ({"type": "none"}, False, False),
    ],
)
def test_the_choice_of_tools_is_followed(
    serve: Callable[..., str], choice: Any, told: bool, constrained: bool
) -> None:
    fleet = ScriptedFleet(facts=QWEN)
    more = {} if choice is None else {"tool_choice": choice}
    ask(serve(fleet), tools=[TOOL], **more)
    (asked,) = fleet.asked
    assert isinstance(asked.prompt, ChatPrompt)
    assert (asked.prompt.tools is not None) is told
    assert (asked.constraint is not None) is constrained


@pytest.mark.parametrize(
    ("thinking", "variable"),
    [
        (None, False),
        ({"type": "disabled"}, False),
        ({"type": "enabled", "budget_tokens": 1024}, True),
        ({"type": "adaptive"}, True),
    ],
)
def test_thinking_is_off_unless_asked_for(
    serve: Callable[..., str], thinking: Any, variable: bool
) -> None:
    fleet = ScriptedFleet(facts=QWEN)
    ask(serve(fleet), **({} if thinking is None else {"thinking": thinking}))
    prompt = fleet.asked[0].prompt
    assert isinstance(prompt, ChatPrompt)
    assert prompt.variables == {"enable_thinking": variable}


def test_a_form_of_the_answer_is_followed(serve: Callable[..., str]) -> None:
    fleet = ScriptedFleet(Script(('{"n": 1}',)))
    schema = {"type": "object", "properties": {"n": {"type": "integer"}}}
    ask(serve(fleet), output_config={"format": {"type": "json_schema", "schema": schema}})
    constraint = fleet.asked[0].constraint
    assert constraint is not None
    assert constraint.value["properties"] == schema["properties"]


def test_a_last_turn_of_the_assistant_is_continued(serve: Callable[..., str]) -> None:
    fleet = ScriptedFleet()
    ask(serve(fleet), messages=[USER, {"role": "assistant", "content": "The answer is"}])
    prompt = fleet.asked[0].prompt
    assert isinstance(prompt, ChatPrompt)
    assert prompt.continue_last
    assert prompt.messages[-1] == {"role": "assistant", "content": "The answer is"}


def test_blocks_of_text_are_text(serve: Callable[..., str]) -> None:
    fleet = ScriptedFleet()
    blocks: Any = [
        {"type": "text", "text": "a", "cache_control": {"type": "ephemeral"}},
        {"type": "text", "text": "b"},
    ]
    thought: Any = [
        {"type": "thinking", "thinking": "Hm.", "signature": ""},
        {"type": "redacted_thinking", "data": "x"},
        {"type": "text", "text": "Yes."},
    ]
    turns: Any = [
        {"role": "user", "content": blocks},
        {"role": "assistant", "content": thought},
        USER,
    ]
    ask(serve(fleet), system=blocks, messages=turns)
    prompt = fleet.asked[0].prompt
    assert isinstance(prompt, ChatPrompt)
    assert list(prompt.messages) == [
        {"role": "system", "content": "a\nb"},
        {"role": "user", "content": "a\nb"},
        {"role": "assistant", "content": "Yes.", "reasoning_content": "Hm."},
        USER,
    ]


@pytest.mark.parametrize(
    ("max_tokens", "script", "reason"),
    [
        (5, Script(("Hello world",)), "max_tokens"),
        (50, Script(("Hello",), reason="length"), "model_context_window_exceeded"),
    ],
)
def test_an_answer_that_is_cut_says_why(
    serve: Callable[..., str], max_tokens: int, script: Script, reason: str
) -> None:
    message = ask(serve(ScriptedFleet(script)), max_tokens=max_tokens)
    assert message.stop_reason == reason


def test_an_answer_that_a_stop_sequence_ended_names_it(serve: Callable[..., str]) -> None:
    fleet = ScriptedFleet(Script(("Hello",), stop="###"))
    message = ask(serve(fleet), stop_sequences=["###"])
    assert (message.stop_reason, message.stop_sequence) == ("stop_sequence", "###")


def test_tokens_are_counted(serve: Callable[..., str]) -> None:
    url = serve(ScriptedFleet())
    with client(url) as asking:
        counted = asking.messages.count_tokens(model="tiny", messages=[USER], system="Be brief.")
    assert counted.input_tokens == len("<system>Be brief.<user>Hi")


# What goes wrong


def refused(url: str, **more: Any) -> tuple[int, str, str]:
    """Status, type and message of an error; checks that it names the request."""
    with pytest.raises(anthropic.APIStatusError) as raised:
        ask(url, **more)
    body = raised.value.body
    assert isinstance(body, dict)
    assert body["type"] == "error"
    assert body["request_id"] == raised.value.request_id
    assert body["request_id"].startswith("req_")
    return raised.value.status_code, body["error"]["type"], body["error"]["message"]


def blocks(*given: Any) -> dict[str, Any]:
    return {"messages": [{"role": "user", "content": list(given)}]}


@pytest.mark.parametrize(
    ("asked", "words"),
    [
        (
            blocks({"type": "image", "source": {"type": "base64", "data": ""}}),
            'messages[0].content[0] is of the type "image"',
        ),
        (blocks({"type": "document"}), '"document"'),
        (blocks({"type": "text"}), "messages[0].content[0].text"),
        (blocks({"text": "a"}), "messages[0].content[0]"),
        (
            blocks({"type": "tool_result", "tool_use_id": "toolu_1", "content": "x"}),
            "'toolu_1', which no tool_use",
        ),
        ({"messages": []}, "messages"),
        ({"messages": [{"role": "tool", "content": "x"}]}, "role"),
        ({"max_tokens": 0}, "max_tokens"),
        ({"stop_sequences": ["x"] * 65}, "stop_sequences"),
        ({"max_tokens": "many"}, "max_tokens"),
        ({"system": [{"type": "image"}]}, "system[0]"),
        ({"tools": [{"type": "web_search_20250305", "name": "web_search"}]}, "no tools of its own"),
        ({"tools": [{**TOOL, "name": "a b"}]}, "'a b'"),
        ({"tool_choice": {"type": "any"}}, "tools is not"),
        ({"tools": [TOOL], "tool_choice": {"type": "tool", "name": "x"}}, "'x'"),
        ({"thinking": {"type": "enabled", "budget_tokens": 1024}}, "does not support thinking"),
        (
            {
                "messages": [
                    {
                        "role": "assistant",
                        "content": [{"type": "tool_use", "id": "a", "name": "b", "input": 3}],
                    }
                ]
            },
            "input should be an object",
        ),
    ],
)
def test_bad_requests_say_what_is_wrong(
    serve: Callable[..., str], asked: dict[str, Any], words: str
) -> None:
    facts = replace(SMOLLM2, name="tiny:latest")
    status, kind, message = refused(serve(ScriptedFleet(facts=facts)), **asked)
    assert (status, kind) == (400, "invalid_request_error")
    assert words in message


def test_too_many_messages_are_refused(serve: Callable[..., str]) -> None:
    url = serve(ScriptedFleet(), max_messages=3)
    assert refused(url, messages=[USER] * 4)[0] == 400


def test_an_unknown_model_is_not_found(serve: Callable[..., str]) -> None:
    status, kind, message = refused(serve(ScriptedFleet()), model="nope")
    assert (status, kind) == (404, "not_found_error")
    assert "nope" in message


def test_a_name_in_half_a_character_is_not_found(serve: Callable[..., str]) -> None:
    asked = {"model": "\ud800", "max_tokens": 9, "messages": [USER]}
    url = serve(ScriptedFleet())
    kind = {"Content-Type": "application/json"}
    content = json.dumps(asked).encode()
    response = httpx.post(f"{url}/v1/messages", content=content, headers=kind, timeout=10)
    assert response.status_code in (400, 404)


@pytest.mark.parametrize("streamed", [True, False])
def test_what_fails_before_the_answer_is_a_status(
    serve: Callable[..., str], streamed: bool
) -> None:
    fleet = ScriptedFleet(Script(refuses=BusyError("full", retry_after=3)))
    assert refused(serve(fleet), stream=streamed)[:2] == (503, "overloaded_error")


def test_a_prompt_beyond_the_context_is_refused_with_the_numbers(
    serve: Callable[..., str],
) -> None:
    fleet = ScriptedFleet(facts=replace(FACTS, context=16))
    status, kind, message = refused(serve(fleet), messages=[{"role": "user", "content": "x" * 99}])
    assert (status, kind) == (400, "invalid_request_error")
    assert "16" in message


@pytest.mark.parametrize("error", [PocketLMError("the worker has died"), ZeroDivisionError("bug")])
def test_what_fails_within_a_stream_is_an_event(
    serve: Callable[..., str], error: PocketLMError
) -> None:
    url = serve(ScriptedFleet(Script(("Hello",), error=error)))
    with pytest.raises(anthropic.APIStatusError) as raised:
        stream(url)
    body = raised.value.body
    assert isinstance(body, dict)
    assert body["error"]["type"] == "api_error"
    assert ("died" in body["error"]["message"]) is isinstance(error, PocketLMError)


# Fields that nobody knows


def raw(url: str, **more: Any) -> Any:
    asked: Any = {"model": "tiny", "max_tokens": 100, "messages": [USER], **more}
    with client(url) as asking:
        return asking.messages.with_raw_response.create(**asked)


def test_fields_that_change_nothing_are_listed(serve: Callable[..., str]) -> None:
    response = raw(
        serve(ScriptedFleet(facts=QWEN)),
        thinking={"type": "enabled", "budget_tokens": 1024},
        extra_body={"colour": 1, "bad\r\nX-Evil: 1": 2},
    )
    assert response.headers["X-PocketLM-Ignored"] == (
        "bad??X-Evil??1, colour, thinking.budget_tokens"
    )
    assert "X-Evil" not in response.headers
    assert response.headers["request-id"].startswith("req_")


def test_a_request_without_such_fields_has_no_such_header(serve: Callable[..., str]) -> None:
    response = raw(serve(ScriptedFleet()), metadata={"user_id": "x"}, service_tier="auto")
    assert "X-PocketLM-Ignored" not in response.headers


@pytest.mark.parametrize(
    ("options", "headers"),
    [({"strict": True}, {}), ({}, {"extra_headers": {"X-PocketLM-Strict": "1"}})],
)
def test_they_are_refused_where_server_or_request_is_strict(
    serve: Callable[..., str], options: dict[str, Any], headers: dict[str, Any]
) -> None:
    url = serve(ScriptedFleet(), **options)
    status, _, message = refused(url, extra_body={"colour": 1}, **headers)
    assert status == 400
    assert "colour" in message
    ask(url, **headers)


# Many at once, and those who go


def test_many_clients_are_answered_at_once(serve: Callable[..., str]) -> None:
    def script(generation: Generation) -> Script:
        assert isinstance(generation.prompt, ChatPrompt)
        return Script((generation.prompt.messages[0]["content"], "!"), delay=0.01)

    url = serve(ScriptedFleet(script))

    async def one(asking: anthropic.AsyncAnthropic, text: str) -> str:
        turn: Any = {"role": "user", "content": text}
        async with asking.messages.stream(model="tiny", max_tokens=50, messages=[turn]) as streamed:
            return "".join([piece async for piece in streamed.text_stream])

    async def everybody() -> list[str]:
        async with anthropic.AsyncAnthropic(base_url=url, api_key="x", max_retries=0) as asking:
            return await asyncio.gather(*(one(asking, f"client {i}") for i in range(16)))

    assert asyncio.run(everybody()) == [f"client {i}!" for i in range(16)]


@pytest.mark.parametrize("streamed", [True, False])
def test_a_client_that_goes_frees_its_place(serve: Callable[..., str], streamed: bool) -> None:
    fleet = ScriptedFleet(Script(["word "] * 10_000, delay=0.005))
    url = serve(fleet)

    async def leave() -> None:
        async with anthropic.AsyncAnthropic(base_url=url, api_key="x", max_retries=0) as asking:
            asked: Any = {"model": "tiny", "max_tokens": 9_999, "messages": [USER]}
            task = asyncio.ensure_future(asking.messages.create(**asked, stream=streamed))
            while not fleet.open:
                await asyncio.sleep(0.01)
            if streamed:
                await (await task).close()
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
        for _ in range(500):
            if not fleet.open:
                return
            await asyncio.sleep(0.01)

    asyncio.run(leave())
    assert fleet.open == 0


def test_a_quiet_answer_is_heard_of(
    serve: Callable[..., str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(routes, "_QUIET", 0.01)
    url = serve(ScriptedFleet(Script(("Hello",), delay=0.2)))
    asked = {"model": "tiny", "max_tokens": 9, "messages": [USER], "stream": True}
    text = httpx.post(f"{url}/v1/messages", json=asked, timeout=10).text
    assert text.count("event: ping") > 2
    assert text.index("message_start") < text.index("ping") < text.index("message_stop")


def test_arguments_survive_as_they_are(serve: Callable[..., str]) -> None:
    arguments = {"city": 'Räm\n"x"', "n": [1, 2.5, None], "deep": {"a": {}}}
    call = f"<tool_call>{json.dumps({'name': 'f', 'arguments': arguments})}</tool_call>"
    message = ask(
        serve(ScriptedFleet(Script(tuple(call)), facts=QWEN)), max_tokens=999, tools=[TOOL]
    )
    assert message.content[0].type == "tool_use"
    assert message.content[0].input == arguments
