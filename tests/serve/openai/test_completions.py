"""Plain completions as the official client and evaluation harnesses drive them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from openai.types import Completion
from tests.serve.openai.clients import client, post
from tests.serve.scripted import FACTS, Script, ScriptedFleet

from pocketlm.serve.generation import FillPrompt, Scored, TextPrompt, TokenPrompt, TokenScore
from pocketlm.serve.openai.logprobs import CompletionLogprobs, token_text

ROUTE = "/v1/completions"
Serve = Callable[..., str]


def ask(url: str, prompt: Any = "Hi", **more: Any) -> Completion:
    return client(url).completions.create(model="tiny", prompt=prompt, **more)


def test_a_text_is_continued(serve: Serve) -> None:
    fleet = ScriptedFleet()
    raw = post(serve(fleet), ROUTE, {"model": "tiny", "prompt": "Hi", "logprobs": 2}).json()
    answer = Completion.model_validate(raw, strict=True)
    (choice,) = answer.choices
    assert (choice.text, choice.finish_reason) == ("Hello world", "stop")
    assert choice.logprobs is not None
    assert choice.logprobs.tokens == list("Hello world")
    assert choice.logprobs.text_offset == list(range(11))
    assert choice.logprobs.top_logprobs is not None
    assert choice.logprobs.top_logprobs[0] == {"H": -0.5, "I": -1.5}
    assert fleet.asked[0].options["max_tokens"] == 16
    assert fleet.asked[0].prompt == TextPrompt(text="Hi")


@pytest.mark.parametrize(
    ("prompt", "asked"),
    [
        ("ab", ["ab"]),
        (["ab", "c"], ["ab", "c"]),
        ([97, 98], [[97, 98]]),
        ([[97, 98], [99]], [[97, 98], [99]]),
    ],
)
def test_prompts_are_texts_or_tokens_one_or_several(
    serve: Serve, prompt: Any, asked: list[Any]
) -> None:
    fleet = ScriptedFleet()
    answer = ask(serve(fleet), prompt, n=2, echo=True)
    found = [p.text if isinstance(p := one.prompt, TextPrompt) else p for one in fleet.asked]
    tokens = [list(p.tokens) if isinstance(p, TokenPrompt) else p for p in found]
    assert sorted(map(str, tokens)) == sorted(map(str, asked * 2))
    texts = [one if isinstance(one, str) else bytes(one).decode() for one in asked]
    assert [choice.text for choice in answer.choices] == [
        f"{text}Hello world" for text in texts for _ in range(2)
    ]
    assert answer.usage is not None
    assert answer.usage.prompt_tokens == sum(map(len, texts))


@pytest.mark.parametrize("prompt", ["Hi!", [72, 105, 33]])
@pytest.mark.parametrize("streams", [False, True])
def test_the_prompt_is_scored_as_a_harness_asks(serve: Serve, prompt: Any, streams: bool) -> None:
    url = serve(ScriptedFleet())
    asked: dict[str, Any] = {"echo": True, "logprobs": 1, "max_tokens": 1, "temperature": 0}
    if streams:
        chunks = list(
            client(url).completions.create(model="tiny", prompt=prompt, stream=True, **asked)
        )
        records = [c.choices[0].logprobs for c in chunks if c.choices[0].logprobs is not None]
        text = "".join(c.choices[0].text for c in chunks)
    else:
        choice = ask(url, prompt, **asked).choices[0]
        assert choice.logprobs is not None
        records, text = [choice.logprobs], choice.text
    assert text == "Hi!H"
    assert [x for r in records for x in r.tokens or ()] == ["H", "i", "!", "H"]
    assert [x for r in records for x in r.token_logprobs or ()] == [None, -0.5, -0.5, -0.5]
    assert [x for r in records for x in r.text_offset or ()] == [0, 1, 2, 3]
    assert [x for r in records for x in r.top_logprobs or ()][:2] == [None, {"i": -0.5}]


def test_the_prompt_alone_may_be_scored(serve: Serve) -> None:
    for streams in (False, True):
        body = {"model": "tiny", "prompt": "Hi", "max_tokens": 0, "echo": True, "stream": streams}
        answer = post(serve(ScriptedFleet()), ROUTE, {**body, "logprobs": 0})
        assert answer.status_code == 200
        assert '"text":"Hi"' in answer.text
        assert "Hello" not in answer.text
    whole = post(serve(ScriptedFleet()), ROUTE, {**body, "stream": False}).json()
    assert whole["usage"]["completion_tokens"] == 0
    assert whole["choices"][0]["finish_reason"] == "length"


def test_a_gap_is_filled_where_the_model_can(serve: Serve) -> None:
    fleet = ScriptedFleet()
    ask(serve(fleet), "def f(", suffix="return x")
    assert fleet.asked[0].prompt == FillPrompt(prefix="def f(", suffix="return x")
    unable = replace(FACTS, capabilities=frozenset({"completion"}))
    answer = post(
        serve(ScriptedFleet(facts=unable)), ROUTE, {"model": "tiny", "prompt": "a", "suffix": "b"}
    )
    assert (answer.status_code, "cannot fill gaps" in answer.text) == (400, True)


def test_a_stream_says_the_same(serve: Serve) -> None:
    url = serve(ScriptedFleet(Script(("Hel", "lo"))))
    options: Any = {"include_usage": True, "continuous_usage_stats": True}
    for more in ({}, {"stream_options": options}, {"extra_body": {"return_token_ids": True}}):
        chunks = list(
            client(url).completions.create(
                model="tiny",
                prompt=["a", "bc"],
                stream=True,
                **more,  # type: ignore[arg-type]
            )
        )
        for index in (0, 1):
            mine = [c.choices[0] for c in chunks if c.choices and c.choices[0].index == index]
            assert "".join(choice.text for choice in mine) == "Hello"
            assert mine[-1].finish_reason == "stop"
    usage = list(ask(url, stream=True, stream_options={"include_usage": True}))[-1].usage  # type: ignore[call-overload]
    assert (usage.prompt_tokens, usage.completion_tokens) == (2, 5)


@pytest.mark.parametrize(
    ("body", "says"),
    [
        ({"prompt": []}, "prompt"),
        ({"prompt": [[]]}, "prompt"),
        ({"prompt": ["a", 1]}, "prompt"),
        ({"prompt": [256]}, "the model has 256"),
        ({"prompt": [-1]}, "prompt"),
        ({"prompt": "a", "best_of": 3}, "best_of"),
        ({"prompt": "a", "max_tokens": 0}, "max_tokens 0"),
        ({"prompt": "a", "suffix": "b", "echo": True}, "do not go together"),
        ({"prompt": [1], "suffix": "b"}, "a prompt that is a text"),
        ({"prompt": ["a"] * 9, "n": 64}, "576 answers"),
        ({}, "prompt"),
    ],
)
def test_bad_requests_are_refused(serve: Serve, body: dict[str, Any], says: str) -> None:
    answer = post(serve(ScriptedFleet()), ROUTE, {"model": "tiny", **body})
    assert answer.status_code == 400
    assert says in answer.json()["error"]["message"]


def test_the_chosen_token_is_among_the_best_and_parts_of_characters_differ() -> None:
    euro = "€".encode()
    chosen = TokenScore(1, euro[:2], -3.0)
    best = (TokenScore(2, b"a", -0.1), TokenScore(3, euro[1:], -1.0), TokenScore(4, b"b", -2.0))
    record = CompletionLogprobs(2).add([Scored(chosen, best)])
    assert record["tokens"] == ["bytes:\\xe2\\x82"]
    assert record["top_logprobs"] == [
        {"a": -0.1, "bytes:\\x82\\xac": -1.0, "bytes:\\xe2\\x82": -3.0}
    ]
    assert token_text(euro) == "€"
