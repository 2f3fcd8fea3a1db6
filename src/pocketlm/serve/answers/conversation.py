"""A conversation with tools, made ready for the model's chat template.

Templates differ in what they know. Most take tools and calls in OpenAI's shape but for one thing:
arguments are objects, not JSON texts. Llama 3's takes one call in a turn. Phi-4-mini's reads tools
from the system message. A template that knows nothing of tools gets them in words, with calls and
results as plain turns, so that any model that chats can be offered functions.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from pocketlm.serve.answers.functions import read_functions
from pocketlm.serve.answers.tools import ToolFormat, tool_format
from pocketlm.serve.generation import ModelFacts

Message = dict[str, Any]


def tool_conversation(
    facts: ModelFacts,
    messages: Sequence[Mapping[str, Any]],
    tools: Sequence[Mapping[str, Any]] | None,
) -> tuple[list[Message], list[dict[str, Any]] | None]:
    """Messages and tools for a ``ChatPrompt``; what is malformed is left to the template's checks.

    Raises:
        RequestError: the tools are malformed.
    """
    read_functions(tools)
    ready = [_with_objects(message) for message in messages]
    plain = [dict(tool) for tool in tools] if tools else None
    form = tool_format(facts)
    if "tools" in facts.capabilities:
        return ready if form.lists_calls else _one_by_one(ready), plain
    ready = _in_words(ready, form)
    if not plain:
        return ready, None
    functions = [tool.get("function", tool) for tool in plain]
    listed = json.dumps(functions, ensure_ascii=False)
    if not form.teach:
        return _beside_system(ready, listed), None
    return _told(ready, form.teach.format(tools=listed)), None


def _with_objects(message: Mapping[str, Any]) -> Message:
    """The message with its calls' arguments as objects."""
    calls = message.get("tool_calls") if isinstance(message, Mapping) else None
    if not isinstance(calls, Sequence) or isinstance(calls, str):
        return dict(message) if isinstance(message, Mapping) else message
    return {**message, "tool_calls": [_call_with_object(call) for call in calls]}


def _call_with_object(call: Any) -> Any:
    function = call.get("function") if isinstance(call, Mapping) else None
    if not isinstance(function, Mapping) or not isinstance(function.get("arguments"), str):
        return call
    try:
        arguments = json.loads(function["arguments"] or "{}")
    except (ValueError, RecursionError):
        return call
    if not isinstance(arguments, dict):
        return call
    return {**call, "function": {**function, "arguments": arguments}}


def _one_by_one(messages: list[Message]) -> list[Message]:
    """Several calls in a turn as a turn for each, with its result behind it."""
    turns: list[Message] = []
    at = 0
    while at < len(messages):
        message = messages[at]
        at += 1
        calls = message.get("tool_calls") if isinstance(message, dict) else None
        if not isinstance(calls, list) or len(calls) < 2:
            turns.append(message)
            continue
        results: list[Message] = []
        while at < len(messages) and _role(messages[at]) == "tool":
            results.append(messages[at])
            at += 1
        for i, call in enumerate(calls):
            named = call.get("id") if isinstance(call, Mapping) else None
            own = [result for result in results if result.get("tool_call_id") == named]
            words = {} if i == 0 else {"content": None}
            turns += [{**message, **words, "tool_calls": [call]}, *own]
            results = [result for result in results if result not in own]
        turns += results
    return turns


def _role(message: Any) -> Any:
    return message.get("role") if isinstance(message, Mapping) else None


def _in_words(messages: list[Message], form: ToolFormat) -> list[Message]:
    """Calls and their results as turns that every template knows."""
    turns: list[Message] = []
    for message in messages:
        role = _role(message)
        if role == "assistant" and message.get("tool_calls"):
            turns.append(_spoken(message, form))
        elif role in ("tool", "function"):
            result = f"<tool_response>\n{_text(message.get('content'))}\n</tool_response>"
            if turns and turns[-1].get("_results"):
                turns[-1]["content"] += "\n" + result
            else:
                turns.append({"role": "user", "content": result, "_results": True})
        else:
            turns.append(message)
    return [{k: v for k, v in turn.items() if k != "_results"} for turn in turns]


def _spoken(message: Message, form: ToolFormat) -> Message:
    """A message with calls as the text that the model wrote."""
    calls = []
    for call in message["tool_calls"]:
        function = call.get("function", call) if isinstance(call, Mapping) else {}
        name = json.dumps(function.get("name"))
        arguments = json.dumps(function.get("arguments") or {}, ensure_ascii=False)
        text = form.call.format(name=name, arguments=arguments)
        calls.append("".join((*form.open_call, text, *form.close_call)))
    text = "".join((*form.before, form.between.join(calls), *form.after))
    content = _text(message.get("content"))
    rest = {key: value for key, value in message.items() if key != "tool_calls"}
    return {**rest, "content": f"{content}\n{text}" if content else text}


def _told(messages: list[Message], words: str) -> list[Message]:
    """The messages with words at the end of the system message, or before the first one.

    No system message is made, because it would take the place of the one that a model comes with.
    """
    if not messages or not isinstance(messages[0], dict):
        return messages
    first, *others = messages
    content = _text(first.get("content"))
    if first.get("role") in ("system", "developer"):
        return [{**first, "content": f"{content}\n\n{words}"}, *others]
    if first.get("role") == "user":
        return [{**first, "content": f"{words}\n\n{content}"}, *others]
    return [{"role": "system", "content": words}, *messages]


def _beside_system(messages: list[Message], listed: str) -> list[Message]:
    """The functions under "tools" of the system message."""
    if messages and messages[0].get("role") == "system":
        return [{**messages[0], "tools": listed}, *messages[1:]]
    system = {"role": "system", "content": "You are a helpful assistant with some tools."}
    return [{**system, "tools": listed}, *messages]


def _text(content: Any) -> str:
    if isinstance(content, str):
        return content
    parts = content if isinstance(content, list) else []
    return "\n".join(p["text"] for p in parts if isinstance(p, Mapping) and "text" in p)
