"""What goes over the channel comes back as it was."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest

from pocketlm.errors import (
    BusyError,
    CapacityError,
    ContextError,
    ModelFileError,
    NotFoundError,
    PocketLMError,
)
from pocketlm.serve.generation import (
    ChatPrompt,
    Constraint,
    FillPrompt,
    Generation,
    Prompt,
    TextPrompt,
    TokenPrompt,
)
from pocketlm.serve.wire import (
    error_record,
    generation_record,
    read_error,
    read_generation,
    read_scored,
    read_vector,
    score_record,
    vector_record,
)

PROMPTS: list[Prompt] = [
    ChatPrompt(messages=[{"role": "user", "content": "hi"}], tools=[{"type": "function"}]),
    ChatPrompt(messages=[], variables={"enable_thinking": False}, continue_last=True),
    TextPrompt(text="a", add_special=False),
    TokenPrompt(tokens=[1, 2]),
    FillPrompt(prefix="a", suffix="b"),
]


@pytest.mark.parametrize("prompt", PROMPTS, ids=lambda prompt: type(prompt).__name__)
def test_requests(prompt: Prompt) -> None:
    asked = Generation(
        prompt=prompt,
        options={"temperature": 0.5, "logit_bias": {7: -math.inf, 8: 1.5}, "stop": ["a"]},
        constraint=Constraint(kind="json", value={"type": "object"}, after="</think>"),
        context=100,
        overflow="truncate",
        keep_special=True,
        prompt_logprobs=3,
    )
    assert read_generation(json.loads(json.dumps(generation_record(asked)))) == asked


@pytest.mark.parametrize(
    "error",
    [
        ContextError("too long", hint="Shorten it."),
        ModelFileError("broken", path=Path("m.gguf"), offset=12),
        NotFoundError("not here"),
        CapacityError("no memory"),
        BusyError("busy"),
    ],
    ids=lambda error: type(error).__name__,
)
def test_errors(error: PocketLMError) -> None:
    again = read_error(json.loads(json.dumps(error_record(error))))
    assert type(again) is type(error)
    assert str(again) == str(error)


@pytest.mark.parametrize("type_", ["SystemExit", "Path", "annotations", "", None, 3])
def test_a_strange_error_is_a_plain_one(type_: object) -> None:
    error = read_error({"type": type_, "message": "odd"})
    assert type(error) is PocketLMError


def test_scores_keep_bytes_that_are_no_text() -> None:
    scored = read_scored([score_record(5, -0.5, b"\xff\x00"), score_record(6, -1.0, b"a")])
    assert scored.chosen.data == b"\xff\x00"
    assert [one.id for one in scored.best] == [6]


def test_vectors() -> None:
    from array import array

    assert read_vector(vector_record(array("f", [0.5, -2.0]).tobytes())) == [0.5, -2.0]
