"""Answers of a required form: which tokens may come next, by the llguidance library.

A model has one ``Grammars``, its vocabulary as the library wants it. That makes a ``Constraint``
for a request: a parser that is fed the tokens that were drawn, and says before each draw which ones
may come, as the bits that the sampler takes. So a constrained answer is drawn from the model's own
logits with some tokens left out, and guessed tokens are checked like all others.
"""

from __future__ import annotations

import json
import threading
import weakref
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, cast

import numpy as np

from pocketlm.engine.runner import Masks
from pocketlm.errors import RequestError, UnsupportedError

if TYPE_CHECKING:
    from llguidance import LLExecutor, LLMatcher, LLTokenizer, TokenizerWrapper

    from pocketlm.text import Tokenizer

# What a request may cost. The library counts its work: building takes at most about 20 ms for its
# lexer, a mask about 15 ms; a state of the lexer is 1 to 2 KiB.
_MOST_BYTES = 256 << 10  # of a grammar's text
_DEEPEST = 64  # levels of a JSON schema
_MOST_CHOICES = 10_000
_LIMITS: dict[str, Any] = {
    "initial_lexer_fuel": 1_000_000,
    "step_lexer_fuel": 200_000,
    "step_max_items": 50_000,
    "max_lexer_states": 50_000,
    "max_grammar_size": 100_000,
    "verbose_errors": False,
}
# White space between the parts of a JSON text: enough to indent, but small models never end it.
_SPACE = r"[ \t\n\r]{1,40}"

_TOKEN_BYTES = 340


def grammars_memory(vocab: int) -> int:
    """Bytes that the library keeps of a vocabulary from the first constraint on: measured, 16 MB of
    49,152 tokens and 73 MB of 262,144, and a fifth more."""
    return _TOKEN_BYTES * vocab


