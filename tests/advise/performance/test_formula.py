"""The formula against sums by hand, and what must hold for every kernel table."""

from __future__ import annotations

from dataclasses import replace

import pytest

from pocketlm import _native
from pocketlm.advise.device import Rates, Throughput
from pocketlm.advise.performance import PlannedModel, planned
from pocketlm.advise.performance.formula import (
    Formula,
    Kernels,
    Product,
    Work,
    kernels,
    kind,
    scaled,
    seconds,
    work,
)
from pocketlm.errors import ModelFileError
from pocketlm.gguf import BlockType
from pocketlm.models.memory import decode_reads

RATES = Rates(read_bandwidth=1e9, int8=1e10, f32=1e9, threads=2)
REACH = Kernels(
    step=0.5,
    op=0.25,
    read=0.5,
    one={"4 bits": 0.1, "floats": 0.1},
    many={"4 bits": 0.2, "floats": 0.2},
    attention=0.5,
    values=0.1,
    start=1.0,
    token=0.001,
    pack=0.1,
    cache=0.5,
    measured="made up",
)
EMPTY = Work(products=(), ops=0, values=0, kv=0, layers=())


@pytest.fixture(scope="module")
def model() -> PlannedModel:
    return planned("qwen3:0.6b")


def test_a_matrix_takes_the_longer_of_reading_and_multiplying() -> None:
    small = replace(EMPTY, products=(Product("4 bits", 10**9, 10**9, last=False),))
    assert seconds(small, RATES, REACH, 1) == pytest.approx(0.5 + 2.0)  # 1e9 / (0.5 x 1e9)
    assert seconds(small, RATES, REACH, 100) == pytest.approx(0.5 + 50.0)  # 1e11 / (0.2 x 1e10)
    logits = replace(small, products=(Product("4 bits", 10**9, 10**9, last=True),))
    assert seconds(logits, RATES, REACH, 100) == pytest.approx(0.5 + 2.0)
    floats = replace(small, products=(Product("floats", 10**9, 10**9, last=False),))
    assert seconds(floats, RATES, REACH, 1) == pytest.approx(0.5 + 10.0)  # by the f32 rate


def test_what_the_cache_holds_is_not_read_again() -> None:
    work = replace(EMPTY, products=(Product("4 bits", 1, 10**9, last=False),))
    assert seconds(work, RATES, REACH, 1, cache=10**9) == pytest.approx(0.5 + 1.0)
    assert seconds(work, RATES, REACH, 1, cache=10**8) == pytest.approx(0.5 + 1.9)
    # a model that is all in it is multiplied at the rate of the kernels
    inside = replace(EMPTY, products=(Product("4 bits", 10**9, 10**9, last=False),))
    assert seconds(inside, RATES, REACH, 1, cache=10**10) == pytest.approx(0.5 + 1.0)
    far = replace(work, kv=10**7, layers=((1, 5, 0),))
    assert seconds(far, RATES, REACH, 1, 100, 10**9) > seconds(work, RATES, REACH, 1, 100, 10**9)


def test_what_is_fixed_and_what_goes_over_values() -> None:
    assert seconds(replace(EMPTY, ops=4), RATES, REACH, 7) == pytest.approx(1.5)
    assert seconds(replace(EMPTY, values=10**8), RATES, REACH, 3) == pytest.approx(0.5 + 3.0)


def test_attention_sees_what_is_before_it_within_its_window() -> None:
    # 10 bytes a position, read at 0.5e9; 2 x 10**6 multiply-adds a pair at 0.5e9.
    full = replace(EMPTY, kv=10, layers=((10**6, 5, 0),))
    near = replace(EMPTY, kv=10, layers=((10**6, 5, 4),))
    assert seconds(full, RATES, REACH, 1, 99) == pytest.approx(0.5 + 2e6 * 100 / 5e8)
    assert seconds(near, RATES, REACH, 1, 99) == pytest.approx(0.5 + 2e6 * 4 / 5e8)
    read = replace(full, kv=10**7, layers=((1, 5, 0),))
    assert seconds(read, RATES, REACH, 1, 99) == pytest.approx(0.5 + 1e9 / 5e8)


def test_a_prompt_is_computed_in_steps() -> None:
    steps = Formula(EMPTY, RATES, REACH)
    assert steps.prompt(512) == pytest.approx(0.5)
    assert steps.prompt(1025) == pytest.approx(1.5)
    assert steps.prefill(1024) == pytest.approx(1024.0)
    assert steps.load(10**8, 1000) == pytest.approx(1.0 + 1.0 + 1.0)


def test_work_is_what_the_program_does(model: PlannedModel) -> None:
    types = model.file("Q4_0").types
    found = work(model.spec, types, "q8")
    config = model.spec.config
    assert (
        sum(one.nbytes for one in found.products)
        == decode_reads(model.spec, 1, "q8", types).weights
    )
    assert found.kv == decode_reads(model.spec, 1, "q8", types).kv
    assert (
        found.layers
        == ((config.heads * config.head_dim, config.kv_heads * config.head_dim, 0),) * config.layers
    )
    head = found.products[-1]
    assert head.last
    assert head.weights == 2 * config.vocab * config.hidden  # its activations have two bytes
    assert not found.products[0].last


def test_fewer_threads_have_less() -> None:
    assert scaled(RATES, 4) == RATES
    assert scaled(RATES, 1).int8 == 5e9
    one = replace(RATES, threads=3, one_thread=Throughput(8e8, 4e9, 4e8))
    assert (scaled(one, 1).read_bandwidth, scaled(one, 2).read_bandwidth) == (8e8, 9e8)


@pytest.mark.parametrize("isa", ["avx512", "avx2", "neon", "asimd", "scalar"])
def test_every_kind_of_codes_has_its_shares(isa: str) -> None:
    reach = kernels(isa)
    assert set(reach.one) == set(reach.many) >= {kind(name) for name in _packed()}
    assert len(reach.measured) > 20


def _packed() -> list[str]:
    """The layouts of all types that can be packed."""
    found = []
    for one in BlockType:
        try:
            found.append(_native.Weight.plan(int(one), 256, 256).layout)
        except ModelFileError:
            continue
    assert len(found) > 12
    return found
