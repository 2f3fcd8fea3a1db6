"""A conversation in OpenAI's shape, checked, and made plain for chat templates."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from pocketlm.errors import RequestError

Message = dict[str, Any]

_ROLES = ("system", "developer", "user", "assistant", "tool", "function")
_TEXTS = {"text": "text", "input_text": "text", "output_text": "text", "refusal": "refusal"}


def plain_messages(messages: Sequence[Mapping[str, Any]], most: int) -> list[Message]:
    """The messages with texts as their content and the roles that templates know.

    Raises:
        RequestError: there are none or more than ``most``, or one is malformed or holds more than
            text; the message says which.
    """
    if not messages:
        raise RequestError("messages is empty")
    if len(messages) > most:
        raise RequestError(f"messages has {len(messages):,} entries, at most {most:,} can be")
    return [_plain(message, f"messages[{i}]") for i, message in enumerate(messages)]


def _plain(message: Mapping[str, Any], where: str) -> Message:
    role = message.get("role")
    if role not in _ROLES:
        raise RequestError(f"{where}.role is {role!r:.60}, expected one of {', '.join(_ROLES)}")
    content = message.get("content")
    calls = message.get("tool_calls")
    if content is None and role != "assistant":
        raise RequestError(f"{where}.content is missing")
    plain = {**message, "role": "system" if role == "developer" else role}
    plain["content"] = text_of(content, f"{where}.content")
    if "tool_calls" in plain:
        if calls:
            _check_calls(calls, f"{where}.tool_calls")
        else:
            del plain["tool_calls"]
    thought = plain.pop("reasoning", None)
    if isinstance(thought, str):
        plain.setdefault("reasoning_content", thought)
    return plain


def text_of(content: Any, where: str) -> str:
    """The text of a content: a text, or a list of parts that are texts, joined by line breaks."""
    if content is None:
        return ""
    if isinstance(content, str):
        return content
    if not isinstance(content, list):
        raise RequestError(f"{where} should be a text or a list of parts")
    texts = []
    for i, part in enumerate(content):
        kind = part.get("type") if isinstance(part, Mapping) else None
        text = part.get(_TEXTS[kind]) if isinstance(kind, str) and kind in _TEXTS else None
        if not isinstance(text, str):
            raise RequestError(f"{where}[{i}].type is {kind!r:.60}, only text can be read here")
        texts.append(text)
    return "\n".join(texts)


def _check_calls(calls: Any, where: str) -> None:
    if not isinstance(calls, list):
        raise RequestError(f"{where} should be a list")
    for i, call in enumerate(calls):
        function = call.get("function") if isinstance(call, Mapping) else None
        if not isinstance(function, Mapping) or not isinstance(function.get("name"), str):
            raise RequestError(f"{where}[{i}].function.name is missing")
        if not isinstance(function.get("arguments", ""), str | Mapping):
            raise RequestError(f"{where}[{i}].function.arguments should be JSON, as a text")
