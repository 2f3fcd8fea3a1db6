"""Chat templates: messages to the prompt text that a model was trained on.

A template is a jinja2 program that comes with the model; it is run as transformers runs it
(`template_environment`). `chat.encode_chat` goes on from here to token ids. Templates are
untrusted: what a template does wrong is a ModelFileError, what it refuses in the caller's messages
(by `raise_exception`) is a RequestError with its own words.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any

from pocketlm.errors import ModelFileError, RequestError
from pocketlm.text.messages import check_messages, plain_data
from pocketlm.text.tokenizer import Tokenizer

if TYPE_CHECKING:
    import jinja2

_PROBE = "zq7probe"
_PROBE_TOOL = {
    "type": "function",
    "function": {
        "name": _PROBE,
        "description": "A tool.",
        "parameters": {"type": "object", "properties": {}},
    },
}


class ChatTemplate:
    """One model's chat template, compiled.

    Args:
        source: the jinja2 text.
        bos_token, eos_token: texts of the tokens; a template sees nothing where None.
        tool_source: another template for conversations with tools (`tool_use`), where the model
            has one.
        special_tokens: more texts by name (`pad_token`, `unk_token`).

    Raises:
        ModelFileError: the template is not valid jinja2.
    """

    def __init__(
        self,
        source: str,
        *,
        bos_token: str | None = None,
        eos_token: str | None = None,
        tool_source: str | None = None,
        special_tokens: Mapping[str, str] | None = None,
    ) -> None:
        self.source = source
        self._compiled = _compile(source)
        self._compiled_tools = _compile(tool_source) if tool_source else self._compiled
        tokens = {**(special_tokens or {}), "bos_token": bos_token, "eos_token": eos_token}
        self._tokens = {name: text for name, text in tokens.items() if text is not None}

    @classmethod
    def for_model(cls, tokenizer: Tokenizer, templates: Mapping[str, str]) -> ChatTemplate:
        """The template of a model whose files carry `templates` (by name, `default` first).

        A model without one gets the built-in template of its control tokens
        (`template_sources.builtin_template`), if it has such tokens.

        Raises:
            RequestError: the model has no template and none fits.
        """
        from pocketlm.text.template_sources import builtin_template

        source = templates.get("default") or next(iter(templates.values()), None)
        if source is None:
            source = builtin_template(tokenizer)
        if source is None:
            raise RequestError(
                "the model has no chat template and none of the known turn tokens",
                hint="It is probably a base model: give it plain text with --raw.",
            )
        ids = {
            "bos_token": tokenizer.bos_id,
            "eos_token": tokenizer.eos_id,
            "unk_token": tokenizer.unknown_id,
            "pad_token": tokenizer.padding_id,
        }
        texts = {name: tokenizer.token(i) for name, i in ids.items() if i is not None}
        return cls(
            source,
            bos_token=texts.pop("bos_token", None),
            eos_token=texts.pop("eos_token", None),
            tool_source=templates.get("tool_use"),
            special_tokens=texts,
        )

    def render(
        self,
        messages: Sequence[Mapping[str, Any]],
        *,
        tools: Sequence[Mapping[str, Any]] | None = None,
        documents: Sequence[Mapping[str, Any]] | None = None,
        add_generation_prompt: bool = True,
        **kwargs: Any,
    ) -> str:
        """The prompt text.

        Args:
            messages: `{"role": ..., "content": ...}`; content is text, a list of text parts, or
                absent beside `tool_calls`.
            tools: JSON schemas of the tools the model may call.
            documents: texts for retrieval-augmented templates.
            add_generation_prompt: end with the beginning of the assistant's turn.
            kwargs: further template variables, such as `enable_thinking=False`.

        Raises:
            RequestError: the messages are malformed, or the template refuses them.
            ModelFileError: the template fails, tries to leave its sandbox or does not end.
        """
        checked = check_messages(messages)
        if any(isinstance(m.get("content"), list) for m in checked) and not self._takes_parts:
            checked = [_flatten(message) for message in checked]
        return self._run(
            checked,
            tools=plain_data(tools) if tools else None,
            documents=plain_data(documents) if documents else None,
            add_generation_prompt=add_generation_prompt,
            **plain_data(kwargs),
        )

    def _run(self, messages: list[dict[str, Any]], *, tools: Any, **variables: Any) -> str:
        import jinja2
        from jinja2.exceptions import SecurityError

        from pocketlm.text.template_environment import RefusedError, start_budget

        template = self._compiled_tools if tools else self._compiled
        start_budget()
        try:
            return template.render(
                {**self._tokens, "messages": messages, "tools": tools} | variables
            )
        except RefusedError as error:
            raise RequestError(
                f"the model's chat template refuses this conversation: {error}"
            ) from error
        except SecurityError as error:
            raise ModelFileError(f"the chat template does what it may not: {error}") from error
        except jinja2.TemplateSyntaxError as error:
            raise ModelFileError(f"the chat template is not valid jinja2: {error}") from error
        except (jinja2.TemplateError, RecursionError, MemoryError, OverflowError) as error:
            raise ModelFileError(
                f"the chat template fails: {error or type(error).__name__}"
            ) from error
        except Exception as error:
            raise RequestError(
                f"the chat template fails on this conversation: {type(error).__name__}: {error}",
                hint="It may not support such messages, or tools.",
            ) from error

    # --- what the template can do, found by trying ---------------------------------------------

    def _probe(self, content: Any = _PROBE, **variables: Any) -> str | None:
        """The rendering of one user message, or None where it fails."""
        variables = {"tools": None, "documents": None, "add_generation_prompt": True} | variables
        try:
            return self._run([{"role": "user", "content": content}], **variables)
        except (RequestError, ModelFileError):
            return None

    @cached_property
    def supports_tools(self) -> bool:
        """Whether tools given to `render` reach the prompt."""
        text = self._probe("hello", tools=[_PROBE_TOOL])
        return text is not None and _PROBE in text

    @cached_property
    def supports_thinking(self) -> bool:
        """Whether `enable_thinking` (or `thinking`) switches something in the prompt."""
        on = self._probe(enable_thinking=True, thinking=True)
        off = self._probe(enable_thinking=False, thinking=False)
        return on is not None and off is not None and on != off

    @cached_property
    def _takes_parts(self) -> bool:
        """Whether content may stay a list of parts; else the parts are joined first."""
        text = self._probe([{"type": "text", "text": _PROBE}])
        return text is not None and text == self._probe(_PROBE)


def _flatten(message: dict[str, Any]) -> dict[str, Any]:
    content = message.get("content")
    if not isinstance(content, list):
        return message
    return {**message, "content": "\n".join(part["text"] for part in content)}


def _compile(source: str) -> jinja2.Template:
    import jinja2

    if not isinstance(source, str):
        raise ModelFileError(f"the chat template is a {type(source).__name__}, not text")
    try:
        return _environment().from_string(source)
    except jinja2.TemplateSyntaxError as error:
        raise ModelFileError(
            f"the chat template is not valid jinja2: {error.message} (line {error.lineno})"
        ) from error
    except (jinja2.TemplateError, RecursionError, MemoryError, SyntaxError, ValueError) as error:
        raise ModelFileError(f"the chat template does not compile: {error}") from error


_shared: list[jinja2.Environment] = []


def _environment() -> jinja2.Environment:
    """The one environment; made at the first use because jinja2 takes 60 ms to import."""
    if not _shared:
        from pocketlm.text.template_environment import TemplateEnvironment

        _shared.append(TemplateEnvironment())
    return _shared[0]
