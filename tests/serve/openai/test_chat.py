"""Chat completions as the official client drives them."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import openai
import pydantic
import pytest
from openai.types.chat import ChatCompletion, ChatCompletionChunk
from tests.serve.answers.families import QWEN3, SMOLLM2
from tests.serve.openai.clients import CALL, USER, WEATHER, client, post
from tests.serve.scripted import Script, ScriptedFleet

from pocketlm.errors import BusyError, PocketLMError
from pocketlm.serve.generation import ChatPrompt, Generation

QWEN = replace(QWEN3, name="tiny:latest")
PLAIN = replace(SMOLLM2, name="tiny:latest")
ROUTE = "/v1/chat/completions"
Serve = Callable[..., str]


def ask(url: str, **more: Any) -> ChatCompletion:
    asked: dict[str, Any] = {"model": "tiny", "messages": [USER], **more}
    return client(url).chat.completions.create(**asked)


def stream(url: str, **more: Any) -> list[ChatCompletionChunk]:
    asked: dict[str, Any] = {"model": "tiny", "messages": [USER], **more}
    return list(client(url).chat.completions.create(**asked, stream=True))


def text_of(chunks: list[ChatCompletionChunk], index: int = 0) -> str:
    choices = [choice for chunk in chunks for choice in chunk.choices if choice.index == index]
    return "".join(choice.delta.content or "" for choice in choices)


def test_an_answer_has_the_published_shape(serve: Serve) -> None:
    url = serve(ScriptedFleet())
    asked = {"model": "tiny", "messages": [USER], "logprobs": True, "top_logprobs": 2}
    raw = post(url, ROUTE, asked).json()
    answer = ChatCompletion.model_validate(raw, strict=True)
    (choice,) = answer.choices
    assert (choice.message.content, choice.finish_reason) == ("Hello world", "stop")
    assert answer.usage is not None
    assert (answer.usage.prompt_tokens, answer.usage.completion_tokens) == (8, 11)
    assert choice.logprobs is not None
    assert choice.logprobs.content is not None
    assert [one.token for one in choice.logprobs.content] == list("Hello world")
    assert [len(one.top_logprobs) for one in choice.logprobs.content] == [2] * 11
    assert choice.logprobs.content[0].bytes == [72]


def test_options_reach_the_model(serve: Serve) -> None:
    fleet = ScriptedFleet(facts=PLAIN)
    ask(
        serve(fleet),
        temperature=0,
        top_p=0.5,
        seed=-1,
        stop=["a", "b"],
        max_completion_tokens=7,
        logit_bias={"65": -100},
        extra_body={
            "top_k": -1,
            "min_p": 0.1,
            "typical_p": 0.9,
            "repetition_penalty": 1.2,
            "ignore_eos": True,
            "min_tokens": 3,
            "stop_token_ids": [5],
            "num_ctx": 100,
            "truncate": True,
            "skip_special_tokens": False,
            "keep_alive": 9,
        },
    )
    (asked,) = fleet.asked
    assert asked.options == {
        "temperature": 0,
        "top_p": 0.5,
        "min_p": 0.1,
        "typical_p": 0.9,
        "repetition_penalty": 1.2,
        "min_tokens": 3,
        "top_k": 0,
        "seed": 2**64 - 1,
        "stop": ["a", "b"],
        "stop_ids": [5],
        "ignore_eos": True,
        "max_tokens": 7,
        "logit_bias": {65: -100},
    }
    assert (asked.context, asked.overflow, asked.keep_special) == (100, "truncate", True)
    assert fleet.kept == [9]


def test_a_stream_says_the_same(serve: Serve) -> None:
    url = serve(ScriptedFleet(Script(('He"llo', " wörld\n", "😀"))))
    chunks = stream(url, stream_options={"include_usage": True})
    assert text_of(chunks) == 'He"llo wörld\n😀'
    assert chunks[0].choices[0].delta.role == "assistant"
    assert chunks[-2].choices[0].finish_reason == "stop"
    assert chunks[-1].choices == []
    assert chunks[-1].usage is not None
    assert chunks[-1].usage.completion_tokens == 18
    assert len({chunk.id for chunk in chunks}) == 1
    for chunk in chunks:
        ChatCompletionChunk.model_validate(chunk.to_dict(mode="python"))


def test_usage_may_be_told_with_every_chunk(serve: Serve) -> None:
    options: Any = {"include_usage": True, "continuous_usage_stats": True}
    chunks = stream(serve(ScriptedFleet()), stream_options=options)
    counts = [chunk.usage.completion_tokens for chunk in chunks if chunk.usage is not None]
    assert counts == [0, 5, 11, 11, 11]


@pytest.mark.parametrize("streams", [False, True])
def test_several_choices_have_seeds_of_their_own(serve: Serve, streams: bool) -> None:
    def script(asked: Generation) -> Script:
        return Script((f"seed {asked.options['seed']}", "."))

    fleet = ScriptedFleet(script)
    url = serve(fleet)
    if streams:
        chunks = stream(url, n=3, seed=5, stream_options={"include_usage": True})
        texts, usage = [text_of(chunks, i) for i in range(3)], chunks[-1].usage
    else:
        answer = ask(url, n=3, seed=5)
        texts, usage = [str(c.message.content) for c in answer.choices], answer.usage
    assert texts == ["seed 5.", "seed 6.", "seed 7."]
    assert usage is not None
    assert (usage.prompt_tokens, usage.completion_tokens) == (8, 21)


def test_thinking_is_told_apart_and_counted(serve: Serve) -> None:
    fleet = ScriptedFleet(Script(("<think>", "hm", "m</think>", "\n\nYes", "!")), facts=QWEN)
    url = serve(fleet)
    answer = ask(url)
    message = answer.choices[0].message.to_dict()
    assert message["content"] == "Yes!"
    assert message["reasoning_content"] == message["reasoning"] == "hmm"
    assert answer.usage is not None
    assert answer.usage.completion_tokens_details is not None
    assert answer.usage.completion_tokens_details.reasoning_tokens == 18
    deltas = [chunk.choices[0].delta.to_dict() for chunk in stream(url)]
    assert "".join(str(delta.get("reasoning_content", "")) for delta in deltas) == "hmm"
    silent = ask(url, extra_body={"include_reasoning": False}).choices[0].message
    assert silent.to_dict() == {"content": "Yes!", "role": "assistant", "refusal": None}


def test_effort_is_a_variable_of_the_template(serve: Serve) -> None:
    fleet = ScriptedFleet(facts=QWEN)
    url = serve(fleet)
    ask(url, reasoning_effort="none")
    ask(url, extra_body={"chat_template_kwargs": {"enable_thinking": True, "x": 1}})
    prompts = [one.prompt for one in fleet.asked]
    assert [p.variables for p in prompts if isinstance(p, ChatPrompt)] == [
        {"enable_thinking": False},
        {"enable_thinking": True, "x": 1},
    ]
    url = serve(ScriptedFleet(facts=PLAIN))
    answer = post(url, ROUTE, {"messages": [USER], "model": "tiny", "reasoning_effort": "high"})
    assert answer.headers["X-PocketLM-Ignored"] == "reasoning_effort"


@pytest.mark.parametrize("streams", [False, True])
def test_tools_are_called(serve: Serve, streams: bool) -> None:
    fleet = ScriptedFleet(Script((CALL[:30], CALL[30:])), facts=QWEN)
    url = serve(fleet)
    if streams:
        chunks = stream(url, tools=[WEATHER], tool_choice="required")
        calls = [c for chunk in chunks for c in chunk.choices[0].delta.tool_calls or ()]
        assert calls[0].id is not None
        assert calls[0].function is not None
        name = calls[0].function.name
        arguments = "".join(str(c.function.arguments) for c in calls if c.function is not None)
        finish = chunks[-1].choices[0].finish_reason
    else:
        choice = ask(url, tools=[WEATHER], tool_choice="required").choices[0]
        assert choice.message.content is None
        assert choice.message.tool_calls is not None
        (call,) = choice.message.tool_calls
        assert call.type == "function"
        name, arguments = call.function.name, call.function.arguments
        finish = choice.finish_reason
    assert (name, arguments, finish) == ("weather", '{"city": "Rome"}', "tool_calls")
    (asked,) = fleet.asked
    assert asked.constraint is not None
    assert isinstance(asked.prompt, ChatPrompt)
    assert asked.prompt.tools is not None


def test_tool_choice_none_offers_nothing(serve: Serve) -> None:
    fleet = ScriptedFleet(Script((CALL,)), facts=QWEN)
    choice = ask(serve(fleet), tools=[WEATHER], tool_choice="none").choices[0]
    assert (choice.message.content, choice.finish_reason) == (CALL, "stop")
    (asked,) = fleet.asked
    assert asked.constraint is None
    assert isinstance(asked.prompt, ChatPrompt)
    assert asked.prompt.tools is None


def test_parse_gives_an_object(serve: Serve) -> None:
    class City(pydantic.BaseModel):
        name: str
        people: int

    fleet = ScriptedFleet(Script(('{"name": "Rome",', ' "people": 3}')), facts=PLAIN)
    parsed = client(serve(fleet)).chat.completions.parse(
        model="tiny", messages=[USER], response_format=City
    )
    assert parsed.choices[0].message.parsed == City(name="Rome", people=3)
    constraint = fleet.asked[0].constraint
    assert constraint is not None
    assert constraint.kind == "json"
    assert set(constraint.value["properties"]) == {"name", "people"}


def test_structured_outputs_of_vllm(serve: Serve) -> None:
    fleet = ScriptedFleet(facts=PLAIN)
    url = serve(fleet)
    ask(url, extra_body={"structured_outputs": {"choice": ["a", "b"]}})
    ask(url, extra_body={"guided_regex": "[ab]+"})
    kinds = [one.constraint.kind for one in fleet.asked if one.constraint is not None]
    assert kinds == ["choice", "regex"]


def test_messages_are_made_plain(serve: Serve) -> None:
    fleet = ScriptedFleet()
    parts: Any = [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]
    ask(
        serve(fleet),
        messages=[
            {"role": "developer", "content": "Be brief."},
            {"role": "user", "content": parts},
            {"role": "assistant", "content": None, "reasoning": "hm"},
        ],
        extra_body={"continue_final_message": True},
    )
    prompt = fleet.asked[0].prompt
    assert isinstance(prompt, ChatPrompt)
    assert prompt.continue_last
    assert prompt.messages == [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "a\nb"},
        {"role": "assistant", "content": "", "reasoning_content": "hm"},
    ]


def test_the_stop_string_may_be_kept(serve: Serve) -> None:
    from tests.serve import scripted

    class Stopped(scripted.ScriptedAnswer):
        async def __aiter__(self) -> Any:
            async for piece in super().__aiter__():
                yield piece
            assert self.ended is not None
            self.ended = replace(self.ended, stop="END")

    fleet = ScriptedFleet()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(scripted, "ScriptedAnswer", Stopped)
        url = serve(fleet)
        keep = {"include_stop_str_in_output": True}
        answer = ask(url, stop="END", extra_body=keep).choices[0]
        assert answer.message.content == "Hello worldEND"
        assert answer.to_dict()["stop_reason"] == "END"
        assert text_of(stream(url, stop="END", extra_body=keep)) == "Hello worldEND"
        assert text_of(stream(url, stop="END")) == "Hello world"


def test_token_ids_and_prompt_scores(serve: Serve) -> None:
    asked = {"model": "tiny", "messages": [USER], "return_token_ids": True, "prompt_logprobs": 1}
    answer = post(serve(ScriptedFleet()), ROUTE, asked).json()
    assert bytes(answer["prompt_token_ids"]) == b"<user>Hi"
    assert bytes(answer["choices"][0]["token_ids"]) == b"Hello world"
    scores = answer["prompt_logprobs"]
    assert scores[0] is None
    assert scores[1] == {"117": {"logprob": -0.5, "rank": 1, "decoded_token": "u"}}


BAD: list[tuple[Any, str]] = [
    (b"{", ""),
    (b"\xff\xfe", ""),
    (b"[]", ""),
    (b'{"messages": [{"role": "user", "content": "\\ud800"}]}', "surrogate"),
    (b'{"messages": [{"role": "user", "content": NaN}]}', ""),
    (b'{"messages": ' + b"[" * 3000 + b"]" * 3000 + b"}", ""),
    ({"messages": []}, "messages is empty"),
    ({"messages": "Hi"}, "messages"),
    ({"messages": [{"role": "king", "content": "x"}]}, "messages[0].role"),
    ({"messages": [{"role": "user"}]}, "messages[0].content"),
    (
        {"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {}}]}]},
        "only text",
    ),
    ({"messages": [USER], "temperature": "warm"}, "temperature"),
    ({"messages": [USER], "n": 0}, "n:"),
    ({"messages": [USER], "max_tokens": 1, "max_completion_tokens": 2}, "differ"),
    ({"messages": [USER], "top_logprobs": 1}, "needs logprobs"),
    ({"messages": [USER], "stream_options": {"include_usage": True}}, "stream: true"),
    ({"messages": [USER], "logit_bias": {"x": 1}}, "logit_bias"),
    ({"messages": [USER], "logit_bias": {"999": 1}}, "256"),
    ({"messages": [USER], "continue_final_message": True}, "last message"),
    ({"messages": [USER], "tool_choice": "required"}, "tools is not"),
    ({"messages": [USER], "tools": [WEATHER, WEATHER]}, "two functions"),
    ({"messages": [USER], "response_format": {"type": "xml"}}, "response_format"),
    ({"messages": [USER], "functions": [{}]}, "Use tools"),
    ({"messages": [USER], "use_beam_search": True}, "not supported"),
    ({"messages": [USER] * 9}, "at most 8"),
]


@pytest.mark.parametrize(("body", "says"), BAD)
def test_bad_requests_are_refused_in_openais_shape(serve: Serve, body: Any, says: str) -> None:
    fleet = ScriptedFleet()
    url = serve(fleet, max_messages=8)
    answer = post(url, ROUTE, body if isinstance(body, bytes) else {"model": "tiny", **body})
    assert answer.status_code == 400
    error = answer.json()["error"]
    assert set(error) == {"message", "type", "param", "code"}
    assert error["type"] == "invalid_request_error"
    assert says in error["message"]
    assert not fleet.asked


def test_too_long_a_prompt_says_the_numbers(serve: Serve) -> None:
    url = serve(ScriptedFleet())
    long: Any = {"role": "user", "content": "x" * 5000}
    for streams in (False, True):
        with pytest.raises(openai.BadRequestError) as caught:
            client(url).chat.completions.create(model="tiny", messages=[long], stream=streams)
        assert caught.value.code == "context_length_exceeded"
        assert "5,006" in str(caught.value)
        assert "4,096" in str(caught.value)


def test_unknown_fields_are_told_or_refused(serve: Serve) -> None:
    url = serve(ScriptedFleet())
    body = {"model": "tiny", "messages": [USER], "magic": 1, "nothing": None, "b\r\nX: y": 1}
    answer = post(url, ROUTE, body)
    assert answer.status_code == 200
    assert answer.headers["X-PocketLM-Ignored"] == "magic, b??X??y"
    assert post(url, ROUTE, body, **{"X-PocketLM-Strict": "1"}).status_code == 400
    assert post(serve(ScriptedFleet(), strict=True), ROUTE, body).status_code == 400


def test_the_model_may_be_left_out(serve: Serve) -> None:
    url = serve(ScriptedFleet(), models=("tiny",))
    assert post(url, ROUTE, {"messages": [USER]}).json()["model"] == "tiny:latest"
    nobody = post(serve(ScriptedFleet()), ROUTE, {"messages": [USER]})
    assert (nobody.status_code, "model is missing" in nobody.text) == (400, True)


def test_an_unknown_model_is_told_with_those_there_are(serve: Serve) -> None:
    fleet = ScriptedFleet()
    fleet.loaded_names["tiny:latest"] = None
    with pytest.raises(openai.NotFoundError) as caught:
        ask(serve(fleet), model="huge")
    assert caught.value.code == "model_not_found"
    assert "There are: tiny:latest." in str(caught.value)


def test_busy_and_broken_models(serve: Serve) -> None:
    url = serve(ScriptedFleet(Script(refuses=BusyError("too many wait", retry_after=2))))
    for streams in (False, True):
        body = {"model": "tiny", "messages": [USER], "stream": streams}
        answer = post(url, ROUTE, body)
        assert (answer.status_code, answer.headers["Retry-After"]) == (503, "2")
    broken = Script(("Hel",), error=PocketLMError("the engine failed"))
    url = serve(ScriptedFleet(broken))
    assert post(url, ROUTE, {"model": "tiny", "messages": [USER]}).status_code == 500
    with pytest.raises(openai.APIError, match="the engine failed"):
        stream(url)


@pytest.mark.parametrize("n", [1, 3])
def test_a_client_that_leaves_ends_its_requests(serve: Serve, n: int) -> None:
    fleet = ScriptedFleet(Script(("a",) * 2000, delay=0.005))
    url = serve(fleet)
    chunks = client(url).chat.completions.create(model="tiny", messages=[USER], n=n, stream=True)
    next(iter(chunks))
    assert fleet.open == n
    chunks.close()
    with pytest.raises(openai.APITimeoutError):
        client(url).with_options(timeout=0.1).chat.completions.create(
            model="tiny", messages=[USER], n=n
        )
    deadline = time.monotonic() + 5
    while fleet.open and time.monotonic() < deadline:
        time.sleep(0.01)
    assert fleet.open == 0


def test_the_asynchronous_client(serve: Serve) -> None:
    url = serve(ScriptedFleet())

    async def run() -> list[str]:
        async with openai.AsyncOpenAI(base_url=f"{url}/v1", api_key="none") as asking:

            async def one() -> str:
                chunks = await asking.chat.completions.create(
                    model="tiny", messages=[USER], stream=True
                )
                return "".join([c.choices[0].delta.content or "" async for c in chunks])

            return await asyncio.gather(*[one() for _ in range(5)])

    assert asyncio.run(run()) == ["Hello world"] * 5
