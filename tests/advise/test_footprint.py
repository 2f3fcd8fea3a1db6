"""Footprints: sizes against the files that quantize writes and the memory that loading takes."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from engine import tiny_file
from engine.tiny_file import CONTEXT, write_tiny_model
from pocketlm.advise.footprint import DEFAULT_TYPES, Footprint, footprint
from pocketlm.convert.to_folder import write_folder
from pocketlm.errors import NotFoundError, PocketLMError, RequestError
from pocketlm.models import open_model
from pocketlm.models.build import build_executor
from pocketlm.quantize.file_types import FILE_TYPES
from pocketlm.quantize.quantization import quantize


@pytest.fixture
def tiny(tmp_path: Path) -> Path:
    """F32, of rows that K types do not fit."""
    return write_tiny_model(tmp_path / "tiny.gguf")


@pytest.fixture
def wide(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """F32, of rows that every type fits."""
    for name, value in {"HIDDEN": 256, "FFN": 512, "HEAD_DIM": 64}.items():
        monkeypatch.setattr(tiny_file, name, value)
    return write_tiny_model(tmp_path / "wide.gguf")


def in_type(path: Path, type: str, **options: int) -> Footprint:
    return footprint(path, [type], **options)[-1]


@pytest.mark.parametrize("type", FILE_TYPES)
def test_the_file_is_what_quantize_writes(type: str, tiny: Path, wide: Path) -> None:
    for source in (tiny, wide):
        predicted = in_type(source, type, threads=1)
        made = source.with_name(f"{source.stem}-{type}.gguf")
        if type == "F32":  # what the file is already
            assert predicted.on_disk
            continue
        written = quantize(source, made, type)
        assert predicted.file == made.stat().st_size
        assert predicted.bits_per_weight == written.bits_per_weight
        spec = open_model(made)
        needed = build_executor(spec, threads=1).requirements(256, 1, 1, [CONTEXT // 32], "f16")
        spec.close()
        found = (predicted.weights, predicted.kv, predicted.workspace)
        assert found == (needed["weights"], needed["kv"], needed["workspace"])
        (own,) = footprint(made, [], threads=1)
        assert (own.type, own.weights, own.peak) == (type, predicted.weights, predicted.peak)


def test_the_file_on_disk_comes_first(wide: Path) -> None:
    found = footprint(wide)
    assert [one.type for one in found] == ["F32", *DEFAULT_TYPES]
    assert [one.on_disk for one in found] == [True] + [False] * len(DEFAULT_TYPES)
    assert found[0].measured_file == found[0].file == wide.stat().st_size
    assert found[0].measured_peak is None
    assert not any(one.requantized for one in found)
    half = found[1]
    assert half.reduction == 0
    for one in found:
        assert one.reduction == pytest.approx(1 - one.file / half.file)
        assert one.bits_per_weight == pytest.approx(8 * one.file / one.parameters)
    files = {one.type: one.file for one in found}
    assert files["Q2_K"] < files["Q3_K_M"] < files["Q4_0"] < files["Q5_1"] < files["Q8_0"]


def test_a_type_that_the_file_has_is_not_repeated(wide: Path) -> None:
    made = wide.with_name("m.gguf")
    quantize(wide, made, "q4_k_m")
    found = footprint(made, ["Q4_K_M", "q8_0", "Q8_0"])
    assert [(one.type, one.on_disk) for one in found] == [("Q4_K_M", True), ("Q8_0", False)]


def test_what_would_be_made_of_a_quantized_file_says_so(wide: Path) -> None:
    made = wide.with_name("m.gguf")
    quantize(wide, made, "Q4_0")
    of_original, of_quantized = in_type(wide, "Q3_K_M"), in_type(made, "Q3_K_M")
    assert of_quantized.requantized
    # the file that quantize made says how, which is 48 bytes of metadata
    assert of_quantized.weights == of_original.weights
    assert abs(of_quantized.file - of_original.file) < 128


def test_the_cache_grows_with_the_context(tiny: Path) -> None:
    long, short = (in_type(tiny, "Q8_0", context=n) for n in (CONTEXT, CONTEXT // 4))
    assert long.kv == 4 * short.kv
    assert long.kv_per_1k == short.kv_per_1k == long.kv * 1024 // CONTEXT
    assert long.peak - short.peak >= long.kv - short.kv
    assert footprint(tiny, [], kv="f32", context=CONTEXT)[0].kv == 2 * long.kv


def test_the_cache_in_8_bits_is_half_a_cache_and_a_scale_for_each_vector(tiny: Path) -> None:
    config = open_model(tiny).config
    vectors = 2 * config.layers * config.kv_heads * CONTEXT
    half = in_type(tiny, "Q8_0", context=CONTEXT).kv // 2
    assert footprint(tiny, [], kv="q8", context=CONTEXT)[0].kv == half + 4 * vectors


def test_a_folder_is_sized_as_the_file_that_it_becomes(wide: Path, tmp_path: Path) -> None:
    folder = tmp_path / "folder"
    write_folder(wide, folder)
    found = footprint(folder, ["Q8_0", "Q4_K_M"])
    assert found[0].file == sum(file.stat().st_size for file in folder.iterdir())
    for one in found[1:]:
        made = tmp_path / f"{one.type}.gguf"
        quantize(folder, made, one.type)
        assert one.file == made.stat().st_size


def test_a_model_that_is_not_here_is_sized_by_the_catalog() -> None:
    found = footprint("gemma3:270m", ["Q8_0", "Q4_0"], context=512)
    assert [one.type for one in found] == ["BF16", "Q8_0", "Q4_0"]
    assert not any(one.where == "here" or one.on_disk or one.requantized for one in found)
    assert all(one.measured_file is None for one in found)
    assert found[0].parameters == 268_098_176
    assert found[0].file > 2 * found[0].parameters
    assert found[0].peak > found[1].peak > found[2].peak
    assert footprint("hf:google/gemma-3-270m-it", [])[0].type == "BF16"
    # what is asked to be measured is not here
    assert footprint("gemma3:270m", [], measure=True)[0].measured_peak is None


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"types": ["Q4_9"]}, "no file type 'Q4_9'"),
        ({"context": CONTEXT + 1}, "made for 256"),
        ({"context": 0}, "context is 0"),
        ({"kv": "q4"}, "kv is 'q4'"),
        ({"threads": -1}, "threads is -1"),
    ],
)
def test_options_that_make_no_sense(options: dict, message: str, tiny: Path) -> None:
    with pytest.raises(RequestError, match=message):
        footprint(tiny, **options)


def test_what_is_no_model(tmp_path: Path) -> None:
    with pytest.raises(NotFoundError):
        footprint("nothing-of-this-name")
    with pytest.raises(NotFoundError):
        footprint(tmp_path / "absent.gguf")
    with pytest.raises(PocketLMError, match=r"config\.json"):
        footprint(tmp_path)
    broken = tmp_path / "broken.gguf"
    broken.write_bytes(b"GGUF" + bytes(20))
    with pytest.raises(PocketLMError):
        footprint(broken)


def test_measuring_says_what_the_process_said(tiny: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("POCKETLM_ISA", "none such")
    with pytest.raises(PocketLMError, match=r"measuring failed: .*POCKETLM_ISA"):
        footprint(tiny, [], measure=True)


@pytest.mark.real
@pytest.mark.parametrize(("name", "context"), [("smollm2:135m", 2048), ("gemma3:270m", 512)])
def test_the_predicted_peak_is_within_5_percent(
    name: str, context: int, real_model: Callable[[str], Path], tiny: Path
) -> None:
    """A tiny model first: its peak is the process, whose part varies with the page cache."""
    process = _measured_beyond_predicted(tiny)[1]
    assert -8 << 20 < process < 32 << 20
    found, beyond = _measured_beyond_predicted(real_model(name), context)
    assert abs(beyond - process) < 0.05 * found.peak


def _measured_beyond_predicted(path: Path, context: int | None = None) -> tuple[Footprint, int]:
    (found,) = footprint(path, [], context=context, measure=True)
    assert found.measured_peak is not None
    return found, found.measured_peak - found.peak
