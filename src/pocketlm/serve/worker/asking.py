"""The text thread of a worker: requests as clients send them become tokens for the engine.

It has a thread of its own since a long text, or the template of a stranger, may take a while, and
no answer that is under way should wait for it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from queue import SimpleQueue
from typing import Any

from pocketlm.engine.answer import Prompt as EncodedPrompt
from pocketlm.engine.constraint import Constraint as EngineConstraint
from pocketlm.engine.constraint import Grammars
from pocketlm.engine.sampling import resolve
from pocketlm.errors import ContextError
from pocketlm.serve.generation import (
    ChatPrompt,
    Constraint,
    FillPrompt,
    Generation,
    Prompt,
    TextPrompt,
)
from pocketlm.serve.wire import read_generation, read_prompt
from pocketlm.serve.worker.loading import Running
from pocketlm.serve.worker.loop import Asked, EngineLoop, Texts
from pocketlm.serve.worker.port import Port
from pocketlm.text import StreamDecoder, encode_fill, fill_ends
from pocketlm.text.messages import check_messages

_TAIL_TOKENS, _TAIL_CHARACTERS = 32, 64


class Asking:
    """Reads requests off a queue, one after the other. ``put`` may be called by any thread."""

    def __init__(self, running: Running, loop: EngineLoop, port: Port) -> None:
        self._running = running
        self._loop = loop
        self._port = port
        self._queue: SimpleQueue[dict[str, Any]] = SimpleQueue()
        self._grammars: Grammars | None = None  # made for the first constraint
        self._work: Mapping[str, Callable[..., None]] = {
            "answer": self._answer,
            "embed": self._embed,
            "tokenize": self._tokenize,
            "detokenize": self._detokenize,
        }

    def put(self, message: dict[str, Any]) -> None:
        """Takes a message of the front process; what it asks for is answered in turn."""
        (op,) = message
        if op == "cancel":
            self._loop.cancel(message[op]["id"])
            return
        if op in ("answer", "embed"):
            self._loop.expect(message[op]["id"])
        self._queue.put(message)

    def run(self) -> None:
        """Never returns."""
        while True:
            ((op, asked),) = self._queue.get().items()
            id = asked.pop("id")
            try:
                self._work[op](id, **asked)
            except Exception as error:  # a bug of ours must not end the thread
                self._loop.dropped(id)
                self._port.fail(id, error)

    def _answer(self, id: int, generation: Mapping[str, Any]) -> None:
        asked = read_generation(generation)
        given = {name: value for name, value in asked.options.items() if value is not None}
        options = {**self._running.setup.options, **given}
        if isinstance(asked.prompt, FillPrompt):
            ends = fill_ends(self._running.texts.tokenizer)
            options["stop_ids"] = [*options.get("stop_ids", ()), *ends]
        params = resolve(options, self._running.defaults)
        prompt = self._encode(asked.prompt, asked, params.max_tokens)
        chat = isinstance(asked.prompt, ChatPrompt) and not asked.prompt.continue_last
        decoder = StreamDecoder(
            self._running.texts.tokenizer,
            params.stop,
            skip_special=not asked.keep_special,
            continuation=not chat,
            min_tokens=params.min_tokens,
        )
        self._loop.put(
            Asked(
                id,
                prompt,
                self._tail(prompt.tokens),
                params,
                decoder,
                asked.overflow,
                asked.context,
                self._constraint(asked.constraint),
                asked.prompt_logprobs,
            )
        )

    def _constraint(self, asked: Constraint | None) -> EngineConstraint | None:
        if asked is None:
            return None
        if self._grammars is None:
            running = self._running
            self._grammars = Grammars(
                running.texts.tokenizer, running.engine.runner.vocab, threads=running.threads
            )
        return self._grammars.constraint(asked.kind, asked.value, asked.after)

    def _encode(
        self, prompt: Prompt, asked: Generation | None = None, max_tokens: int | None = None
    ) -> EncodedPrompt:
        texts = self._running.texts
        match prompt:
            case TextPrompt():
                return texts.plain(prompt.text, add_special=prompt.add_special)
            case ChatPrompt():
                if prompt.template is not None:
                    texts = texts.with_template(prompt.template)
                context = self._running.engine.config.context
                return texts.chat(
                    self._running.setup.conversation(check_messages(prompt.messages)),
                    tools=prompt.tools,
                    variables=prompt.variables,
                    continue_last=prompt.continue_last,
                    context=(asked and asked.context) or context,
                    max_tokens=max_tokens,
                    on_overflow=asked.overflow if asked else "error",
                )
            case FillPrompt():
                return EncodedPrompt(encode_fill(texts.tokenizer, prompt.prefix, prompt.suffix))
            case _:
                return EncodedPrompt(list(prompt.tokens))

    def _tail(self, tokens: Sequence[int]) -> str:
        tokenizer = self._running.texts.tokenizer
        text = tokenizer.decode(tokens[-_TAIL_TOKENS:], skip_special=False)
        return text[-_TAIL_CHARACTERS:]

    def _embed(self, id: int, inputs: Sequence[str | Sequence[int]], truncate: bool) -> None:
        engine, tokenizer = self._running.engine, self._running.texts.tokenizer
        found: list[list[int]] = []
        for one in inputs:
            tokens = tokenizer.encode(one, add_special=True) if isinstance(one, str) else list(one)
            if len(tokens) > engine.config.context and not truncate:
                raise ContextError(
                    f"the text has {len(tokens):,} tokens, but the context has "
                    f"{engine.config.context:,}",
                    hint="Shorten it, or ask for it to be truncated.",
                )
            found.append(tokens[: engine.config.context])
            engine.check_ids(found[-1])
        self._loop.put(Texts(id, found))

    def _tokenize(self, id: int, prompt: Mapping[str, Any]) -> None:
        tokens = self._encode(read_prompt(prompt)).tokens
        data = self._running.texts.tokenizer.token_bytes
        texts = [data(token).decode("latin-1") for token in tokens]
        self._port.send({"result": {"id": id, "value": [tokens, texts]}})

    def _detokenize(self, id: int, tokens: Sequence[int]) -> None:
        if tokens:
            self._running.engine.check_ids(tokens)
        text = self._running.texts.tokenizer.decode(tokens, skip_special=False)
        self._port.send({"result": {"id": id, "value": text}})
