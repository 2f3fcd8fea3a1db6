"""Messages of a conversation, checked and reduced to plain data before a template sees them.

A template is foreign code, so nothing with methods of its own reaches it: strings, numbers, lists
and dicts only. Shapes are OpenAI's, as transformers takes them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from pocketlm.errors import RequestError

#: Who may speak. Templates build control tokens out of roles (`'<|' + role + '|>'`), so a role is
#: one of these words and never free text.
ROLES = frozenset(
    {"system", "developer", "user", "assistant", "model", "tool", "function", "ipython"}
)

# Names that a message's reasoning goes by; templates read the first or the second.
_REASONING = ("reasoning_content", "thinking", "reasoning")

_MAX_DEPTH = 64


def check_messages(messages: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """A plain copy of `messages`, without None values, reasoning under both its names.

    Raises:
        RequestError: no messages, or one that is malformed; the message says which.
    """
    if isinstance(messages, str | Mapping) or not isinstance(messages, Sequence):
        raise RequestError(f"messages should be a list, found {type(messages).__name__}")
    if not messages:
        raise RequestError("a conversation needs at least one message")
    return [_check_message(message, f"messages[{i}]") for i, message in enumerate(messages)]


def _check_message(message: object, where: str) -> dict[str, Any]:
    if not isinstance(message, Mapping):
        raise RequestError(f"{where} should be an object with role and content")
    checked = {key: value for key, value in plain_data(message).items() if value is not None}
    role = checked.get("role")
    if role not in ROLES:
        raise RequestError(f"{where}.role is {role!r}, not one of {', '.join(sorted(ROLES))}")
    content = checked.get("content")
    calls = checked.get("tool_calls")
    if content is None and not calls and not any(key in checked for key in _REASONING):
        raise RequestError(f"{where} has no content")
    if isinstance(content, list):
        checked["content"] = [
            _check_part(part, f"{where}.content[{i}]") for i, part in enumerate(content)
        ]
    elif content is not None and not isinstance(content, str):
        raise RequestError(f"{where}.content should be text or a list of text parts")
    if calls is not None:
        _check_calls(calls, f"{where}.tool_calls")
    reasoning = next((checked[key] for key in _REASONING if key in checked), None)
    if reasoning is not None:
        checked = {"thinking": reasoning, **checked, "reasoning_content": reasoning}
    return checked


def _check_part(part: object, where: str) -> dict[str, Any]:
    if isinstance(part, str):
        return {"type": "text", "text": part}
    if isinstance(part, dict) and part.get("type") == "text" and isinstance(part.get("text"), str):
        return part
    kind = part.get("type") if isinstance(part, dict) else type(part).__name__
    raise RequestError(
        f"{where} should be a text part, found {kind!r}",
        hint='Text parts look like {"type": "text", "text": "..."}; images and audio are not read.',
    )


def _check_calls(calls: object, where: str) -> None:
    if not isinstance(calls, list):
        raise RequestError(f"{where} should be a list")
    for i, call in enumerate(calls):
        function = call.get("function", call) if isinstance(call, dict) else None
        if not isinstance(function, dict) or not isinstance(function.get("name"), str):
            raise RequestError(f"{where}[{i}] should name a function")


def plain_data(value: Any, depth: int = 0) -> Any:
    """`value` rebuilt from str, int, float, bool, None, list and dict.

    Raises:
        RequestError: it holds anything else, or is nested more than 64 deep.
    """
    if depth > _MAX_DEPTH:
        raise RequestError(f"the conversation's data is nested more than {_MAX_DEPTH} deep")
    if value is None or type(value) in (str, int, float, bool):
        return value
    if isinstance(value, str):  # also enums and other subclasses
        return str.__str__(value)
    if isinstance(value, Mapping):
        return {str(key): plain_data(item, depth + 1) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain_data(item, depth + 1) for item in value]
    raise RequestError(f"the conversation holds a {type(value).__name__}; only JSON data goes in")