class Grammars:
    """Makes the constraints of one model. Thread-safe.

    Args:
        tokenizer: the model's.
        vocab: how many logits it has; ids beyond the tokenizer's are never allowed.
        threads: that compute the masks of guessed tokens.

    Raises UnsupportedError where llguidance is not installed.
    """

    def __init__(self, tokenizer: Tokenizer, vocab: int, *, threads: int = 1) -> None:
        try:
            import llguidance
        except ImportError as error:
            raise UnsupportedError(
                "a constrained answer needs the package llguidance, which is not installed",
                hint="Install it with: pip install 'pocketlm[serve]'",
            ) from error
        self._library = llguidance
        self._tokenizer = tokenizer
        self._vocab = vocab
        self._threads = threads
        self._lock = threading.Lock()
        self._known: LLTokenizer | None = None
        self._executor: LLExecutor | None = None

    def constraint(self, kind: str, value: object, after: str | None = None) -> Constraint:
        """What an answer must look like.

        kind, value: "json" and a JSON schema, {} being any JSON; "regex" and an expression;
            "choice" and a list of texts; "lark" and a grammar in llguidance's dialect of Lark.
        after: the answer is free until it holds this text, and what follows is constrained.

        Takes about a millisecond, a large grammar tens of them, the first one some 100 for the
        vocabulary; a server does it in another thread than the engine's. Raises RequestError for a
        grammar that is wrong or too large, with llguidance's reason.
        """
        if after is not None and (not isinstance(after, str) or not after):
            raise RequestError(f"after is {after!r}, expected a text that is not empty")
        grammar = self._grammar(kind, value)
        matcher = self._library.LLMatcher(
            self._vocabulary(),
            grammar,
            log_level=0,
            limits=self._library.LLParserLimits(**_LIMITS),
        )
        if matcher.is_error():
            raise _refused(kind, matcher.get_error())
        return Constraint(self, matcher, after)

    def token_bytes(self, token: int) -> bytes:
        """What a token says."""
        return self._tokenizer.token_bytes(token)

    def masks(self, asked: Sequence[tuple[Constraint, Sequence[int]]]) -> list[Masks | None]:
        """Which tokens may come next in each, and after each of the guesses it goes with.

        The guesses are such as ``Constraint.possible`` leaves. Each mask is (1 + guesses, words),
        a bit for each token; None where all are allowed.
        """
        words = (self._vocab + 31) // 32
        whole = np.full((sum(1 + len(draft) for _, draft in asked), words), 0xFFFFFFFF, np.uint32)
        found: list[Masks | None] = []
        single: list[tuple[LLMatcher, int]] = []
        drafted: list[tuple[LLMatcher, int, list[int]]] = []
        row = 0
        for constraint, draft in asked:
            end = row + 1 + len(draft)
            mask: Masks | None = whole[row:end]
            if constraint.active and draft:
                drafted.append((constraint.matcher, row, list(draft)))
            elif constraint.active or constraint.completes(draft):
                single.append((constraint.matcher, end - 1))
            else:
                mask = None
            found.append(mask)
            row = end
        self._fill(whole, single, drafted)
        return found

    def _fill(
        self,
        masks: Masks,
        single: list[tuple[LLMatcher, int]],
        drafted: list[tuple[LLMatcher, int, list[int]]],
    ) -> None:
        """Writes masks to the rows named, and for guesses to those after them."""
        start, width = masks.ctypes.data, masks.strides[0]
        for matcher, row in single:  # some 10 us each: other threads would take as long to wake up
            matcher.unsafe_compute_mask_ptr(start + row * width, width)
        if drafted:
            if self._executor is None:
                self._executor = self._library.LLExecutor(self._threads)
            self._executor.unsafe_compute_mask_ptr_with_draft_token(
                drafted, start, width, len(masks)
            )

    def _vocabulary(self) -> LLTokenizer:
        with self._lock:
            if self._known is None:
                source = _Vocabulary(self._tokenizer, self._vocab)
                eos = sorted(token for token in self._tokenizer.eos_ids if token < self._vocab)
                self._known = self._library.LLTokenizer(
                    cast("TokenizerWrapper", source), n_vocab=self._vocab, eos_token=eos or None
                )
                source.tokens = []  # it has made its own
            return self._known

    def _grammar(self, kind: str, value: object) -> str:
        matcher = self._library.LLMatcher
        if kind == "json":
            schema = _schema_text(value)
            return matcher.grammar_from_json_schema(schema, None, {"whitespace_pattern": _SPACE})
        if kind == "choice":
            return matcher.grammar_from_lark(_choice(value))
        if kind not in ("regex", "lark"):
            raise RequestError(f"the constraint is {kind!r}, expected json, regex, choice or lark")
        if not isinstance(value, str):
            raise RequestError(f"a {kind} constraint is a text, found {type(value).__name__}")
        _check_size(kind, value)
        if kind == "regex":
            return matcher.grammar_from_regex(value)
        return matcher.grammar_from_lark(value)


class Constraint:
    """How far the answer to one request has come. Not thread-safe.

    Attributes:
        active: whether tokens are constrained yet: not before the text of ``after`` is there.
        matcher: has consumed the tokens since then.
    """

    __slots__ = ("_after", "_seen", "active", "grammars", "matcher")

    def __init__(self, grammars: Grammars, matcher: LLMatcher, after: str | None) -> None:
        self.grammars = grammars
        self.matcher = matcher
        self._after = (after or "").encode()
        self._seen = b""  # the end of the text before, where a part of ``after`` may stand
        self.active = after is None

    def possible(self, draft: Sequence[int]) -> Sequence[int]:
        """The beginning of guessed tokens that is allowed and whose masks can be told."""
        if self.active:
            return draft[: self.matcher.validate_tokens(list(draft))]
        seen = self._seen
        for count, token in enumerate(draft, 1):
            seen += self.grammars.token_bytes(token)
            if self._after in seen:
                return draft[:count]
        return draft

    def completes(self, draft: Sequence[int]) -> bool:
        """Whether the constraint begins with these tokens; it has not yet."""
        text = b"".join(self.grammars.token_bytes(token) for token in draft)
        return self._after in self._seen + text

    def take(self, token: int) -> bool:
        """A token was drawn; whether the answer is complete with it.

        What stands behind ``after`` in the same token is not looked at. Raises RequestError where
        the grammar turns out to be too complex.
        """
        if not self.active:
            self._seen += self.grammars.token_bytes(token)
            self.active = self._after in self._seen
            self._seen = self._seen[-len(self._after) :]
            return False
        self.matcher.consume_token(token)
        if self.matcher.is_error():
            raise _refused("answer's", self.matcher.get_error())
        return self.matcher.is_stopped()


