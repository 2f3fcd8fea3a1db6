"""The C++ core. Arrays are one-dimensional and C-contiguous unless a shape is given."""

from collections.abc import Callable, Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

PAGE_POSITIONS: int

def isa() -> str: ...
def isas() -> list[str]: ...
def select_isa(name: str) -> None: ...
def return_freed_memory() -> None:
    """Gives memory that was freed back to the system where the C library keeps it."""

def read_bandwidth(threads: int, bytes: int, passes: int) -> list[float]:
    """Bytes per second that ``threads`` read together from a buffer of ``bytes``, of each pass.

    CapacityError where there is no room for the buffer, ValueError for values out of range.
    """

def multiply_add_rate(kind: str, threads: int, seconds: float, passes: int) -> list[float]:
    """Multiply-adds per second that ``threads`` do together in the linear kernels of the
    instruction set in use, on data that stays in the caches; of each pass, of about ``seconds``.
    There are fewer of them where a single product takes longer.

    kind: "int8" (4-bit weights times activations of 8 bits, as in a prompt) or "f32". ValueError
    for values out of range.
    """

def dequantize(type: int, data: NDArray[np.uint8], count: int) -> NDArray[np.float32]:
    """``count`` weights of a GGUF block type; ModelFileError when ``data`` is too short."""

def read_strings(buffer: NDArray[np.uint8], offset: int, count: int) -> tuple[list[str], int]:
    """``count`` GGUF strings from ``offset`` on, and the offset after them.

    Raises ModelFileError when they do not fit the buffer or are not UTF-8.
    """

def quantize(
    source_type: int,
    data: NDArray[np.uint8],
    rows: int,
    cols: int,
    type: int,
    method: str,
    importance: NDArray[np.float32] | None,
    threads: int,
) -> NDArray[np.uint8]:
    """The blocks of ``type`` for the [rows, cols] weights that ``data`` holds as ``source_type``.

    ``method`` is "nearest" (the reference rounding of ggml) or "search" (least squared error,
    weighted by ``importance`` [cols] where given). The bytes depend neither on the threads nor on
    the instruction set. Raises ValueError naming row and column for a weight that is not finite
    or too large for the type.
    """

class Weight:
    """A matrix [rows, cols] packed for the kernels."""

    rows: int
    cols: int
    nbytes: int
    layout: str
    @staticmethod
    def pack(
        type: int,
        rows: int,
        cols: int,
        data: NDArray[np.uint8],
        row_map: NDArray[np.int32] | None = None,
        threads: int = 1,
        read: Callable[[], None] | None = None,
    ) -> Weight:
        """Packs GGUF blocks; row r of the result is row ``row_map[r]`` of the data.

        ``read`` is called after each 16 MiB of the data, for who wants to let its pages go.
        """
    @staticmethod
    def plan(type: int, rows: int, cols: int) -> Weight:
        """A shape without data: an executor of such weights says what it would take."""
    def row(self, i: int) -> NDArray[np.float32]: ...

class Executor:
    """A program with its weights, its KV cache and its threads; one step at a time."""

    def __init__(self, threads: int) -> None: ...
    def buffer(self, width: int) -> int: ...
    def rope_table(
        self,
        inv_freq: NDArray[np.float32],
        inv_freq_long: NDArray[np.float32] | None,
        attention_factor: float,
    ) -> int: ...
    def input(self, buffer: int) -> None:
        """A buffer that ``set_rows`` fills before each step: a stage of a model begins so."""
    def embed(self, dst: int, weight: Weight, scale: float) -> None: ...
    def rms_norm(self, dst: int, src: int, weight: NDArray[np.float32], eps: float) -> None: ...
    def linear(
        self,
        src: int,
        parts: Sequence[tuple[Weight, int, int, NDArray[np.float32] | None]],
        accumulate: bool,
        quantize: str,
    ) -> None: ...
    def rope(
        self,
        qkv: int,
        rope: int,
        heads: int,
        kv_heads: int,
        head_dim: int,
        rotary_dim: int,
        q_norm: NDArray[np.float32] | None,
        k_norm: NDArray[np.float32] | None,
        eps: float,
    ) -> None: ...
    def attention(
        self,
        dst: int,
        qkv: int,
        heads: int,
        kv_heads: int,
        head_dim: int,
        scale: float,
        window: int,
    ) -> None: ...
    def gated(self, dst: int, src: int, kind: str) -> None: ...
    def add(self, dst: int, src: int) -> None: ...
    def select(self, dst: int, src: int) -> None: ...
    def softcap(self, buffer: int, cap: float) -> None: ...
    def finish(self, hidden: int, logits: int) -> None: ...
    def finish_stage(self) -> None:
        """Ends a stage: no select, no logits; ``rows`` gives what a step left in a buffer."""
    def set_rows(self, buffer: int, values: NDArray[np.float32]) -> None:
        """Fills a stage's buffer with [tokens, width]."""
    def rows(self, buffer: int, count: int) -> NDArray[np.float32]:
        """A copy of the first ``count`` rows of a stage's buffer, [count, width]."""
    @property
    def windows(self) -> list[int]:
        """The groups of attention layers that see as many positions (0: all), in order of their
        first layer. Each has pages and block tables of its own."""
    def requirements(
        self, max_tokens: int, max_sequences: int, max_rows: int, pages: Sequence[int], kv: str
    ) -> dict[str, int]:
        """Bytes that allocate would take: ``weights`` (already held), ``kv``, ``workspace``.

        ``pages`` of the KV cache: one number for each group of ``windows``.
        """
    def allocate(
        self, max_tokens: int, max_sequences: int, max_rows: int, pages: Sequence[int], kv: str
    ) -> None: ...
    def populate_cache(self) -> None:
        """Has the system put memory behind the KV cache now, where it can; beside steps too."""
    def step(
        self,
        tokens: NDArray[np.int32],
        lengths: NDArray[np.int32],
        starts: NDArray[np.int32],
        block_tables: NDArray[np.int32],
        variants: NDArray[np.int32],
        rows: NDArray[np.int32],
        hidden: bool = False,
        borrow: bool = False,
    ) -> NDArray[np.float32]:
        """Logits [rows, vocabulary] (or hidden states [rows, width]) after one ragged step; with
        ``borrow`` no copy of them, but what the next step overwrites.

        ``block_tables`` is [groups, sequences, pages] (see ``windows``); the others have one entry
        per token, sequence or output row. Entries of pages before the window of a sequence's first
        new token are not read.
        Raises ValueError for a batch that does not fit what was allocated.
        """

