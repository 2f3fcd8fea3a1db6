"""A worker process through a fleet of one model: all that can be asked of a model."""

from __future__ import annotations

import asyncio
import json
import math
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from pocketlm.errors import ContextError, PocketLMError, RequestError
from pocketlm.serve.generation import (
    ChatPrompt,
    Constraint,
    FillPrompt,
    Generation,
    Prompt,
    ServedModel,
    Started,
    TextPrompt,
    TokenPrompt,
)
from pocketlm.store import Setup

from .tiny_fleet import ask, tiny_fleet, tiny_store, tokens_of

SAY_HI = ChatPrompt(messages=[{"role": "user", "content": "hi"}])


@pytest.fixture
def with_model(tmp_path: Path) -> Callable[[Callable[[ServedModel], Awaitable[None]]], None]:
    """Runs a test over a loaded model."""

    def run(test: Callable[[ServedModel], Awaitable[None]]) -> None:
        async def work() -> None:
            async with tiny_fleet(tiny_store(tmp_path, "a")) as fleet, fleet.use("a") as model:
                await test(model)
                (loaded,) = fleet.loaded()
                assert (loaded.running, loaded.waiting) == (0, 0)

        asyncio.run(asyncio.wait_for(work(), 60))

    return run


WithModel = Callable[[Callable[[ServedModel], Awaitable[None]]], None]


async def whole(model: ServedModel, generation: Generation) -> tuple[Started, str, Any]:
    async with model.answer(generation) as answer:
        text = "".join([piece.text async for piece in answer])
        assert answer.ended is not None
        return answer.started, text, answer.ended


def test_what_a_model_is(with_model: WithModel) -> None:
    async def test(model: ServedModel) -> None:
        facts = model.facts
        assert (facts.family, facts.quantization, facts.context) == ("llama", "F32", 256)
        assert (facts.vocab, facts.width, len(facts.digest)) == (260, 64, 64)
        assert facts.special_texts["<|im_end|>"] == 259
        assert facts.template is not None
        assert facts.capabilities == {"completion", "embedding"}

    with_model(test)


def test_an_answer_says_where_it_began_and_what_it_took(with_model: WithModel) -> None:
    async def test(model: ServedModel) -> None:
        started, text, ended = await whole(
            model, Generation(prompt=SAY_HI, options={"max_tokens": 5, "seed": 7, "min_tokens": 5})
        )
        assert started.prompt_tail.endswith("<|im_start|>assistant\n")
        assert len(started.prompt_ids) == started.prompt_tokens == ended.prompt_tokens
        assert started.seed == 7
        assert (ended.reason, ended.completion_tokens) == ("length", 5)
        assert text
        again = await whole(
            model, Generation(prompt=SAY_HI, options={"max_tokens": 5, "seed": 7, "min_tokens": 5})
        )
        assert again[1] == text

    with_model(test)


def test_answers_are_the_same_beside_others(with_model: WithModel) -> None:
    async def test(model: ServedModel) -> None:
        alone = [await tokens_of(model, ask(text, tokens=30)) for text in "abcdef"]
        together = await asyncio.gather(
            *(tokens_of(model, ask(text, tokens=30)) for text in "abcdef")
        )
        assert together == alone

    with_model(test)


REFUSED: list[tuple[Generation, type[PocketLMError], str]] = [
    (ask("x" * 300), ContextError, "300 tokens"),
    (ask(tokens=255), ContextError, "the context has 256"),
    (ask(context=257), ContextError, "runs with 256"),
    (ask(context=6), ContextError, "the context has 6"),
    (ask(options={"temperature": -1}), RequestError, "temperature"),
    (ask(options={"heat": 1}), RequestError, "heat"),
    (ask(options={"logit_bias": {"many": 1}}), RequestError, "logit_bias"),
    (ask("\ud800"), RequestError, "Unicode"),
    (ask(constraint=Constraint(kind="regex", value="(")), RequestError, "regex"),
    (Generation(prompt=TokenPrompt(tokens=[260])), RequestError, "id 260"),
    (Generation(prompt=TokenPrompt(tokens=[])), RequestError, "empty"),
    (Generation(prompt=ChatPrompt(messages=[])), RequestError, "at least one message"),
    (Generation(prompt=ChatPrompt(messages=[{"role": "x"}])), RequestError, "role"),
    (Generation(prompt=FillPrompt(prefix="a", suffix="b")), RequestError, "middle"),
    (Generation(prompt=ChatPrompt(messages=["hi"])), RequestError, "object"),  # type: ignore
]


def test_what_makes_no_sense_is_refused_before_it_begins(with_model: WithModel) -> None:
    async def test(model: ServedModel) -> None:
        for generation, error, message in REFUSED:
            with pytest.raises(error, match=message):
                await whole(model, generation)

    with_model(test)


def test_a_template_of_one_request(with_model: WithModel) -> None:
    async def test(model: ServedModel) -> None:
        messages = [{"role": "user", "content": "hi"}]
        own = ChatPrompt(messages=messages, template="{{ messages[0]['content'] }}!")
        tokens, _ = await model.tokenize(own)
        assert await model.detokenize(tokens) == "hi!"
        assert await model.tokenize(SAY_HI) != await model.tokenize(own)
        with pytest.raises(RequestError, match="the template cannot be used"):
            await model.tokenize(ChatPrompt(messages=messages, template="{% if %}"))

    with_model(test)


