"""What is recommended for three devices, and with which reasons.

Predictions are the simple model's, so that what these hold is the rules and the catalog, and not
how well speed is predicted.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from pocketlm.advise.device import to_json
from pocketlm.advise.recommend import Choice, Wish, recommend

from .devices import VM

pytestmark = pytest.mark.usefixtures("simple_performance")


@pytest.fixture
def vm(tmp_path: Path) -> str:
    """A machine of two cores, in a file that it wrote."""
    path = tmp_path / "vm.json"
    path.write_text(to_json(VM), "utf-8")
    return str(path)


def best(wish: Wish, most: int = 3) -> list[Choice]:
    return [one.best for one in recommend(wish).ranked[:most]]


def named(choices: list[Choice]) -> list[tuple[str, str, str]]:
    return [(one.model, one.type, one.kv) for one in choices]


def rules_of(choice: Choice) -> list[str]:
    return [one.rule for one in choice.reasons]


def test_a_phone_of_4_gb() -> None:
    """Micro, near the original since so small a model leaves room; a small one comes after."""
    found = best(Wish(device="phone-mid-4gb", offline=False))
    assert named(found) == [
        ("qwen3:0.6b", "Q8_0", "f16"),
        ("gemma3:1b", "Q5_1", "f16"),
        ("qwen3:1.7b", "Q5_1", "f16"),
    ]
    assert rules_of(found[0]) == [
        "score", "micro-on-phones", "favours mobile", "type", "q8_0-near-original", "speed",
    ]  # fmt: skip
    assert found[0].reasons[0].says == "MMLU 44.93, IFEval 64.24 in the table lfm2-card"
    assert "q5_1-for-balance" in rules_of(found[1])
    assert "micro-on-phones" not in rules_of(found[2])


def test_a_machine_of_two_cores(vm: str) -> None:
    """Small for balance; the 8B model is slowed down by its size, and needs fewer bits."""
    found = best(Wish(device=vm, offline=False), most=2)
    assert named(found) == [("qwen3:4b", "Q8_0", "f16"), ("qwen3:8b", "Q5_K_M", "q8")]
    assert rules_of(found[0]) == [
        "score", "small-for-balance", "type", "q8_0-near-original", "speed",
    ]  # fmt: skip
    assert found[0].commands == (
        "pocketlm pull qwen3:4b",
        "pocketlm quantize qwen3:4b qwen3-4b-q8_0.gguf Q8_0",
        "pocketlm serve qwen3-4b-q8_0.gguf --context 4096",
    )


def test_a_laptop_of_16_gb_that_codes() -> None:
    """Q5_1 for balance: at 8k the model's Q8_0 would take more than half of the memory."""
    found = best(Wish(device="laptop-core-i5-1235u-16gb", use="coding", offline=False))
    assert named(found)[:2] == [("qwen3:4b", "Q5_1", "f16"), ("qwen3:1.7b", "Q8_0", "f16")]
    assert rules_of(found[0])[:4] == ["score", "favours code", "type", "q5_1-for-balance"]
    assert found[0].reasons[0].says == ("MATH-500 84.8, IFEval 81.2 in the table qwen3-report-chat")


@pytest.mark.parametrize("device", ["phone-mid-4gb", "laptop-core-i5-1235u-16gb"])
def test_research_on_ternary_models(device: str) -> None:
    found = best(Wish(device=device, use="research-ternary", offline=False))
    assert {one.model for one in found} == {"bitnet:2b", "bitnet:2b-bf16"}
    assert found[0].type == "TQ2_0"
    assert "ternary-for-research" in rules_of(found[0])


def test_spanish_under_a_permissive_licence(vm: str) -> None:
    wish = Wish(device=vm, lang="es", license="permissive", offline=False)
    assert {one.licence for one in best(wish, most=99)} <= {"apache-2.0", "mit"}
    gone = {one.model: one.violations[0] for one in recommend(wish).ruled_out}
    assert gone["gemma3:1b"].limit == "license"
    assert gone["smollm2:1.7b"].limit == "lang"
    assert gone["smollm2:1.7b"].found == "en"
