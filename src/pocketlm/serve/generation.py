"""The seam between the HTTP APIs and the models: what may be asked, what comes back.

An API turns its request into a ``Generation``, asks the ``Fleet`` for a model, and reads pieces
from the ``Answer``. Everything here is plain data, so it crosses a process border as JSON; the
tests of the APIs run on a fleet that is scripted (tests/serve/scripted.py).
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Literal, Protocol

FinishReason = Literal["stop", "length", "cancelled", "error"]
Overflow = Literal["error", "stop", "truncate"]


# What is asked


@dataclass(frozen=True, kw_only=True, slots=True)
class ChatPrompt:
    """A conversation, rendered by the model's chat template.

    Attributes:
        messages: OpenAI's shape, as chat templates take it.
        tools: JSON schemas of functions, OpenAI's shape.
        variables: further ones of the template, such as ``enable_thinking``.
        continue_last: the answer continues the last message instead of beginning a new one.
        template: a jinja2 chat template in the place of the model's.
    """

    messages: Sequence[Mapping[str, Any]]
    tools: Sequence[Mapping[str, Any]] | None = None
    variables: Mapping[str, Any] = field(default_factory=dict)
    continue_last: bool = False
    template: str | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class TextPrompt:
    """A plain text to continue; ``add_special`` puts BOS before it where the model wants one."""

    text: str
    add_special: bool = True


@dataclass(frozen=True, kw_only=True, slots=True)
class TokenPrompt:
    """Token ids, taken as they are."""

    tokens: Sequence[int]


@dataclass(frozen=True, kw_only=True, slots=True)
class FillPrompt:
    """A gap to fill between two texts, for models with fill-in-the-middle tokens."""

    prefix: str
    suffix: str


Prompt = ChatPrompt | TextPrompt | TokenPrompt | FillPrompt


@dataclass(frozen=True, kw_only=True, slots=True)
class Constraint:
    """What the answer must look like.

    Attributes:
        kind: "json" (value: a JSON schema; {} or {"type": "object"} is any JSON), "regex",
            "choice" (value: a list of texts) or "lark" (value: a grammar as llguidance reads it).
        after: the answer is free until it holds this text, such as "</think>".
    """

    kind: Literal["json", "regex", "choice", "lark"]
    value: Any
    after: str | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class Generation:
    """One answer that is asked of a model.

    Attributes:
        prompt: what it answers.
        options: by the names of ``engine.sampling``; what is missing is the model's default.
        constraint: see ``Constraint``.
        context: positions that prompt and answer may take; None is what the model runs with.
        overflow: what to do where they exceed it; see ``engine.context``.
        keep_special: control tokens are part of the answer's text (tool calls are written with
            them); end-of-turn tokens never are.
        prompt_logprobs: log-probabilities of the prompt's tokens, each with that many best ones.
    """

    prompt: Prompt
    options: Mapping[str, Any] = field(default_factory=dict)
    constraint: Constraint | None = None
    context: int | None = None
    overflow: Overflow = "error"
    keep_special: bool = False
    prompt_logprobs: int | None = None


# What comes back


@dataclass(frozen=True, slots=True)
class TokenScore:
    """A token: its id, the bytes it stands for, its natural-log probability."""

    id: int
    data: bytes
    logprob: float


@dataclass(frozen=True, slots=True)
class Scored:
    """The chosen token and the best ones, best first; the chosen need not be among them."""

    chosen: TokenScore
    best: tuple[TokenScore, ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class Started:
    """A request that was accepted.

    Attributes:
        prompt_tokens: how many.
        prompt_tail: the end of the rendered prompt, at most 64 characters; shows whether the
            template has opened the model's thinking.
        prompt_ids: the ids of the prompt as it will be computed.
        prompt_scores: where ``prompt_logprobs`` was asked for: None for the first token, which
            nothing precedes, then one for each.
        dropped_tokens, dropped_messages: what overflow="truncate" left out.
        seed: gives the same text again.
    """

    prompt_tokens: int
    prompt_tail: str = ""
    prompt_ids: Sequence[int] = ()
    prompt_scores: Sequence[Scored | None] | None = None
    dropped_tokens: int = 0
    dropped_messages: int = 0
    seed: int = 0


@dataclass(frozen=True, slots=True)
class Piece:
    """Some text of an answer and the tokens it came from; either may be empty.

    ``scores`` has one entry for each token where log-probabilities were asked for.
    """

    text: str
    tokens: tuple[int, ...] = ()
    scores: tuple[Scored, ...] | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class Ended:
    """How an answer ended and what it cost. Seconds count from the request's arrival at the model.

    Attributes:
        reason: "stop" for an end-of-turn token or a stop string, "length", "cancelled".
        stop: the stop string that ended it.
        cached_tokens: prompt tokens that were still in memory.
        completion_tokens: of the answer, an end-of-turn token included.
        queue_s: waiting for its turn. prefill_s: from then to the first token. decode_s: from the
            first token to the last.
    """

    reason: FinishReason
    stop: str | None = None
    prompt_tokens: int = 0
    cached_tokens: int = 0
    completion_tokens: int = 0
    drafted_tokens: int = 0
    accepted_tokens: int = 0
    preemptions: int = 0
    queue_s: float = 0.0
    prefill_s: float = 0.0
    decode_s: float = 0.0


class Answer(Protocol):
    """An answer under way: iterate for its pieces; then ``ended`` is set.

    Iteration raises PocketLMError where the answer cannot go on.
    """

    started: Started
    ended: Ended | None

    def __aiter__(self) -> AsyncIterator[Piece]: ...


@dataclass(frozen=True, kw_only=True, slots=True)
class Embeddings:
    """One vector of length 1 for each input, and how many tokens each had."""

    vectors: Sequence[Sequence[float]]
    tokens: Sequence[int]


# Who answers


@dataclass(frozen=True, kw_only=True, slots=True)
class ModelFacts:
    """What a loaded model is.

    Attributes:
        name: in the store, or as the server was told to call it.
        digest: sha256 of its weights, hex; "" for a file that is not in the store.
        family: "llama", "qwen3", "gemma3" …
        quantization: of most of its weights, such as "Q4_K_M".
        context: positions that it runs with; ``trained_context`` those it was made for.
        template: source of its chat template; None for a model that cannot chat.
        capabilities: of "completion", "tools", "thinking", "insert", "embedding".
        special_texts: its control tokens by text.
        eos_text: the token that ends its turns; "" where it has none.
    """

    name: str
    digest: str
    family: str
    parameters: int
    quantization: str
    context: int
    trained_context: int
    vocab: int
    width: int
    template: str | None
    capabilities: frozenset[str]
    special_texts: Mapping[str, int]
    eos_text: str = ""


class ServedModel(Protocol):
    """A loaded model, held for one request."""

    facts: ModelFacts
    load_s: float  # seconds that this request waited for the model to load; 0 if it was there

    def answer(self, generation: Generation) -> AbstractAsyncContextManager[Answer]:
        """The answer to a request. Leaving the context cancels it if it has not ended.

        Entering raises RequestError for a request that makes no sense, CapacityError for one that
        does not fit the context.
        """

    async def embed(
        self, inputs: Sequence[str | Sequence[int]], *, truncate: bool = False
    ) -> Embeddings:
        """Raises CapacityError for an input longer than the context, unless ``truncate``."""

    async def tokenize(self, prompt: Prompt) -> tuple[list[int], list[bytes]]:
        """The ids that a prompt becomes and the bytes that each stands for."""

    async def detokenize(self, tokens: Sequence[int]) -> str:
        """The text of ids, control tokens included. Raises RequestError for an unknown id."""


@dataclass(frozen=True, kw_only=True, slots=True)
class LoadedModel:
    """A model in memory.

    Attributes:
        memory: bytes that it may take.
        expires: when it is unloaded if nobody uses it; None is never.
        pinned: whether it stays whatever else is asked for.
        running, waiting: requests.
        kv_tokens, kv_used: positions of the KV cache, and those that requests hold of them.
        prompt_tokens, output_tokens: of all requests since it was loaded.
    """

    facts: ModelFacts
    memory: int
    loaded: datetime
    expires: datetime | None
    pinned: bool
    running: int
    waiting: int
    pid: int
    kv_tokens: int = 0
    kv_used: int = 0
    prompt_tokens: int = 0
    output_tokens: int = 0


class Fleet(Protocol):
    """The models that are loaded, and the way to have one loaded.

    Attributes:
        draining: the server is shutting down: nothing new is begun.
    """

    @property
    def draining(self) -> bool: ...

    def use(
        self, name: str, *, keep_alive: float | None = None
    ) -> AbstractAsyncContextManager[ServedModel]:
        """A model for the time of a request; loaded first if need be.

        keep_alive: seconds that it stays loaded after its last request; negative is for ever, 0
        unloads it at once, None is the server's default.

        Raises NotFoundError for a model that is not here, CapacityError where it does not fit
        beside those that are in use, and where too many requests wait.
        """

    def loaded(self) -> Sequence[LoadedModel]: ...

    async def load(
        self, name: str, *, keep_alive: float | None = None, pin: bool | None = None
    ) -> None:
        """Loads a model without asking anything of it.

        pin: whether it stays whatever else is asked for; None leaves that as it is.
        """

    async def needs(self, name: str) -> int:
        """Bytes that a model takes once it is loaded, by its header; nothing is loaded for that.

        Raises as ``use`` does.
        """

    async def unload(self, name: str) -> bool:
        """Unloads a model when its requests have ended; False where it was not loaded."""
