"""Recommendations: limits are kept, reasons add up, answers are stable."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pocketlm import catalog
from pocketlm.advise.device import Device
from pocketlm.advise.performance import planned
from pocketlm.advise.recommend import Choice, Recommended, Wish, judging, recommend
from pocketlm.advise.recommend.rules import rules
from pocketlm.advise.recommend.wish import terms

from .devices import GIB, LAPTOP, PHONE, VM, device

pytestmark = pytest.mark.usefixtures("simple_performance")
many = settings(
    max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)

wishes = st.builds(
    Wish,
    use=st.sampled_from([None, *rules().use]),
    device=st.sampled_from([PHONE, VM, LAPTOP]),
    ram=st.one_of(st.none(), st.integers(GIB // 2, 64 * GIB)),
    min_speed=st.one_of(st.none(), st.floats(0.5, 200)),
    context=st.one_of(st.none(), st.integers(256, 300_000)),
    license=st.sampled_from([None, "permissive", "mit", "gemma,mit"]),
    lang=st.sampled_from([None, "en", "es", "Japanese"]),
    offline=st.just(False),
)


def everything(found: Recommended) -> list[Choice]:
    return [choice for one in found.ranked for choice in (one.best, *one.others)]


@many
@given(wishes)
def test_no_recommendation_breaks_a_limit(wish: Wish) -> None:
    wanted, entries = terms(wish), {str(entry): entry for entry in catalog.entries()}
    found = recommend(wish)
    for choice in everything(found):
        entry = entries[choice.model]
        assert choice.prediction.peak <= wanted.memory <= wanted.device.ram
        assert choice.prediction.decode_at_context >= wanted.min_speed
        assert entry.context >= wanted.context
        assert wanted.licences is None or entry.licence.lower() in wanted.licences
        assert wanted.language is None or any(
            code.partition("-")[0] == wanted.language for code in entry.languages
        )
        assert wanted.use.base or not entry.base
    for gone in found.ruled_out:
        assert gone.violations
    told = [one.best.model for one in found.ranked] + [one.model for one in found.ruled_out]
    assert sorted(told) == sorted(entries)


@many
@given(wishes)
def test_reasons_add_up_and_rank(wish: Wish) -> None:
    found = recommend(wish)
    for choice in everything(found):
        assert choice.points == pytest.approx(sum(one.points for one in choice.reasons))
        assert choice.reasons[0].rule in ("score", "no score")
        assert all(one.says and one.source for one in choice.reasons)
    for one in found.ranked:
        assert all(one.best.points >= other.points - 1e-6 for other in one.others)
    points = [one.best.points for one in found.ranked]
    assert all(a >= b - 1e-6 for a, b in pairwise(points))


@many
@given(wishes)
def test_the_same_wish_has_the_same_answer(wish: Wish) -> None:
    assert recommend(wish) == recommend(wish)


@many
@given(wishes, st.integers(0, 16 * GIB))
def test_more_ram_loses_nothing_that_fits(wish: Wish, more: int) -> None:
    ram = terms(wish).device.ram
    before, after = (
        {(one.model, one.type, one.kv) for one in everything(recommend(replace(wish, ram=size)))}
        for size in (ram, ram + more)
    )
    assert before <= after


@many
@given(wishes)
def test_relaxing_as_told_lets_something_through(wish: Wish) -> None:
    found = recommend(wish)
    if found.ranked:
        assert not found.relax
        return
    for way in found.relax:
        opened = recommend(way.applied(wish))
        assert opened.ranked, way
        assert way.opens in {
            f"{one.model} in {one.type} with a KV cache in {one.kv}" for one in everything(opened)
        }


def test_a_relaxation_is_minimal() -> None:
    wish = Wish(use="chat-mobile", device=PHONE, min_speed=1000.0, offline=False)
    (speed,) = (way for way in recommend(wish).relax if way.changes[0].option == "min_speed")
    reached = speed.changes[0].value
    assert isinstance(reached, float)
    assert not recommend(replace(wish, min_speed=reached * 1.1)).ranked
    wish = Wish(use="reasoning", device=PHONE, ram="250MiB", min_speed=0.1, offline=False)
    ways = {way.changes[0].option: way.changes[0].value for way in recommend(wish).relax}
    gib = float(str(ways["ram"]).removesuffix("GiB"))
    assert not recommend(replace(wish, ram=int((gib - 0.11) * GIB))).ranked


def test_contradictory_limits_say_what_must_give_together() -> None:
    wish = Wish(use="research-ternary", device=PHONE, ram="1GB", lang="es", offline=False)
    found = recommend(wish)
    assert not found.ranked
    (way,) = found.relax
    assert {change.option for change in way.changes} == {"ram", "lang"}
    assert recommend(way.applied(wish)).ranked


def test_memory_that_other_programs_have_is_told_as_such() -> None:
    busy = device(ram=32 * GIB, taken=32 * GIB - (1 << 28))
    wish = Wish(use="document-analysis", device=busy, context="32k", offline=False)
    way = next(way for way in recommend(wish).relax if way.changes[0].option == "ram")
    assert "GiB of the RAM free instead of 0.2" in way.changes[0].says
    assert recommend(way.applied(wish)).ranked


def test_the_nearest_form_of_what_is_ruled_out_is_told_with_figures() -> None:
    found = recommend(Wish(use="chat-mobile", device=PHONE, offline=False))
    by_name = {one.model: one for one in found.ruled_out}
    violation = by_name["phi4:14b"].violations[0]
    assert violation.limit in ("memory", "min_speed")
    assert by_name["phi4:14b"].variant is not None
    assert "wanted at" in str(violation)
    base = by_name["qwen3:0.6b-base"].violations[0]
    assert base.limit == "use"
    assert "base model" in base.found


def test_disk_counts_what_is_pulled_and_what_is_made() -> None:
    small = device(ram=64 * GIB, disk=5 * 10**9, bandwidth=400e9)
    found = recommend(Wish(use="desktop-assistant", device=small, offline=False))
    for choice in everything(found):
        assert choice.disk <= 5 * 10**9
    gone = {one.model: one.violations[0] for one in found.ruled_out}
    assert gone["phi4:14b"].limit == "disk"
    assert "GB to store" in gone["phi4:14b"].found


def test_offline_is_what_is_here() -> None:
    found = recommend(Wish(device=VM, offline=True))
    assert not found.ranked
    assert {one.limit for gone in found.ruled_out for one in gone.violations} >= {"offline"}
    assert any(way.changes[0].option == "offline" for way in found.relax)


def test_what_is_here_is_not_pulled(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(judging, "stored_names", lambda: frozenset({"qwen3:0.6b"}))
    found = recommend(Wish(device=VM, offline=True))
    assert {one.best.model for one in found.ranked} == {"qwen3:0.6b"}
    for choice in everything(found):
        assert choice.here
        assert not any(command.startswith("pocketlm pull") for command in choice.commands)
        assert choice.disk == (choice.prediction.file if choice.made else 0)


def test_the_settings_can_say_offline(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("POCKETLM_OFFLINE", "1")
    assert not recommend(Wish(device=VM)).ranked


def test_commands_follow_from_how_a_form_comes_about() -> None:
    found = recommend(Wish(use="desktop-assistant", device=VM, offline=False))
    made = next(one for one in everything(found) if one.made and one.kv == "q8")
    pull, quantize, serve = made.commands
    assert pull == f"pocketlm pull {made.model}"
    assert quantize.startswith(f"pocketlm quantize {made.model} ")
    assert quantize.endswith(f" {made.type}")
    file = quantize.split()[3]
    assert serve == f"pocketlm serve {file} --context 4096 --kv q8"
    forms = [one for one in everything(found) if one.kv == "f16"]
    (own,) = (one for one in forms if (one.model, one.type) == ("smollm2:135m", "Q4_1"))
    assert own.commands == (
        "pocketlm pull smollm2:135m",
        "pocketlm serve smollm2:135m --context 4096",
    )
    (ready,) = (one for one in forms if (one.model, one.type) == ("qwen3:0.6b", "Q8_0"))
    assert ready.commands == (
        "pocketlm pull hf:Qwen/Qwen3-0.6B-GGUF:Q8_0",
        "pocketlm serve hf:Qwen/Qwen3-0.6B-GGUF:Q8_0 --context 4096",
    )


def test_gated_models_are_allowed_and_said() -> None:
    found = recommend(Wish(use="chat-mobile", device=VM, offline=False))
    forms = [one for one in everything(found) if one.model == "llama3.2:1b"]
    assert all(one.gated for one in forms)
    for one in forms:
        pulls_from_owner = one.commands[0] == "pocketlm pull llama3.2:1b"
        assert any("gated" in note for note in one.notes) == pulls_from_owner
    assert any(one.made for one in forms)


def test_files_of_others_are_said_to_be() -> None:
    found = recommend(Wish(use="chat-mobile", device=VM, offline=False))
    (other,) = (
        one
        for one in everything(found)
        if (one.model, one.type, one.kv) == ("gemma3:1b", "Q4_K_M", "f16")
    )
    assert other.commands[0] == "pocketlm pull hf:ggml-org/gemma-3-1b-it-GGUF:Q4_K_M"
    assert any("others than the model's publisher" in note for note in other.notes)


def test_a_model_that_was_trained_in_its_type_loses_less() -> None:
    found = recommend(Wish(use="chat-mobile", device=VM, offline=False))
    lost = {
        one.model: reason.points
        for one in everything(found)
        if (one.type, one.kv) == ("Q4_0", "f16")
        for reason in one.reasons
        if reason.rule == "type"
    }
    assert lost["gemma3:1b"] > lost["llama3.2:1b"]


def test_a_model_outside_of_the_table_is_ranked_by_its_size_and_says_so() -> None:
    found = recommend(Wish(use="desktop-assistant", device=VM, offline=False))
    (lacking,) = {one.reasons[0] for one in everything(found) if one.model == "smollm2:1.7b"}
    assert lacking.rule == "no score"
    assert "models of its size have there" in lacking.says
    assert "less 10" in lacking.says


def test_the_use_is_by_the_device_where_none_is_given() -> None:
    assert recommend(Wish(device=PHONE, offline=False)).use == "chat-mobile"
    assert recommend(Wish(device=VM, offline=False)).use == "desktop-assistant"


def test_a_device_may_be_named(simple_performance: None) -> None:
    found = recommend(Wish(device="phone-mid-4gb", offline=False))
    assert isinstance(found.device, Device)
    assert found.device.name == "phone-mid-4gb"


OWN = """
[huge.1b]
ref = "hf:a/b"
licence = "mit"
parameters = 1_000_000
context = 1073741824
shape = { family = "llama", layers = 1024, hidden = 1048576, heads = 4096, kv_heads = 4096, head_dim = 4096, ffn = 1048576, vocab = 16777216, context = 1073741824, tied = false }
weights = [{ ref = "hf:a/b", format = "safetensors", quantization = "BF16" }]

[unarmed.1b]
ref = "hf:a/d"
licence = "mit"
parameters = 1_000_000
context = 8192
shape = { family = "llama", layers = 3, hidden = 64, heads = 2, kv_heads = 2, head_dim = 32, ffn = 96, vocab = 100, context = 8192, tied = false }
"""  # noqa: E501


def test_absurd_models_of_a_user_s_catalog_are_ruled_out_and_named(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("pocketlm.advise.recommend.judging.planned", planned)
    entries = catalog.read_entries(OWN, origin="mine")
    found = recommend(Wish(device=VM, offline=False), entries)
    says = {one.model: one.violations[0] for one in found.ruled_out}
    assert says["huge:1b"].limit == says["unarmed:1b"].limit == "engine"
    assert "too many to plan with" in says["huge:1b"].found
    assert "no weights" in says["unarmed:1b"].found
    assert not found.relax
