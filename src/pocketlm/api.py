"""The Python interface: ``load`` a model, then chat, generate, stream, score or embed.

    with pocketlm.load("smollm2:135m") as model:
        for chunk in model.stream("What is the capital of France? Answer in one sentence."):
            print(chunk.text, end="")

Everything the command line does with a model goes through here.
"""

from __future__ import annotations

import operator
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Unpack

from pocketlm.engine.answer import Chunk, Completion, Prompt, answer, collect
from pocketlm.engine.build import (
    Built,
    MemoryPlan,
    build_engine,
    require_memory,
)
from pocketlm.engine.context import Overflow
from pocketlm.engine.options import EngineOptions, KvType
from pocketlm.engine.prompts import Message, text_side
from pocketlm.engine.sampling import SamplingOptions, SamplingParams, resolve
from pocketlm.engine.shared import SharedEngine
from pocketlm.errors import RequestError
from pocketlm.progress import ProgressCallback, silent
from pocketlm.store.setup import Setup

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from pocketlm.models import ModelConfig, ModelSpec
    from pocketlm.text import ChatTemplate, Tokenizer


def load(
    ref: str | Path,
    *,
    context: int | None = None,
    threads: int | None = None,
    kv: KvType = "f16",
    sequences: int = 1,
    speculate: str | Path = "ngram",
    pull: bool = False,
    progress: ProgressCallback = silent,
) -> Model:
    """Opens a model: a name in the store, a GGUF file or a model folder.

    Args:
        ref: ``smollm2:135m``, ``./model.gguf``, ``hf:ORG/REPO`` …
        context: positions for prompt and answer together; None is the model's own, at most 4,096.
        threads: None is the physical cores that this process may use.
        kv: type of the KV cache: "f16", "q8" for half the memory, or "f32" for exactness.
        sequences: how many answers may be under way at once, each with a whole context.
        speculate: guess tokens to come and check several in one step, which changes no output:
            "ngram" guesses from the text itself, "off" does not, a ref does with that model, which
            has to have the same vocabulary.
        pull: fetch a model that is not in the store yet.
        progress: told how far that is, in bytes, and packing the weights, in parameters.

    Raises NotFoundError for a model that is not there, ModelFileError for a broken file,
    UnsupportedError for one that PocketLM does not run, CapacityError if memory does not suffice.
    """
    from pocketlm.models import open_model

    way = speculate if speculate in ("ngram", "off") else "off"
    options = EngineOptions(
        context=context, threads=threads, kv=kv, sequences=sequences, speculate=str(way)
    )
    path, name, setup = _locate(ref, pull=pull, progress=progress)
    if context is None and setup is not None:
        options = replace(options, context=setup.context)
    guesser = None
    if speculate != way:
        guesser, _, _ = _locate(speculate, pull=pull, progress=progress)
    started = time.perf_counter()
    with ExitStack() as opened:
        spec = open_model(path)
        opened.callback(spec.close)
        draft = None
        if guesser is not None:
            draft = open_model(guesser)
            opened.callback(draft.close)
        return Model(
            spec,
            options,
            draft=draft,
            name=name,
            setup=setup,
            progress=progress,
            started=started,
        )


