"""How long a step of a model takes on a device, from what it reads and what it multiplies.

    work(spec, types) -> Work               what a step has to do, read off the program
    Formula(work, rates, kernels(isa))      how long that takes, in tokens/s

A matrix takes as long as the slower of two: reading it from memory, and multiplying it with every
token of the step; what the last-level cache still holds of the step before is not read again.
Attention reads the keys and values of a sequence and multiplies each token with
those before it. What is left is a fixed time for each step and each op (threads meet after every
op), and the arithmetic between matrices, which counts values.

The device gives three rates. ``formula.toml`` says which share of them the kernels reach: few
numbers for each instruction set, fitted to measurements that it names.
"""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cache
from importlib.resources import files
from typing import Annotated, ClassVar

from pydantic import ConfigDict, Field, TypeAdapter

from pocketlm import _native
from pocketlm.advise.device import Rates
from pocketlm.gguf import BlockType
from pocketlm.models.memory import decode_reads
from pocketlm.models.program import (
    Add,
    Attention,
    Gated,
    Linear,
    Op,
    Program,
    RmsNorm,
    RotateHeads,
    Select,
)
from pocketlm.models.spec import ModelSpec

_FILE = "formula.toml"
_KINDS = {
    "4 bits": ("Q4_0", "Q4_1", "Q4_K"),
    "5 or 6 bits": ("Q5_0", "Q5_1", "Q5_K", "Q6_K"),
    "8 bits": ("Q8_0",),
    "2 or 3 bits": ("Q2_K", "Q3_K", "Ternary"),
    "floats": ("F32", "F16", "BF16"),
}

Share = Annotated[float, Field(gt=0, le=10)]
Time = Annotated[float, Field(ge=0, le=10)]


@dataclass(frozen=True)
class Kernels:
    """What the kernels of an instruction set reach.

    Attributes:
        step, op: seconds for each step, and for each op of one.
        read: share of the read bandwidth at which matrices and the KV cache are read.
        one: share of the int8 rate at which a single token is multiplied, by kind of codes.
        many: the same of a prompt. Matrices of floats: shares of the f32 rate.
        attention: share of the f32 rate.
        values: share of the f32 rate at which values between matrices are gone over.
        start, token: seconds until a process has read its first byte of a model, and for each
            token of the vocabulary.
        pack: share of the read bandwidth at which weights are packed.
        cache: share of the last-level cache that still holds of a step's bytes what the next step
            reads; what is there is multiplied as fast as ``one`` and ``many`` say.
        measured: on what, or what it is derived from.
    """

    __pydantic_config__: ClassVar[ConfigDict] = ConfigDict(extra="forbid")

    step: Time
    op: Time
    read: Share
    one: Mapping[str, Share]
    many: Mapping[str, Share]
    attention: Share
    values: Share
    start: Time
    token: Time
    pack: Share
    cache: Share
    measured: str


@dataclass(frozen=True)
class Product:
    """A matrix of a step.

    Attributes:
        kind: of its codes, as in ``Kernels``.
        weights: multiply-adds for each token.
        nbytes: packed.
        last: whether only the row whose logits are wanted is multiplied.
    """

    kind: str
    weights: int
    nbytes: int
    last: bool


@dataclass(frozen=True)
class Work:
    """What a step has to do.

    Attributes:
        products: its matrices.
        ops: how many there are.
        values: between matrices, for each token.
        kv: bytes of all layers' keys and values of a position.
        layers: of each attention: values of a query, of a key, and the window (0: none).
    """

    products: tuple[Product, ...]
    ops: int
    values: int
    kv: int
    layers: tuple[tuple[int, int, int], ...]


def work(spec: ModelSpec, types: Mapping[str, BlockType], kv: str = "f16") -> Work:
    """What a step of the model does with matrices of these types and a KV cache in type ``kv``."""
    products: list[Product] = []
    values, last = 0, False
    for op in spec.program.ops:
        last = last or isinstance(op, Select)
        if isinstance(op, Linear):
            width = spec.program.buffers[op.src]
            for part in op.parts:
                packed = _native.Weight.plan(int(types[part.weight]), part.rows, width)
                twice = 2 if op.quantize == "fine" else 1  # activations are two bytes
                weights = twice * part.rows * width
                products.append(Product(kind(packed.layout), weights, packed.nbytes, last))
        if not last:
            values += _values(op, spec.program)
    layers = tuple(
        (op.heads * op.head_dim, op.kv_heads * op.head_dim, op.window)
        for op in spec.program.ops
        if isinstance(op, Attention)
    )
    per_position = decode_reads(spec, 1, kv, types).kv
    return Work(tuple(products), len(spec.program.ops), values, per_position, layers)