def masks_for(asked: Sequence[tuple[Constraint, Sequence[int]]]) -> list[Masks | None]:
    """``Grammars.masks`` of requests of one model."""
    return asked[0][0].grammars.masks(asked) if asked else []


class _Vocabulary:
    """A tokenizer as llguidance asks for it."""

    is_tokenizer_wrapper = True

    def __init__(self, tokenizer: Tokenizer, vocab: int) -> None:
        if tokenizer.eos_id is None and not tokenizer.eos_ids:
            raise UnsupportedError("a model without an end-of-turn token cannot be constrained")
        self.eos_token_id = min(tokenizer.eos_ids) if tokenizer.eos_id is None else tokenizer.eos_id
        self.bos_token_id = tokenizer.bos_id
        self.special_token_ids = sorted(tokenizer.special_ids)
        self.tokens = tokenizer.vocabulary.all_bytes(vocab)
        # The library keeps this object where Python's garbage collector does not look.
        self._tokenizer = weakref.ref(tokenizer)

    def __call__(self, text: str | bytes) -> list[int]:
        tokenizer = self._tokenizer()
        if tokenizer is None:
            return []
        return tokenizer.encode(text if isinstance(text, str) else text.decode("utf-8", "replace"))


def _refused(what: str, reason: str) -> RequestError:
    lines = reason.replace("<non-verbose/>", "").strip().splitlines()
    why = " ".join(line.strip() for line in lines)[:500]
    return RequestError(f"the {what} constraint cannot be followed: {why}")


def _check_size(kind: str, text: str) -> None:
    size = len(text.encode("utf-8", "surrogatepass"))
    if size > _MOST_BYTES:
        raise RequestError(
            f"the {kind} constraint has {size:,} bytes, at most {_MOST_BYTES:,} can be"
        )


def _schema_text(schema: object) -> str:
    if not isinstance(schema, Mapping | bool):
        raise RequestError(f"a JSON schema is an object, found {type(schema).__name__}")
    layer: list[object] = [schema]
    for _ in range(_DEEPEST):
        layer = [
            part
            for node in layer
            if isinstance(node, Mapping | list | tuple)
            for part in (node.values() if isinstance(node, Mapping) else node)
        ]
        if not layer:
            break
    else:
        raise RequestError(f"the JSON schema is more than {_DEEPEST} levels deep")
    try:
        text = json.dumps(schema)
    except (TypeError, ValueError) as error:
        raise RequestError(f"the JSON schema is no JSON: {error}") from error
    _check_size("json", text)
    return text


def _choice(texts: object) -> str:
    if isinstance(texts, str) or not isinstance(texts, Sequence) or not texts:
        raise RequestError("a choice is between texts: expected a list of them")
    if not all(isinstance(text, str) and text for text in texts):
        raise RequestError("a choice is between texts, none of them empty")
    if len(texts) > _MOST_CHOICES:
        raise RequestError(f"there are {len(texts):,} choices, at most {_MOST_CHOICES:,} can be")
    lark = "start: " + " | ".join(json.dumps(text) for text in texts)
    _check_size("choice", lark)
    return lark
