"""Planned models: of files against what quantize writes, of catalog facts against files."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from engine.tiny_file import CONTROL, write_tiny_model
from pocketlm.advise.performance import planned, residence
from pocketlm.catalog import find
from pocketlm.errors import NotFoundError, RequestError, UnsupportedError
from pocketlm.quantize.file_types import FILE_TYPES
from pocketlm.quantize.quantization import quantize

TYPES = ("F16", "Q8_0", "Q5_1", "Q4_K_M", "Q4_0", "Q2_K")


@pytest.fixture
def tiny(tmp_path: Path) -> Path:
    return write_tiny_model(tmp_path / "tiny.gguf")


@pytest.mark.parametrize("type", FILE_TYPES)
def test_a_file_is_as_large_as_quantize_makes_it(type: str, tiny: Path) -> None:
    file = planned(tiny).file(type)
    if type == "F32":
        assert file.own
        assert file.size == tiny.stat().st_size
        return
    made = quantize(tiny, tiny.with_name("made.gguf"), type)
    assert (file.size, file.own, file.requantized) == (made.size, False, False)
    there = planned(made.path)
    assert there.file().types == there.file(type).types == file.types
    assert there.file(type).own
    assert there.own_type == type
    assert there.file("Q4_1" if type != "Q4_1" else "Q5_0").requantized == (
        type not in ("F16", "BF16")
    )


@pytest.mark.parametrize("more", [0, 1, 5000, 5001])
def test_long_vocabularies_count_to_the_byte(more: int, tmp_path: Path) -> None:
    control = [*CONTROL, *(f"<|reserved_special_token_{i}|>" for i in range(more))]
    path = write_tiny_model(tmp_path / "tiny.gguf", control=control, template=None)
    for type in ("Q8_0", "Q4_0"):
        made = quantize(path, tmp_path / f"{type}.gguf", type)
        assert planned(path).file(type).size == made.size == made.path.stat().st_size


@pytest.mark.parametrize("name", ["smollm2:135m", "gemma3:270m"])
def test_a_catalog_entry_is_planned_as_its_file(
    name: str, real_model: Callable[[str], Path]
) -> None:
    entry = find(*name.split(":"))
    assert entry is not None
    known, there = planned(entry), planned(real_model(name))
    assert (known.here, known.size, known.own_type) == (False, None, "BF16")
    assert there.here
    assert known.parameters == there.parameters == entry.parameters
    for type in TYPES:
        ours, theirs = known.file(type), there.file(type)
        assert ours.types == theirs.types
        # the texts of the tokenizer are an estimate
        assert ours.size == pytest.approx(theirs.size, abs=100_000)
        sizes = [
            residence(model, file, context=512, kv="f16", threads=2)
            for model, file in ((known, ours), (there, theirs))
        ]
        assert (sizes[0].weights, sizes[0].kv) == (sizes[1].weights, sizes[1].kv)
        assert sizes[0].peak == pytest.approx(sizes[1].peak, rel=0.02)


def test_a_ref_is_of_the_store_or_else_of_the_catalog(tiny: Path) -> None:
    assert planned(str(tiny)).here
    known = planned("gemma3:1b")
    assert not known.here
    assert known.file().type == "BF16"
    assert known.file() is known.file("bf16")
    with pytest.raises(NotFoundError):
        planned("gemma3:2b")
    with pytest.raises(RequestError, match="Q4_K_X"):
        known.file("Q4_K_X")


def test_what_pocketlm_does_not_run_is_refused() -> None:
    for name in ("granite4:350m", "lfm2:350m"):
        entry = find(*name.split(":"))
        assert entry is not None
        with pytest.raises(UnsupportedError, match="not"):
            planned(entry)
