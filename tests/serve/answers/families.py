"""Facts of models of each family, and a grammar checker over bytes."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

from llguidance import LLMatcher, LLTokenizer
from tests.serve.scripted import FACTS

from pocketlm.serve.generation import Constraint, ModelFacts

QWEN3 = replace(
    FACTS,
    name="qwen3:0.6b",
    family="qwen3",
    template="{{ tools }}<tool_call>"
    "{% if enable_thinking is defined and enable_thinking is false %}"
    "{{ '<think>\\n\\n</think>' }}{% endif %}",
)
SMOLLM2 = replace(
    FACTS, template="{{ messages }}", capabilities=frozenset({"completion"}), special_texts={}
)
LLAMA3 = replace(
    FACTS,
    template="{{ tools }}",
    capabilities=frozenset({"completion", "tools"}),
    special_texts={"<|python_tag|>": 257},
)
PHI4 = replace(
    FACTS,
    family="phi3",
    template="{{ message['tools'] }}<|tool|>",
    capabilities=frozenset({"completion"}),
    special_texts={"<|tool_call|>": 257, "<|/tool_call|>": 258},
)
GEMMA3 = replace(
    FACTS, family="gemma3", template="{{ messages }}", capabilities=frozenset({"completion"})
)
R1 = replace(
    FACTS,
    family="qwen2",
    template="{{ content.split('</think>')[-1] }}{{ '<think>\\n' }}",
    capabilities=frozenset({"completion"}),
)
FAMILIES = {"qwen3": QWEN3, "smollm2": SMOLLM2, "llama3": LLAMA3, "phi4": PHI4, "gemma3": GEMMA3}


def function(name: str, properties: dict[str, Any] | None = None, **more: Any) -> dict[str, Any]:
    """A tool in OpenAI's shape, all of whose arguments are required."""
    properties = {"city": {"type": "string"}} if properties is None else properties
    schema = {"type": "object", "properties": properties, "required": list(properties)}
    return {"type": "function", "function": {"name": name, "parameters": schema, **more}}


WEATHER = function("weather")
TIME = function("time", {"zone": {"enum": ["utc", "local"]}})


class _Bytes:
    """A vocabulary of the 256 bytes, an end token and some control tokens."""

    is_tokenizer_wrapper = True
    eos_token_id = 256
    bos_token_id = None

    def __init__(self, special: list[str]) -> None:
        self.tokens = [bytes([i]) for i in range(256)] + [b"<eos>", *(t.encode() for t in special)]
        self.special_token_ids = list(range(256, 257 + len(special)))

    def __call__(self, text: str | bytes) -> list[int]:
        return list(text.encode() if isinstance(text, str) else text)


def accepts(constraint: Constraint, text: str, facts: ModelFacts = FACTS) -> bool:
    """Whether a whole answer follows a constraint; control tokens in it are read as such."""
    if constraint.after is not None:
        _, found, text = text.partition(constraint.after)
        if not found:
            return True
    special = sorted(facts.special_texts, key=facts.special_texts.__getitem__)
    matcher = _matcher(constraint, special)
    ids = _ids(text, special)
    return (
        matcher.validate_tokens(ids) == len(ids)
        and matcher.consume_tokens(ids)
        and bool(matcher.is_accepting())
    )


def _matcher(constraint: Constraint, special: list[str]) -> LLMatcher:
    words = _Bytes(special)
    vocabulary = LLTokenizer(words, n_vocab=len(words.tokens), eos_token=256)
    matcher = LLMatcher(vocabulary, grammar(constraint), log_level=0)
    assert not matcher.is_error(), matcher.get_error()
    return matcher


def grammar(constraint: Constraint) -> str:
    """As the engine has it compiled."""
    value = constraint.value
    match constraint.kind:
        case "json":
            return LLMatcher.grammar_from_json_schema(value)
        case "regex":
            return LLMatcher.grammar_from_regex(value)
        case "choice":
            return LLMatcher.grammar_from_lark(f"start: {' | '.join(map(json.dumps, value))}")
    return LLMatcher.grammar_from_lark(value)


def _ids(text: str, special: list[str]) -> list[int]:
    ids: list[int] = []
    at = 0
    while at < len(text):
        token = next((i for i, mark in enumerate(special) if text.startswith(mark, at)), None)
        if token is None:
            ids += text[at].encode()
            at += 1
        else:
            ids.append(257 + token)
            at += len(special[token])
    return ids