class Sampler:
    """The next token of one sequence; native/sampling/sampler.h has the order of options."""

    def __init__(
        self,
        vocab: int,
        *,
        temperature: float = 1.0,
        top_k: int = 0,
        top_p: float = 1.0,
        min_p: float = 0.0,
        typical_p: float = 1.0,
        repetition_penalty: float = 1.0,
        frequency_penalty: float = 0.0,
        presence_penalty: float = 0.0,
        penalty_window: int = 0,
        logit_bias: Sequence[tuple[int, float]] = (),
        seed: int = 0,
        logprobs: int = -1,
        min_tokens: int = 0,
        ends: Sequence[int] = (),
    ) -> None:
        """ends: ids that are banned before output position ``min_tokens``.

        Raises ValueError for a value out of range.
        """
    def observe(self, ids: NDArray[np.int32], output: bool) -> None:
        """Tokens that the penalties count: the prompt once, then the output as it grows."""
    def observe_output(self, id: int) -> None: ...
    def sample(
        self, logits: NDArray[np.float32], index: int
    ) -> tuple[int, float, tuple[tuple[int, float], ...]]:
        """(id, its log-probability, the best ids with theirs) for output position ``index``.

        Log-probabilities are of the raw logits; without ``logprobs`` they are 0 and (). Raises
        ValueError for NaN or infinite logits and when every token is banned.
        """

def draw_rows(
    logits: NDArray[np.float32],
    asked: Sequence[tuple[Sampler, int, int, Sequence[int], NDArray[np.uint32] | None]],
    executor: Executor | None = None,
) -> list[tuple[list[tuple[int, float, tuple[tuple[int, float], ...]]], str | None, bool]]:
    """Draws for several sequences from ``logits`` [rows, vocab], on the executor's threads.

    asked: (sampler, output position that its first row is for, which row that is, the tokens that
    were guessed to follow, masks or None) for each sequence; it has one row more than guesses. A
    mask has a bit for each token that may come, token i in bit i % 32 of word i // 32; masks are
    [rows, words].

    For each sequence what it drew, up to the first token that was not guessed; its sampler has
    observed that. Then why there is no more: NaN or infinite logits, or every token banned, which
    the third value tells. Raises ValueError for shapes that do not agree.
    """

def score_rows(
    logits: NDArray[np.float32],
    targets: NDArray[np.int32],
    best: int,
    executor: Executor | None = None,
) -> list[tuple[int, float, tuple[tuple[int, float], ...]]]:
    """Of each row of ``logits`` [rows, vocab] its target, the log-probability of that, and the
    ``best`` likeliest ids with theirs. Raises ValueError for NaN or infinite logits."""

def target_logprobs(logits: NDArray[np.float32], targets: NDArray[np.int32]) -> NDArray[np.float64]:
    """log softmax of each row of ``logits`` [rows, vocab] at its target. Raises ValueError."""

def divergence_rows(
    reference: NDArray[np.float32], candidate: NDArray[np.float32], targets: NDArray[np.int32]
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    """Row by row of two logits [rows, vocab]: how the candidate differs from the reference.

    KL(reference || candidate) in nats; log softmax at the target of the reference, of the
    candidate; 1 where both have the same likeliest token, else 0. Raises ValueError.
    """

class Bpe:
    """A vocabulary with its merges: words to ids, ids to the texts of tokens and back.

    tokens: texts by id, all different and not empty.
    control: ids that no merge builds.
    merges: "left right", best first; None where they follow from the vocabulary: any two tokens
        whose joined text is a token merge, ranked by that token.
    order: of implied merges: the rank of each token, smaller first, ties by the longer left and
        then the longer right half; None ranks by id, ties by the shorter left half.
    ignore_merges: a word that is a token is that token.
    byte_fallback: characters that are no tokens become "<0xNN>" tokens.
    unknown: the id of what is left over, -1 to leave it out.

    Raises ModelFileError, whose message begins with "tokens" or "merges".
    """

    nbytes: int
    def __init__(
        self,
        tokens: list[str],
        control: NDArray[np.int32],
        merges: list[str] | None,
        order: NDArray[np.uint32] | None,
        ignore_merges: bool,
        byte_fallback: bool,
        unknown: int,
    ) -> None: ...
    def __len__(self) -> int: ...
    def __getitem__(self, id: int) -> str: ...
    def __iter__(self) -> Iterator[str]: ...
    def find(self, text: str) -> int:
        """The id of a token, -1 where there is none."""

    def encode(self, words: list[str]) -> list[int]:
        """The ids of words that are tokenized one by one; ``UnicodeEncodeError`` for surrogates."""

class TokenFinder:
    """Finds texts in a text: the leftmost, and of those that begin there the longest."""

    def __init__(self, texts: list[str]) -> None: ...
    def find(self, text: str) -> list[tuple[int, int, int]]:
        """(start, end, which), in characters; the finds do not overlap."""
