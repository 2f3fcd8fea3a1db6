"""The native engine as a backend: one sequence in the KV cache, logits of any of its rows.

It drives the engine's runner itself, since evaluation needs neither scheduler nor sampler. Results
do not depend on how a sequence is cut into steps, to the bit; so tokens that the cache has already
from the sequence before are not computed again (the choices of one question begin alike).

Pages go round: page i of a sequence is page i % n of a group that has n. Groups of layers that see
everything have one for each; the others have enough for their window and the tokens of a step.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from pocketlm.backends.backend import Floats, Ints
from pocketlm.engine.build import Built, MemoryPlan, build_engine
from pocketlm.engine.options import EngineOptions, KvType
from pocketlm.engine.runner import StepBatch
from pocketlm.errors import CapacityError, RequestError
from pocketlm.models import ModelSpec, open_model
from pocketlm.progress import ProgressCallback, silent

_STEP_TOKENS = 512
# Rows of logits at once: a step of few tokens reads the weights for few, and with half of all rows
# asked for that costs a fifth of the time where the vocabulary has 262,144 tokens.
_ROWS, _ROW_BYTES = 128, 32 << 20


class NativeBackend:
    """A model on the native engine; a context manager that frees it.

    Attributes:
        vocabulary: logits in a row.
        context: the most tokens that a sequence may have.
        block_rows: the most rows of logits that ``blocks`` gives at once.
        memory: bytes it takes.
        threads: how many it computes with.
    """

    def __init__(
        self,
        spec: ModelSpec,
        *,
        context: int,
        threads: int | None = None,
        kv: KvType = "f16",
        progress: ProgressCallback = silent,
    ) -> None:
        """Packs the weights; ``spec`` may be closed afterwards.

        Raises CapacityError, before the memory is taken, where the model does not fit; RequestError
        for a context beyond what the model was made for.
        """
        options = engine_options(spec, context=context, threads=threads, kv=kv)
        built: Built = build_engine(spec, frozenset(), options, progress=progress)
        runner = built.engine.runner
        self.vocabulary = runner.vocab
        self.context = built.context
        self.block_rows = runner.max_rows
        self.memory: MemoryPlan = built.memory
        self.threads = built.threads
        self._built: Built | None = built
        table = np.arange(-(-self.context // runner.page_positions), dtype=np.int32)
        self._tables = np.stack([table % count for count in runner.pages])[:, None]
        self._written = 0  # positions of the sequences since the last one that began anew
        self._cached: tuple[Ints, int] = (np.empty(0, np.int32), 0)  # tokens and rope variant
        self._calls = 0

    @classmethod
    def open(
        cls,
        path: str | Path,
        *,
        context: int,
        threads: int | None = None,
        kv: KvType = "f16",
        progress: ProgressCallback = silent,
    ) -> NativeBackend:
        """Opens a .gguf file or a safetensors folder; errors as ``open_model`` and the class."""
        spec = open_model(Path(path))
        try:
            return cls(spec, context=context, threads=threads, kv=kv, progress=progress)
        finally:
            spec.close()

    def __enter__(self) -> NativeBackend:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Frees the weights and the cache."""
        from pocketlm._native import return_freed_memory

        self._built = None
        return_freed_memory()

    def logits(self, tokens: Ints) -> Floats:
        """Logits (T, vocabulary) of tokens (T,), one sequence from position 0 on."""
        return np.concatenate(list(self.blocks(tokens)))

    def blocks(self, tokens: Ints, *, first: int = 0, rows: int | None = None) -> Iterator[Floats]:
        """Logits of tokens[first:] in blocks of ``rows`` rows; see ``Backend.blocks``."""
        tokens = np.array(tokens, np.int32)  # its own: it is compared with the next sequence
        rows = self.block_rows if rows is None else rows
        if not 1 <= rows <= self.block_rows:
            raise RequestError(f"rows is {rows}, expected 1 to {self.block_rows}")
        if not 0 <= first < max(1, len(tokens)):
            raise RequestError(f"the first row is {first}, but there are {len(tokens)} tokens")
        if len(tokens) > self.context:
            raise CapacityError(
                f"the sequence has {len(tokens):,} tokens, but the context has {self.context:,}"
            )
        engine = self._alive.engine
        engine.check_ids(tokens.tolist())
        self._calls += 1
        return self._run(tokens, engine.variant(len(tokens)), first, rows, self._calls)

    def _run(
        self, tokens: Ints, variant: int, first: int, rows: int, call: int
    ) -> Iterator[Floats]:
        runner = self._alive.engine.runner
        start = self._known(tokens[:first], variant)
        self._cached = (tokens[:start], variant)
        self._written = self._written if start else 0
        while start < len(tokens):
            if call != self._calls:
                raise RequestError("another sequence was begun before this one was read to its end")
            # Up to `first` nothing is asked for; the step that reaches it brings the first block.
            end = min(max(start, first) + rows, len(tokens))
            wanted = end - max(start, first)
            if end - start > runner.max_tokens:
                end, wanted = min(start + runner.max_tokens, first), 0
            self._written = max(self._written, end)
            logits = runner.step(self._step(tokens[start:end], start, variant, wanted))
            start = end
            self._cached = (tokens[:start], variant)
            if wanted:
                yield logits.copy()  # the next step overwrites them

    def _step(self, part: Ints, start: int, variant: int, wanted: int) -> StepBatch:
        """``part`` at positions from ``start`` on, with the logits of its last ``wanted``."""
        return StepBatch(
            tokens=np.ascontiguousarray(part),
            lengths=np.array([len(part)], np.int32),
            starts=np.array([start], np.int32),
            block_tables=self._tables,
            variants=np.array([variant], np.int32),
            rows=np.arange(len(part) - wanted, len(part), dtype=np.int32),
        )

    def _known(self, tokens: Ints, variant: int) -> int:
        """How many of these tokens the cache has at its beginning, with all that the next sees."""
        cached, cached_variant = self._cached
        if cached_variant != variant:
            return 0
        length = min(len(cached), len(tokens))
        different = np.flatnonzero(cached[:length] != tokens[:length])
        known = int(different[0]) if len(different) else length
        runner = self._alive.engine.runner
        size = runner.page_positions
        for window, pages in zip(runner.windows, runner.pages, strict=True):
            first = max(0, known - window + 1) // size if window else 0
            if -(-self._written // size) - first > pages:  # overwritten since
                return 0
        return known

    @property
    def _alive(self) -> Built:
        if self._built is None:
            raise RequestError("the model is closed")
        return self._built


def engine_options(
    spec: ModelSpec, *, context: int, threads: int | None = None, kv: KvType = "f16"
) -> EngineOptions:
    """What a backend has its engine built with, for who wants to know its memory in advance."""
    return EngineOptions(
        context=context,
        threads=threads,
        kv=kv,
        step_tokens=_STEP_TOKENS,
        output_rows=min(_ROWS, max(1, _ROW_BYTES // (4 * spec.config.vocab))),
        prefix_cache=False,
    )