def test_a_shorter_context_of_one_request(with_model: WithModel) -> None:
    async def test(model: ServedModel) -> None:
        _, _, ended = await whole(
            model, ask("ab", tokens=50, context=12, overflow="stop", options={})
        )
        assert (ended.reason, ended.completion_tokens) == ("length", 10)
        started, _, _ = await whole(model, ask("x" * 300, tokens=6, overflow="truncate"))
        assert started.dropped_tokens == 50
        assert started.prompt_tokens == 250

    with_model(test)


def test_scores(with_model: WithModel) -> None:
    async def test(model: ServedModel) -> None:
        generation = ask("abc", tokens=2, prompt_logprobs=1, options={"logprobs": 2})
        async with model.answer(generation) as answer:
            scores = answer.started.prompt_scores
            assert scores is not None
            assert scores[0] is None
            assert [one.chosen.data for one in scores[1:] if one] == [b"b", b"c"]
            found = [score async for piece in answer for score in piece.scores or ()]
        assert len(found) == 2
        for score in found:
            assert score.chosen == score.best[0]
            assert len(score.best) == 2
            assert -math.inf < score.chosen.logprob <= 0

    with_model(test)


def test_constraints(with_model: WithModel) -> None:
    async def test(model: ServedModel) -> None:
        choice = Constraint(kind="choice", value=["left", "right"])
        options = {"max_tokens": 50, "temperature": 2.0}
        generation = Generation(prompt=SAY_HI, options=options, constraint=choice)
        _, text, ended = await whole(model, generation)
        assert text in ("left", "right")
        assert ended.reason == "stop"
        schema = {"type": "object", "properties": {"a": {"type": "boolean"}}, "required": ["a"]}
        schema["additionalProperties"] = False
        json_form = Constraint(kind="json", value=schema)
        generation = Generation(prompt=SAY_HI, options=options, constraint=json_form)
        assert isinstance(json.loads((await whole(model, generation))[1])["a"], bool)

    with_model(test)


@pytest.mark.parametrize(
    ("prompt", "text"),
    [
        (TextPrompt(text="zq!"), "zq!"),
        (SAY_HI, "<|im_start|>user\nhi<|im_end|>\n<|im_start|>assistant\n"),
        (
            ChatPrompt(
                messages=[*SAY_HI.messages, {"role": "assistant", "content": "So"}],
                continue_last=True,
            ),
            "<|im_start|>user\nhi<|im_end|>\n<|im_start|>assistant\nSo",
        ),
        (TokenPrompt(tokens=[256, 259]), "zq<|im_end|>"),
    ],
    ids=["text", "chat", "continued", "tokens"],
)
def test_text_to_tokens_and_back(with_model: WithModel, prompt: Prompt, text: str) -> None:
    async def test(model: ServedModel) -> None:
        tokens, data = await model.tokenize(prompt)
        assert b"".join(data).decode() == text
        assert await model.detokenize(tokens) == text
        assert await model.detokenize([]) == ""
        with pytest.raises(RequestError, match="id 300"):
            await model.detokenize([300])

    with_model(test)


def test_embeddings_come_between_the_steps_of_answers(with_model: WithModel) -> None:
    async def test(model: ServedModel) -> None:
        alone = await model.embed(["hello", [1, 2, 3]])
        assert alone.tokens == [5, 3]
        for vector in alone.vectors:
            assert math.isclose(sum(x * x for x in vector), 1.0, rel_tol=1e-5)
        beside, tokens, other = await asyncio.gather(
            model.embed(["hello", [1, 2, 3]]), tokens_of(model, ask(tokens=60)), model.embed(["x"])
        )
        assert beside == alone
        assert len(tokens) == 60
        assert other.tokens == [1]
        with pytest.raises(ContextError, match="300 tokens"):
            await model.embed(["x" * 300])
        assert (await model.embed(["x" * 300], truncate=True)).tokens == [256]
        with pytest.raises(RequestError):
            await model.embed([""])
        with pytest.raises(RequestError):
            await model.embed([[260]])

    with_model(test)


def test_a_request_may_be_given_up_at_any_moment(with_model: WithModel) -> None:
    async def test(model: ServedModel) -> None:
        for delay in (0, 0.001, 0.005, 0.02):
            works: list[Awaitable[Any]] = [
                whole(model, ask(tokens=200)),
                model.embed(["hello"] * 20),
                model.tokenize(SAY_HI),
            ]
            tasks = [asyncio.ensure_future(work) for work in works]
            await asyncio.sleep(delay)
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
        assert len(await tokens_of(model, ask())) == 8

    with_model(test)


def test_what_the_models_maker_set_counts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    setup = Setup(system="Be kind.", options={"max_tokens": 3, "ignore_eos": True}, context=100)

    async def work() -> None:
        store = tiny_store(tmp_path, "a")
        monkeypatch.setattr(store, "setup", lambda model: setup)
        async with tiny_fleet(store) as fleet, fleet.use("a") as model:
            tokens, _ = await model.tokenize(SAY_HI)
            assert "Be kind." in await model.detokenize(tokens)
            assert model.facts.context == 100
            for options, count in (({}, 3), ({"max_tokens": 5}, 5), ({"max_tokens": None}, 3)):
                generation = Generation(prompt=SAY_HI, options=options)
                assert len(await tokens_of(model, generation)) == count

    asyncio.run(asyncio.wait_for(work(), 60))