def _values(op: Op, program: Program) -> int:
    """Values that an op between matrices, or the quantization before one, goes over."""
    match op:
        case RotateHeads():
            return (op.heads + op.kv_heads) * op.head_dim
        case Gated() | RmsNorm() | Linear() | Add():
            return program.buffers[op.src]
        case _:
            return 0


def kind(layout: str) -> str:
    """The kind of codes that a packed layout has."""
    return next(name for name, layouts in _KINDS.items() if layout in layouts)


def kernels(isa: str) -> Kernels:
    """What the kernels of an instruction set reach; those without their own figures have what
    ``formula.toml`` derives for all others."""
    found = _table()
    return found.get(isa, found["others"])


@cache
def _table() -> dict[str, Kernels]:
    text = (files(__package__) / _FILE).read_text("utf-8")
    return TypeAdapter(dict[str, Kernels]).validate_python(tomllib.loads(text))


def seconds(
    work: Work, rates: Rates, reach: Kernels, tokens: int, before: int = 0, cache: int = 0
) -> float:
    """Time of a step.

    Args:
        work: what it does.
        rates: of the device.
        reach: which share of them there is.
        tokens: of one sequence.
        before: positions before them.
        cache: bytes of the last-level cache.
    """
    read = reach.read * rates.read_bandwidth / max(_missed(work, reach, before, cache), 1e-3)
    total = reach.step + reach.op * work.ops
    total += tokens * work.values / (reach.values * rates.f32)
    for product in work.products:
        rows = 1 if product.last else tokens
        shares = reach.one if rows == 1 else reach.many
        rate = rates.f32 if product.kind == "floats" else rates.int8
        multiply = rows * product.weights / (shares[product.kind] * rate)
        total += max(product.nbytes / read, multiply)
    return total + _attention(work, read, reach.attention * rates.f32, tokens, before)


def _missed(work: Work, reach: Kernels, before: int, cache: int) -> float:
    """The share of what a step reads that is not in the cache since the one before."""
    weights = sum(product.nbytes for product in work.products)
    keys = max(1, sum(width for _, width, _ in work.layers))
    seen = sum(width * min(before, window or before) for _, width, window in work.layers) / keys
    return max(0.0, 1 - reach.cache * cache / max(1, weights + work.kv * seen))


def _attention(work: Work, read: float, rate: float, tokens: int, before: int) -> float:
    """Each layer reads what its tokens see, and multiplies each of them with what it sees."""
    total = 0.0
    keys = sum(width for _, width, _ in work.layers)
    for queries, width, window in work.layers:
        seen = min(before + tokens, window + tokens - 1) if window else before + tokens
        mean = min(before + (tokens + 1) / 2, window) if window else before + (tokens + 1) / 2
        nbytes = work.kv * width / keys * seen
        total += max(nbytes / read, 2 * queries * tokens * mean / rate)
    return total


def prefill_seconds(
    work: Work,
    rates: Rates,
    reach: Kernels,
    prompt: int,
    cache: int = 0,
    step_tokens: int = 512,
) -> float:
    """Time of a prompt, which is computed in steps."""
    return sum(
        seconds(work, rates, reach, min(step_tokens, prompt - start), start, cache)
        for start in range(0, prompt, step_tokens)
    )


@dataclass(frozen=True)
class Formula:
    """A model in its types on a device, whose last-level cache has ``cache`` bytes."""

    work: Work
    rates: Rates
    reach: Kernels
    cache: int = 0

    def prefill(self, prompt: int) -> float:
        """Tokens/s of a prompt."""
        return prompt / self.prompt(prompt)

    def decode(self, positions: int) -> float:
        """Tokens/s with so many before."""
        return 1 / seconds(self.work, self.rates, self.reach, 1, positions, self.cache)

    def prompt(self, prompt: int) -> float:
        """Seconds of a prompt."""
        return prefill_seconds(self.work, self.rates, self.reach, prompt, self.cache)

    def load(self, weights: int, vocabulary: int) -> float:
        """Seconds from the start of a process until it can read a prompt, with the file in the page
        cache, for so many bytes of packed weights and tokens."""
        reach = self.reach
        packing = weights / (reach.pack * self.rates.read_bandwidth)
        return reach.start + reach.token * vocabulary + packing


def scaled(rates: Rates, threads: int) -> Rates:
    """The rates of fewer threads than were measured: between those of one thread, or the same share
    of each where that was not measured, and of all."""
    if threads >= rates.threads:
        return rates
    one = rates.one_thread
    share = (threads - 1) / (rates.threads - 1)

    def between(name: str) -> float:
        most: float = getattr(rates, name)
        least = most / rates.threads if one is None else float(getattr(one, name))
        return least + share * (most - least)

    return replace(
        rates,
        threads=threads,
        read_bandwidth=between("read_bandwidth"),
        int8=between("int8"),
        f32=between("f32"),
    )
