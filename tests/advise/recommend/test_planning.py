"""Plans: which types of one model fit a device, the best of them, and how long a context may be."""

from __future__ import annotations

from dataclasses import replace

import pytest

from pocketlm.advise.recommend import plan
from pocketlm.errors import NotFoundError, RequestError

from .devices import LAPTOP, PHONE, VM
from .simple import Stood, predicted

pytestmark = pytest.mark.usefixtures("simple_performance")


def test_forms_fit_or_not_by_their_peak() -> None:
    found = plan("qwen3:1.7b", device=PHONE, context="2k")
    assert [form.fits for form in found.forms] == [
        form.prediction.peak <= found.memory for form in found.forms
    ]
    sizes = [form.prediction.file for form in found.forms]
    assert sizes == sorted(sizes, reverse=True)
    assert {form.type for form in found.forms} >= {"BF16", "Q8_0", "Q5_1", "Q4_0"}


def test_the_longest_context_is_the_last_that_fits() -> None:
    found = plan("qwen3:4b", device=LAPTOP)
    model = Stood(4_022_468_096)

    def fits(type: str, kv: str, context: int) -> bool:
        return predicted(model, type, LAPTOP, context=context, kv=kv).peak <= found.memory

    for form in found.forms:
        for kv, longest in form.longest.items():
            if longest:
                assert fits(form.type, kv, longest)
                assert longest == 40_960 or not fits(form.type, kv, longest + 1)
            else:
                assert not fits(form.type, kv, 256)
        assert form.longest["f32"] <= form.longest["f16"] <= form.longest["q8"]


def test_the_best_form_is_fast_enough_and_says_why() -> None:
    found = plan("qwen3:1.7b", device=VM)
    best = next(form for form in found.forms if form.type == found.best)
    assert best.fits
    assert best.prediction.decode_at_context >= found.min_speed
    assert found.why
    assert best.commands[-1].startswith("pocketlm serve ")


def test_where_nothing_is_fast_enough_it_is_the_fastest_of_what_is_good() -> None:
    assert LAPTOP.rates is not None
    slow = replace(LAPTOP, rates=replace(LAPTOP.rates, read_bandwidth=1e9))
    found = plan("qwen3:4b", device=slow)
    assert found.best == "Q4_K_M"  # as small as Q4_0 here, and better
    assert "none reaches 8 tokens/s" in found.why[0].says


def test_where_nothing_fits_the_ram_that_would_do_is_told() -> None:
    found = plan("phi4:14b", device=PHONE)
    assert found.best is None
    assert not found.why
    assert plan("phi4:14b", device=PHONE, ram=found.ram_needed).best is not None
    assert plan("phi4:14b", device=PHONE, ram=found.ram_needed - 1).best is None


def test_a_repository_of_the_catalog_is_its_entry() -> None:
    assert plan("hf:Qwen/Qwen3-1.7B", device=VM) == plan("qwen3:1.7b", device=VM)


@pytest.mark.parametrize(
    ("ref", "options", "kind", "message"),
    [
        ("qwen3:1.7b", {"context": "1m"}, RequestError, "1,048,576 is wanted, qwen3:1.7b is made"),
        ("qwen3:1.7b", {"context": "?"}, RequestError, "tokens such as"),
        ("qwen3:1.7b", {"kv": "q4"}, RequestError, "KV cache is 'q4', expected one of f16, q8"),
        ("qwen3:1.7b", {"ram": "1"}, RequestError, "the RAM is '1'"),
        ("qwen3:1.7b", {"device": "nothing"}, NotFoundError, "no device 'nothing'"),
        ("qwen9:1b", {}, NotFoundError, "qwen9:1b"),
        ("./no.gguf", {}, NotFoundError, "no.gguf"),
    ],
)
def test_refusals(
    ref: str, options: dict[str, str], kind: type[RequestError], message: str
) -> None:
    with pytest.raises(kind, match=message):
        plan(ref, **({"device": PHONE} | options))  # type: ignore[arg-type]
