"""The text side of a running model: conversations and texts become the ids of a prompt.

Stands between whoever has text (the Python interface, a worker of the server) and the engine, which
only knows ids.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pocketlm.engine.answer import Prompt
from pocketlm.engine.context import Overflow
from pocketlm.errors import ContextError, ModelFileError, RequestError

if TYPE_CHECKING:
    from pocketlm.models import ModelSpec
    from pocketlm.text import ChatTemplate, Tokenizer

Message = Mapping[str, Any]
"""{"role": "user", "content": "..."}: OpenAI's shape, as chat templates take it."""


@dataclass(frozen=True)
class TextSide:
    """A model's tokenizer and chat template; the latter is None for a model that cannot chat.

    Safe to use from several threads. ``name`` is for messages.
    """

    name: str
    tokenizer: Tokenizer
    template: ChatTemplate | None

    def plain(self, text: str, *, add_special: bool = True) -> Prompt:
        """A text to continue."""
        tokens = self.tokenizer.encode(text, add_special=add_special)
        return Prompt(tokens, keep=int(add_special and self.tokenizer.adds_bos))

    def chat(
        self,
        messages: Sequence[Message],
        *,
        tools: Sequence[Mapping[str, Any]] | None = None,
        variables: Mapping[str, Any] | None = None,
        continue_last: bool = False,
        context: int,
        max_tokens: int | None = None,
        on_overflow: Overflow = "error",
    ) -> Prompt:
        """A conversation to answer.

        Args:
            variables: further ones of the template.
            continue_last: the answer continues the last message instead of beginning a new one.
            context, max_tokens, on_overflow: "truncate" leaves out the oldest messages that are not
                of the system until prompt and answer fit; the other ways are the engine's.

        Raises RequestError for a model without a template or messages that it refuses, ContextError
        where the last message alone does not fit.
        """
        if self.template is None:
            raise RequestError(
                f"the model {self.name} has no chat template",
                hint="It is probably a base model: give it plain text (--raw, or generate()).",
            )

        def encode(part: Sequence[Message]) -> list[int]:
            if continue_last:
                return self._begun(part, tools, variables)
            return self._encode(part, tools, variables)

        tokens = encode(messages)
        if on_overflow != "truncate" or len(tokens) + (max_tokens or 1) <= context:
            return Prompt(tokens)
        room = context - (max_tokens or max(1, context // 4))
        kept, used = messages, tokens
        while len(used) > room:
            kept = _without_oldest(kept, len(used), room)
            used = encode(kept)
        return Prompt(
            used,
            dropped_messages=len(messages) - len(kept),
            dropped_tokens=len(tokens) - len(used),
        )

    def with_template(self, source: str) -> TextSide:
        """The same with a jinja2 template that a request brings.

        Raises RequestError where it is none.
        """
        from pocketlm.text import ChatTemplate

        try:
            made = ChatTemplate.for_model(self.tokenizer, {"default": source})
        except ModelFileError as error:
            raise RequestError(f"the template cannot be used: {error.message}") from error
        return replace(self, template=made)

    def _encode(
        self,
        messages: Sequence[Message],
        tools: Sequence[Mapping[str, Any]] | None,
        variables: Mapping[str, Any] | None,
    ) -> list[int]:
        from pocketlm.text import encode_chat

        assert self.template is not None
        extra = dict(variables or {})
        return encode_chat(self.tokenizer, self.template, messages, tools=tools, **extra)

    def _begun(
        self,
        messages: Sequence[Message],
        tools: Sequence[Mapping[str, Any]] | None,
        variables: Mapping[str, Any] | None,
    ) -> list[int]:
        """The conversation up to where the assistant speaks, and what it has said so far."""
        begun = messages[-1].get("content") if messages else None
        if len(messages) < 2 or not isinstance(begun, str):
            raise RequestError("there is no last message with a text that could be continued")
        head = self._encode(messages[:-1], tools, variables)
        return self.tokenizer.encode_pieces([*head, begun])


def text_side(spec: ModelSpec, name: str | None = None, template: str | None = None) -> TextSide:
    """The text side of an opened model.

    name: what messages call it. template: a jinja2 source in the place of the model's own.

    Raises ModelFileError, UnsupportedError for a tokenizer or template that cannot be used.
    """
    tokenizer = open_tokenizer(spec)
    sources = spec.chat_templates if template is None else {"default": template}
    return TextSide(name or spec.name, tokenizer, _template(tokenizer, sources))


def open_tokenizer(spec: ModelSpec) -> Tokenizer:
    """The tokenizer of an opened model. Raises ModelFileError, UnsupportedError."""
    from pocketlm._native import return_freed_memory
    from pocketlm.text import Tokenizer

    source = spec.tokenizer_source
    if isinstance(source, Path):
        tokenizer = Tokenizer.from_folder(source)
    else:
        tokenizer = Tokenizer.from_gguf(source, spec.architecture)
    return_freed_memory()  # building takes twice what is kept, and the weights come next
    return tokenizer


def _template(tokenizer: Tokenizer, sources: Mapping[str, str]) -> ChatTemplate | None:
    from pocketlm.text import ChatTemplate

    try:
        return ChatTemplate.for_model(tokenizer, sources)
    except RequestError:
        return None


def _without_oldest(messages: Sequence[Message], used: int, room: int) -> Sequence[Message]:
    """The conversation without its oldest turn: all up to the next message of the user.

    System messages and the last message stay. Raises ContextError when nothing else is left.
    """
    first = next((i for i, m in enumerate(messages) if m.get("role") != "system"), len(messages))
    end = first + 1
    while end < len(messages) - 1 and messages[end].get("role") != "user":
        end += 1
    if end >= len(messages):
        raise ContextError(
            f"the last message makes a prompt of {used:,} tokens, but {room:,} are left for it",
            hint="Shorten it, lower max_tokens or load the model with a larger context.",
        )
    return [*messages[:first], *messages[end:]]
