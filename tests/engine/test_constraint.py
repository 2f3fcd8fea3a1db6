"""Constrained answers: whatever the model would say, what comes is what was asked for."""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("llguidance")

from pocketlm.engine.constraint import Grammars, masks_for
from pocketlm.engine.engine import Engine, EngineConfig
from pocketlm.engine.request import Request
from pocketlm.engine.sampling import SamplingParams
from pocketlm.errors import RequestError, UnsupportedError
from pocketlm.models import open_model
from pocketlm.text import Tokenizer

from .mock import MockRunner
from .speculation.guessing import Guessing, knowing_guess, random_guess
from .tiny_file import write_tiny_model

SCHEMA = {
    "type": "object",
    "properties": {"name": {"type": "string", "maxLength": 6}, "age": {"enum": [7, 12]}},
    "required": ["name", "age"],
    "additionalProperties": False,
}


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Tokenizer:
    path: Path = write_tiny_model(tmp_path_factory.mktemp("constraint") / "tiny.gguf")
    spec = open_model(path)
    source = spec.tokenizer_source
    assert not isinstance(source, Path)
    return Tokenizer.from_gguf(source, spec.architecture)


@pytest.fixture(scope="module")
def grammars(tokenizer: Tokenizer) -> Grammars:
    return Grammars(tokenizer, tokenizer.vocab_size + 4)  # models pad their vocabulary


def make_engine(
    tokenizer: Tokenizer, *, speculator: Guessing | None = None, **options: int
) -> Engine:
    runner = MockRunner(vocab=tokenizer.vocab_size + 4, max_rows=16, **options)
    return Engine(runner, EngineConfig(context=160, eos_ids=tokenizer.eos_ids), speculator)


def params(seed: int = 1, **options: object) -> SamplingParams:
    return SamplingParams(temperature=1, top_k=0, top_p=1, min_p=0, seed=seed, **options)  # type: ignore[arg-type]


def finish(engine: Engine) -> None:
    while engine.busy:
        engine.step()


def text_of(tokenizer: Tokenizer, request: Request) -> str:
    return tokenizer.decode(request.output)


@pytest.mark.parametrize("seed", range(5))
def test_json_is_what_its_schema_says(tokenizer: Tokenizer, grammars: Grammars, seed: int) -> None:
    engine = make_engine(tokenizer)
    request = engine.add([5], params(seed), constraint=grammars.constraint("json", SCHEMA))
    finish(engine)
    assert request.finish_reason == "stop"
    answer = json.loads(text_of(tokenizer, request))
    assert set(answer) == {"name", "age"}
    assert len(answer["name"]) <= 6
    assert answer["age"] in (7, 12)


@pytest.mark.parametrize(
    ("kind", "value", "expected"),
    [
        ("regex", "[a-c]{3}-[0-9]{2}", "[a-c]{3}-[0-9]{2}"),
        ("choice", ["yes", 'say "no"', "ünsure"], r'yes|say "no"|ünsure'),
        ("lark", 'start: "a" middle "z"\nmiddle: /[0-9]/ | "x" middle', r"ax*[0-9]z"),
    ],
)
def test_other_kinds(
    tokenizer: Tokenizer, grammars: Grammars, kind: str, value: object, expected: str
) -> None:
    engine = make_engine(tokenizer)
    requests = [
        engine.add([5], params(seed, max_tokens=100), constraint=grammars.constraint(kind, value))
        for seed in range(6)
    ]
    finish(engine)
    for request in requests:
        assert re.fullmatch(expected, text_of(tokenizer, request)), text_of(tokenizer, request)
        assert request.finish_reason == "stop"


def test_the_model_may_end_where_the_grammar_may(tokenizer: Tokenizer, grammars: Grammars) -> None:
    engine = make_engine(tokenizer)
    ends = [
        engine.add([5], params(seed, max_tokens=40), constraint=grammars.constraint("regex", "a+"))
        for seed in range(8)
    ]
    finish(engine)
    for request in ends:
        assert re.fullmatch("a+", text_of(tokenizer, request))
        if request.finish_reason == "stop":
            assert request.output[-1] in tokenizer.eos_ids
    assert {request.finish_reason for request in ends} == {"stop"}


def test_min_tokens_keeps_an_answer_going_unless_it_is_complete(
    tokenizer: Tokenizer, grammars: Grammars
) -> None:
    engine = make_engine(tokenizer)
    options = params(min_tokens=20, max_tokens=30)
    longer = engine.add([5], options, constraint=grammars.constraint("regex", "a+"))
    whole = engine.add([5], options, constraint=grammars.constraint("choice", ["yes"]))
    finish(engine)
    assert len(longer.output) >= 20
    assert text_of(tokenizer, whole) == "yes"


def free_then_constrained(tokenizer: Tokenizer, request: Request) -> tuple[str, str]:
    text = b"".join(tokenizer.token_bytes(token) for token in request.output)
    before, _, behind = text.partition(b"q")
    return before.decode(errors="replace"), behind.decode()


def test_the_answer_is_free_until_a_text(tokenizer: Tokenizer, grammars: Grammars) -> None:
    engine = make_engine(tokenizer)
    constraint = grammars.constraint("regex", "[xy]{4}", "q")
    request = engine.add([5], params(3, ignore_eos=True, max_tokens=150), constraint=constraint)
    plain = engine.add([5], params(3, ignore_eos=True, max_tokens=150))
    finish(engine)
    free, constrained = free_then_constrained(tokenizer, request)
    assert re.fullmatch("[xy]{4}", constrained)
    assert free
    count = len(request.output) - 4
    assert request.output[:count] == plain.output[:count]


