"""``/tokenize``, ``/detokenize``, ``/tokenizer_info``, in vLLM's shapes; also below ``/v1``."""

from __future__ import annotations

from typing import Any, Self

from fastapi import APIRouter, Query, Request
from fastapi.responses import JSONResponse, Response
from pydantic import Field, model_validator

from pocketlm.errors import RequestError
from pocketlm.serve.answers import tool_conversation
from pocketlm.serve.generation import ChatPrompt, ModelFacts, Prompt, TextPrompt
from pocketlm.serve.openai.asking import headers, use
from pocketlm.serve.openai.bodies import Id, ModelBody, Object
from pocketlm.serve.openai.messages import plain_messages
from pocketlm.serve.services import Services


class TokenizeBody(ModelBody):
    """A text, or a conversation as the chat template writes it."""

    prompt: str | None = None
    messages: list[Object] | None = None
    tools: list[Object] | None = None
    chat_template_kwargs: Object | None = None
    add_special_tokens: bool | None = None
    continue_final_message: bool = False
    return_token_strs: bool | None = None

    @model_validator(mode="after")
    def _one(self) -> Self:
        if (self.prompt is None) == (self.messages is None):
            raise ValueError("either prompt or messages should be given")
        return self


class DetokenizeBody(ModelBody):
    """Token ids."""

    tokens: list[Id] = Field(max_length=1 << 20)


def router(services: Services) -> APIRouter:
    """The routes, each at two paths."""
    routes = APIRouter(tags=["Tokens"])

    async def tokenize(body: TokenizeBody, request: Request) -> Response:
        """The tokens of a text."""
        extra = headers(services, request, body)
        async with use(services, body.model) as model:
            most = services.config.max_messages
            ids, data = await model.tokenize(_prompt(model.facts, body, most))
        record: dict[str, Any] = {
            "count": len(ids),
            "max_model_len": model.facts.context,
            "tokens": ids,
            "token_strs": None,
        }
        if body.return_token_strs:
            record["token_strs"] = [one.decode(errors="replace") for one in data]
        return JSONResponse(record, headers=extra)

    async def detokenize(body: DetokenizeBody, request: Request) -> Response:
        """The text of tokens, control tokens included."""
        extra = headers(services, request, body)
        async with use(services, body.model) as model:
            if body.tokens and max(body.tokens) >= model.facts.vocab:
                raise RequestError(
                    f"tokens has {max(body.tokens):,}, the model has {model.facts.vocab:,}"
                )
            text = await model.detokenize(body.tokens)
        return JSONResponse({"prompt": text}, headers=extra)

    async def tokenizer_info(model: str | None = Query(None, max_length=512)) -> Response:
        """What a client needs to know to write prompts itself."""
        async with use(services, model) as used:
            bos, _ = await used.tokenize(TextPrompt(text=""))
        return JSONResponse(_info(used.facts, bos))

    for prefix, name in (("", ""), ("/v1", "v1_")):
        for path, route in (("tokenize", tokenize), ("detokenize", detokenize)):
            where, operation = f"{prefix}/{path}", f"{name}{path}"
            routes.add_api_route(where, route, methods=["POST"], operation_id=operation)
        routes.add_api_route(
            f"{prefix}/tokenizer_info",
            tokenizer_info,
            methods=["GET"],
            operation_id=f"{name}tokenizer_info",
        )
    return routes


def _prompt(facts: ModelFacts, body: TokenizeBody, most: int) -> Prompt:
    if body.messages is None:
        special = body.add_special_tokens is not False
        return TextPrompt(text=body.prompt or "", add_special=special)
    if facts.template is None:
        raise RequestError(f"{facts.name} has no chat template: give a prompt")
    if body.add_special_tokens:
        raise RequestError("add_special_tokens is for a prompt: the template writes its own")
    messages = plain_messages(body.messages, most)
    messages, tools = tool_conversation(facts, messages, body.tools)
    return ChatPrompt(
        messages=messages,
        tools=tools,
        variables=body.chat_template_kwargs or {},
        continue_last=body.continue_final_message,
    )


def _info(facts: ModelFacts, bos: list[int]) -> dict[str, Any]:
    """The fields of a ``tokenizer_config.json`` that say something here; null where unknown."""
    texts = {id: text for text, id in facts.special_texts.items()}
    first = texts.get(bos[0]) if bos else None
    return {
        "tokenizer_class": "PocketLMTokenizer",
        "model": facts.name,
        "vocab_size": facts.vocab,
        "model_max_length": facts.context,
        "bos_token": first,
        "eos_token": facts.eos_text or None,
        "pad_token": facts.eos_text or None,
        "add_bos_token": bool(bos),
        "chat_template": facts.template,
        "additional_special_tokens": sorted(facts.special_texts),
    }
