"""From Anthropic's shape of a conversation to that of chat templates, which is OpenAI's.

Blocks of a turn become messages: text stays, ``tool_use`` becomes a call, each ``tool_result`` a
message of its own. A last turn of the assistant is continued.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from pocketlm.errors import RequestError
from pocketlm.serve.answers import (
    after_thinking,
    format_constraint,
    reads_special,
    thinking_variables,
    tool_constraint,
    tool_conversation,
)
from pocketlm.serve.anthropic.request import (
    Block,
    CountRequest,
    Message,
    MessagesRequest,
    Text,
    Tool,
    ToolChoice,
)
from pocketlm.serve.generation import ChatPrompt, Constraint, Generation, ModelFacts

_Plain = dict[str, Any]


def generation(facts: ModelFacts, request: MessagesRequest) -> Generation:
    """What is asked of the model.

    Raises:
        RequestError: the request makes no sense to this model; the message says where.
    """
    asked = prompt(facts, request)
    options = {
        "max_tokens": request.max_tokens,
        "temperature": request.temperature,
        "top_k": request.top_k,
        "top_p": request.top_p,
        "stop": request.stop_sequences or None,
    }
    return Generation(
        prompt=asked,
        options={name: value for name, value in options.items() if value is not None},
        constraint=_constraint(facts, request, asked),
        overflow="stop",  # as "model_context_window_exceeded" says
        keep_special=reads_special(facts, offers_tools(request)),
    )


def prompt(facts: ModelFacts, request: CountRequest) -> ChatPrompt:
    """The conversation for the model's template.

    Raises:
        RequestError: it holds what the model cannot read, or asks one to think that cannot.
    """
    messages: list[_Plain] = []
    if request.system is not None:
        messages.append({"role": "system", "content": _text(request.system, "system")})
    names: dict[str, str] = {}  # of the functions that were called, by the call's id
    for i, message in enumerate(request.messages):
        messages += _messages(message, names, f"messages[{i}]")
    tools = _tools(request.tools) if offers_tools(request) else None
    ready, plain = tool_conversation(facts, messages, tools)
    return ChatPrompt(
        messages=ready,
        tools=plain,
        variables=_variables(facts, request),
        continue_last=request.messages[-1].role == "assistant",
    )


def offers_tools(request: CountRequest) -> bool:
    """Whether the model may call anything."""
    choice = request.tool_choice
    return bool(request.tools) and (choice is None or choice.type != "none")


def _variables(facts: ModelFacts, request: CountRequest) -> _Plain:
    """No word about thinking means no thinking, as at Anthropic."""
    thinking = request.thinking.type if request.thinking else "disabled"
    if thinking == "disabled":
        return thinking_variables(facts, False)
    effort = request.output_config.effort if request.output_config else None
    return thinking_variables(facts, effort or True, insist=thinking == "enabled")


def _constraint(
    facts: ModelFacts, request: MessagesRequest, asked: ChatPrompt
) -> Constraint | None:
    output = request.output_config.format if request.output_config else None
    form = None
    if output is not None:
        form = format_constraint({"type": "json_schema", "schema": output.schema_})
    choice = request.tool_choice or ToolChoice(type="auto")
    constraint = tool_constraint(
        facts,
        _tools(request.tools),
        _choice(choice),
        parallel=not choice.disable_parallel_tool_use,
        form=form,
    )
    return after_thinking(constraint, facts, asked.variables)


def _choice(choice: ToolChoice) -> str | _Plain:
    if choice.type == "tool":
        return {"type": "function", "function": {"name": choice.name}}
    return "required" if choice.type == "any" else choice.type


def _tools(tools: Sequence[Tool] | None) -> list[_Plain] | None:
    if not tools:
        return None
    for i, tool in enumerate(tools):
        if tool.type not in (None, "custom"):
            raise RequestError(
                f"tools[{i}].type is {tool.type!r}: this server runs no tools of its own",
                hint="Give tools with a name, a description and an input_schema.",
            )
    return [{"type": "function", "function": _function(tool)} for tool in tools]


def _function(tool: Tool) -> _Plain:
    function = {
        "name": tool.name,
        "description": tool.description,
        "parameters": tool.input_schema,
        "strict": tool.strict or None,
    }
    return {name: value for name, value in function.items() if value is not None}


def _messages(message: Message, names: dict[str, str], where: str) -> list[_Plain]:
    if isinstance(message.content, str):
        return [{"role": message.role, "content": message.content}]
    if message.role == "assistant":
        return [_assistant(message.content, names, where)]
    found: list[_Plain] = []
    texts: list[str] = []
    for j, block in enumerate(message.content):
        at = f"{where}.content[{j}]"
        if block.get("type") == "tool_result" and message.role == "user":
            found += _turn(message.role, texts)
            texts = []
            found.append(_result(block, names, at))
        else:
            texts.append(_block_text(block, at))
    return found + _turn(message.role, texts)


def _turn(role: str, texts: list[str]) -> list[_Plain]:
    return [{"role": role, "content": "\n".join(texts)}] if texts else []


def _result(block: Block, names: dict[str, str], where: str) -> _Plain:
    """The message with what a tool gave."""
    call = block.get("tool_use_id")
    if call not in names:
        raise RequestError(f"{where}.tool_use_id is {call!r}, which no tool_use before it has")
    text = _text(block.get("content") or "", f"{where}.content")
    if block.get("is_error"):
        text = f"Error: {text}"
    return {"role": "tool", "tool_call_id": call, "name": names[call], "content": text}


def _assistant(blocks: list[Block], names: dict[str, str], where: str) -> _Plain:
    texts: list[str] = []
    thoughts: list[str] = []
    calls: list[_Plain] = []
    for j, block in enumerate(blocks):
        at = f"{where}.content[{j}]"
        match block.get("type"):
            case "thinking":
                thoughts.append(_field(block, "thinking", at))
            case "redacted_thinking":
                pass  # another model's, and nobody can read it
            case "tool_use":
                calls.append(_call(block, names, at))
            case _:
                texts.append(_block_text(block, at))
    message: _Plain = {"role": "assistant", "content": "".join(texts)}
    if thoughts:
        message["reasoning_content"] = "\n".join(thoughts)
    if calls:
        message["tool_calls"] = calls
    return message


def _call(block: Block, names: dict[str, str], where: str) -> _Plain:
    call, name = _field(block, "id", where), _field(block, "name", where)
    arguments = block.get("input")
    if not isinstance(arguments, dict):
        raise RequestError(f"{where}.input should be an object")
    names[call] = name
    return {"id": call, "type": "function", "function": {"name": name, "arguments": arguments}}


def _text(content: Text | Any, where: str) -> str:
    if isinstance(content, str):
        return content
    if not isinstance(content, list):
        raise RequestError(f"{where} should be text or a list of blocks")
    return "\n".join(_block_text(block, f"{where}[{j}]") for j, block in enumerate(content))


def _block_text(block: Any, where: str) -> str:
    kind = block.get("type") if isinstance(block, dict) else type(block).__name__
    if kind != "text":
        raise RequestError(
            f"{where} is of the type {json.dumps(kind)}, but the models here read text only"
        )
    return _field(block, "text", where)


def _field(block: Block, name: str, where: str) -> str:
    value = block.get(name)
    if not isinstance(value, str):
        raise RequestError(f"{where}.{name} should be a text")
    return value