@pytest.mark.parametrize("wrong", [None, 0.0, 0.3])
@pytest.mark.parametrize("after", [None, "q"])
def test_guesses_change_nothing(
    tokenizer: Tokenizer, grammars: Grammars, after: str | None, wrong: float | None
) -> None:
    def add(engine: Engine, seed: int) -> Request:
        options = params(seed, ignore_eos=True, max_tokens=120, presence_penalty=0.5)
        constraint = grammars.constraint("json", SCHEMA, after)
        return engine.add([5, seed], options, constraint=constraint)

    alone: dict[int, list[int]] = {}
    for seed in range(4):
        engine = make_engine(tokenizer)
        request = add(engine, seed)
        finish(engine)
        alone[seed] = request.tokens
    vocab = tokenizer.vocab_size
    guess = random_guess(1, vocab)
    if wrong is not None:
        guess = knowing_guess(lambda r: alone[r.tokens[1]], wrong=wrong, vocab=vocab)
    guessing = Guessing(guess)
    # Few pages, so that some are preempted.
    engine = make_engine(tokenizer, speculator=guessing, pages=50, max_tokens=32)
    requests = [add(engine, seed) for seed in range(4)]
    finish(engine)
    assert [request.tokens for request in requests] == list(alone.values())
    if wrong == 0:
        # The token that completes an answer is no guess that was worth it.
        assert guessing.made > guessing.right >= guessing.made - len(requests)


def test_masks_of_several_are_each_ones_own(tokenizer: Tokenizer, grammars: Grammars) -> None:
    def ids(text: str) -> list[int]:
        return tokenizer.encode(text)

    def allowed(mask: np.ndarray) -> set[int]:
        return set(np.flatnonzero(np.unpackbits(mask.view(np.uint8), bitorder="little")).tolist())

    one = grammars.constraint("regex", "ab[cd]")
    two = grammars.constraint("choice", ["xx"])
    free = grammars.constraint("choice", ["y"], "<")
    later = grammars.constraint("choice", ["y"], "<")
    assert list(one.possible(ids("abz"))) == ids("ab")
    assert list(later.possible(ids("a<y"))) == ids("a<")
    asked = [(one, ids("ab")), (two, []), (free, ids("a")), (later, ids("a<"))]
    first, second, third, fourth = masks_for(asked)
    assert third is None
    assert first is not None
    assert second is not None
    assert fourth is not None
    assert [allowed(row) for row in first] == [set(ids("a")), set(ids("b")), set(ids("cd"))]
    assert [allowed(row) for row in second] == [set(ids("x"))]
    everything = set(range(32 * fourth.shape[1]))
    assert [allowed(row) for row in fourth] == [everything, everything, set(ids("y"))]
    (alone,) = masks_for([(two, [])])  # asking has changed nothing
    assert alone is not None
    assert (alone == second).all()


@pytest.mark.parametrize(
    ("kind", "value", "message"),
    [
        ("json", {"type": "strin"}, "json constraint .* Invalid type: strin"),
        ("json", {"$ref": "http://example.com/schema.json"}, "does not fetch"),
        ("json", [1], "a JSON schema is an object, found list"),
        ("json", {"const": {1, 2}}, "no JSON"),
        ("json", {"enum": ["x" * 300_000]}, r"json constraint has 300,0\d\d bytes"),
        ("regex", "((", "unclosed group"),
        ("regex", 5, "regex constraint is a text, found int"),
        ("regex", "a" * 300_000, "has 300,000 bytes, at most 262,144"),
        ("lark", "start: nothing", "unknown name"),
        ("choice", [], "choice is between texts"),
        ("choice", ["a", ""], "none of them empty"),
        ("choice", "ab", "expected a list"),
        ("choice", ["a"] * 10_001, "10,001 choices"),
        ("xml", "<a/>", "the constraint is 'xml', expected json"),
    ],
)
def test_a_grammar_that_is_wrong_says_why(
    grammars: Grammars, kind: str, value: object, message: str
) -> None:
    with pytest.raises(RequestError, match=message):
        grammars.constraint(kind, value)


def test_a_schema_is_only_so_deep(grammars: Grammars) -> None:
    schema: dict[str, object] = {"type": "string"}
    for _ in range(40):
        schema = {"type": "array", "items": schema}
    grammars.constraint("json", schema)
    for _ in range(5_000):
        schema = {"type": "array", "items": schema}
    with pytest.raises(RequestError, match="more than 64 levels deep"):
        grammars.constraint("json", schema)


@pytest.mark.parametrize("after", ["", 5])
def test_after_is_a_text(grammars: Grammars, after: object) -> None:
    with pytest.raises(RequestError, match="after is"):
        grammars.constraint("regex", "a", after)  # type: ignore[arg-type]


def test_a_grammar_that_gets_too_complex_ends_that_request_alone(
    tokenizer: Tokenizer, grammars: Grammars
) -> None:
    engine = make_engine(tokenizer)
    heavy = grammars.constraint("regex", "(a?){5000}a{5000}")
    request = engine.add([5], params(max_tokens=20), constraint=heavy)
    other = engine.add([6], params(max_tokens=20, ignore_eos=True))
    finish(engine)
    assert request.finish_reason == "error"
    assert isinstance(request.error, RequestError)
    assert len(other.output) == 20


def test_without_the_library_it_is_said(
    tokenizer: Tokenizer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "llguidance", None)
    with pytest.raises(UnsupportedError, match="needs the package llguidance"):
        Grammars(tokenizer, 300)