class Model:
    """A loaded model. Any number of threads may use it; a context manager that frees its memory.

    Attributes:
        name: what the store calls it; a model that was given by its path, what it calls itself.
        config: the facts of its architecture.
        tokenizer, template: its text side; template is None for a model that cannot chat.
        context: positions for prompt and answer together.
        threads: how many it computes with.
        memory: bytes it takes, tokenizer included.
        load_s: seconds from opening the file to being ready.
    """

    def __init__(
        self,
        spec: ModelSpec,
        options: EngineOptions,
        *,
        draft: ModelSpec | None = None,
        name: str | None = None,
        setup: Setup | None = None,
        progress: ProgressCallback = silent,
        started: float | None = None,
    ) -> None:
        started = time.perf_counter() if started is None else started
        self.name = name or spec.name
        self.config: ModelConfig = spec.config
        self.memory: MemoryPlan = require_memory(spec, options, draft=draft)
        self._setup = setup or Setup()
        self._text = text_side(spec, self.name, self._setup.template)
        self.tokenizer: Tokenizer = self._text.tokenizer
        self.template: ChatTemplate | None = self._text.template
        self._defaults = spec.generation
        built: Built = build_engine(
            spec, self.tokenizer.eos_ids, options, draft=draft, progress=progress
        )
        self.context = built.context
        self.threads = built.threads
        self._engine: SharedEngine | None = SharedEngine(built.engine)
        self.load_s = time.perf_counter() - started
        spec.close()

    def __enter__(self) -> Model:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Frees the weights and the cache; the model cannot be used afterwards.

        An answer that is under way keeps them until it ends.
        """
        from pocketlm._native import return_freed_memory

        self._engine = None
        return_freed_memory()

    def chat(
        self,
        messages: str | Sequence[Message],
        *,
        tools: Sequence[Mapping[str, Any]] | None = None,
        template_options: Mapping[str, Any] | None = None,
        on_overflow: Overflow = "error",
        **options: Unpack[SamplingOptions],
    ) -> Completion:
        """The model's answer to a conversation; arguments as ``stream``."""
        prompt = self._chat_prompt(messages, tools, template_options, on_overflow, options)
        return collect(self._run(prompt, on_overflow, options))

    def generate(
        self, prompt: str, *, on_overflow: Overflow = "error", **options: Unpack[SamplingOptions]
    ) -> Completion:
        """How the model continues a plain text, without its chat template."""
        return collect(self._run(self._text.plain(prompt), on_overflow, options, raw=True))

    def stream(
        self,
        messages: str | Sequence[Message],
        *,
        raw: bool = False,
        tools: Sequence[Mapping[str, Any]] | None = None,
        template_options: Mapping[str, Any] | None = None,
        on_overflow: Overflow = "error",
        cancel: threading.Event | None = None,
        **options: Unpack[SamplingOptions],
    ) -> Iterator[Chunk]:
        """The answer piece by piece; closing the iterator stops it.

        While it is open its tokens are computed whether they are read or not, whenever some thread
        waits for the model; so close one that is left early and still referred to.

        Args:
            messages: a conversation; a string is one message of the user.
            raw: ``messages`` is a plain text to continue, without the chat template.
            tools: JSON schemas of functions that the model may call.
            template_options: further variables of the chat template, such as ``enable_thinking``.
            on_overflow: what to do where prompt and max_tokens exceed the context: "error";
                "stop" shortens the answer; "truncate" leaves out the oldest messages that are not
                of the system (of a plain text: the oldest tokens) and says so in the stats.
            cancel: ends the answer with "cancelled" when set, also while the prompt is computed.
            options: see ``pocketlm.engine.sampling``.

        Raises RequestError for bad options or messages, CapacityError for an overflow.
        """
        if raw:
            if not isinstance(messages, str):
                raise RequestError("raw=True wants a plain text, not messages")
            prompt = self._text.plain(messages)
        else:
            prompt = self._chat_prompt(messages, tools, template_options, on_overflow, options)
        return self._run(prompt, on_overflow, options, raw=raw, cancel=cancel)

    def sampling(self, **options: Unpack[SamplingOptions]) -> SamplingParams:
        """What a request with these options would be drawn with, the model's defaults included."""
        given = {name: value for name, value in options.items() if value is not None}
        return resolve({**self._setup.options, **given}, self._defaults)

    def score(self, text: str | Sequence[int]) -> NDArray[np.float64]:
        """Natural-log probability of every token after the first, given those before it.

        text: a string (BOS is put before it if the model wants one) or token ids.
        Returns (tokens - 1,). Perplexity is exp(-mean).
        """
        from pocketlm.engine.score import score

        if isinstance(text, str):
            tokens = self.tokenizer.encode(text, add_special=True)
        else:
            tokens = _token_ids(text)
        with self._shared.exclusive() as engine:
            return score(engine, tokens)

    def embed(self, text: str) -> NDArray[np.float32]:
        """The mean of the final hidden states of the text's tokens, scaled to length 1. (width,)

        Language models are not trained for it: good for rough likeness, not for benchmarks.
        """
        from pocketlm.engine.score import embed

        with self._shared.exclusive() as engine:
            return embed(engine, self.tokenizer.encode(text, add_special=True))

    @property
    def _shared(self) -> SharedEngine:
        if self._engine is None:
            raise RequestError(f"the model {self.name} is closed")
        return self._engine

    def _chat_prompt(
        self,
        messages: str | Sequence[Message],
        tools: Sequence[Mapping[str, Any]] | None,
        template_options: Mapping[str, Any] | None,
        on_overflow: Overflow,
        options: SamplingOptions,
    ) -> Prompt:
        if not isinstance(template_options, Mapping | None):
            raise RequestError("template_options should be a dict of the template's variables")
        from pocketlm.text.messages import check_messages

        if isinstance(messages, str):
            messages = [{"role": "user", "content": messages}]
        return self._text.chat(
            self._setup.conversation(check_messages(messages)),
            tools=tools,
            variables=template_options,
            context=self.context,
            max_tokens=self.sampling(**options).max_tokens,
            on_overflow=on_overflow,
        )

    def _run(
        self,
        prompt: Prompt,
        on_overflow: Overflow,
        options: SamplingOptions,
        *,
        raw: bool = False,
        cancel: threading.Event | None = None,
    ) -> Iterator[Chunk]:
        """Queues the request at once, so that its errors come now and not at the first chunk."""
        from pocketlm.text import StreamDecoder

        params = self.sampling(**options)
        decoder = StreamDecoder(
            self.tokenizer, params.stop, continuation=raw, min_tokens=params.min_tokens
        )
        chunks = answer(self._shared, prompt, params, decoder, on_overflow, cancel)
        next(chunks)
        return chunks


def _token_ids(tokens: Sequence[int]) -> list[int]:
    try:
        return [operator.index(token) for token in tokens]
    except TypeError as error:
        raise RequestError("expected a text or a list of token ids") from error


def _locate(
    ref: str | Path, *, pull: bool, progress: ProgressCallback
) -> tuple[Path, str | None, Setup | None]:
    """The file or folder that a ref names, its name and setup where the store has them."""
    if isinstance(ref, Path):
        return ref, None, None
    if not isinstance(ref, str):
        raise RequestError(f"a model is named by a string or a Path, found {ref!r}")
    from pocketlm.store import Store

    store = Store()
    model = store.resolve(ref, pull=pull, progress=progress)
    if model.manifest is None:
        return model.path, None, None
    return model.path, model.name, store.setup(model)
