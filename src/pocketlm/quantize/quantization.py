"""One quantization, from names and files to a file: what ``pocketlm quantize`` and Python call.

The ladder of methods meets here. Each rung is kept only if it brings the model closer to the
original on text that nothing was fitted to.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, get_args

from pocketlm.convert.stream import TensorStream, open_stream
from pocketlm.engine.machine import available_cores
from pocketlm.errors import RequestError
from pocketlm.evaluate.texts import CALIBRATION_KEY
from pocketlm.gguf import TensorData, Value, gguf_nbytes
from pocketlm.models import open_model
from pocketlm.progress import ProgressCallback, silent
from pocketlm.quantize.calibration_text import (
    BUILTIN,
    DEFAULT_TOKENS,
    LENGTH,
    CalibrationText,
    read_calibration,
)
from pocketlm.quantize.file_types import file_type, writable_type
from pocketlm.quantize.files import (
    Written,
    encoder,
    final_metadata,
    refuse_overwriting,
    write_quantized,
)
from pocketlm.quantize.importance import Importance
from pocketlm.quantize.ladder import Ladder
from pocketlm.quantize.measuring import measure_importance
from pocketlm.quantize.plan import PlannedTensor, Recipe, plan
from pocketlm.store import Store
from pocketlm.text import Tokenizer

Method = Literal["nearest", "search", "calibrated", "distilled"]
METHODS: tuple[str, ...] = get_args(Method)


@dataclass(frozen=True)
class Quantized:
    """A file that was written.

    Attributes:
        path: where.
        file_type: its name, as ``Q4_K_M``.
        size: bytes.
        bits_per_weight: of the whole file.
        method: that made what was kept.
        fallbacks: tensors that could not have the wanted type, and the type they got.
        held_out: mean KL(original || file) in nats a token for each method that was judged, on
            calibration text that was not fitted to; empty where none was.
    """

    path: Path
    file_type: str
    size: int
    bits_per_weight: float
    method: str
    fallbacks: dict[str, str] = field(default_factory=dict)
    held_out: dict[str, float] = field(default_factory=dict)


def make_recipe(
    type: str,
    *,
    overrides: Sequence[str] = (),
    output_type: str | None = None,
    embedding_type: str | None = None,
    pure: bool = False,
    allow_requantize: bool = False,
) -> Recipe:
    """A recipe from names; ``overrides`` are ``PATTERN=TYPE``. Raises RequestError."""
    parsed = []
    for text in overrides:
        pattern, equals, name = text.rpartition("=")
        if not pattern or not equals:
            raise RequestError(f"'{text}' is not PATTERN=TYPE", hint="For example: ffn_down=Q6_K.")
        parsed.append((pattern, writable_type(name)))
    return Recipe(
        file_type(type),
        tuple(parsed),
        None if output_type is None else writable_type(output_type),
        None if embedding_type is None else writable_type(embedding_type),
        pure,
        allow_requantize,
    )


def source_path(ref: str | Path) -> Path:
    """Where a model's weights are: a path as it is, a ref by the store."""
    return ref if isinstance(ref, Path) else Store().resolve(ref).path


def quantize(
    source: str | Path,
    out: str | Path,
    type: str,
    *,
    method: Method = "search",
    calibration: str | Path | None = None,
    calibration_tokens: int | None = None,
    imatrix: str | Path | None = None,
    save_imatrix: str | Path | None = None,
    overrides: Sequence[str] = (),
    output_type: str | None = None,
    embedding_type: str | None = None,
    pure: bool = False,
    allow_requantize: bool = False,
    force: bool = False,
    threads: int | None = None,
    progress: ProgressCallback = silent,
) -> Quantized:
    """Writes a model in fewer bits a weight, as a GGUF file.

    Args:
        source: the model: a ref of the store, or the path of a .gguf file or a safetensors folder.
        out: the file to write.
        type: its file type: ``Q4_K_M``, ``Q8_0`` ...
        method: "nearest" rounds as llama.cpp does without an importance matrix; "search" looks for
            the scales with the least (weighted) error; "calibrated" rounds layer by layer for the
            outputs on calibration text; "distilled" tunes the result's scales to the original's
            logits. The last two write the best of what they tried.
        calibration: a UTF-8 text, or "builtin"; the methods that need one take the built-in one.
            With "search" an importance matrix is measured on it.
        calibration_tokens: of the text to fit to and to judge on at most; None is 32,768.
        imatrix: an importance matrix to read instead, of PocketLM or llama.cpp, for "search".
        save_imatrix: writes the one that was measured.
        overrides: ``PATTERN=TYPE`` for tensors whose name the pattern is found in.
        output_type, embedding_type: block types of these two matrices.
        pure: one block type for every matrix.
        allow_requantize: accept a source that is quantized already.
        force: replace a file that is there.
        threads: default: the physical cores.

    Raises RequestError for options that do not go together and sources that cannot be quantized,
    ModelFileError for weights that are not finite, CapacityError for a full disk. An interrupted
    run leaves no file; the last two methods go on where they were, from ``OUT.work``.
    """
    _check_options(method, calibration, calibration_tokens, imatrix, save_imatrix)
    if threads is not None and threads < 1:
        raise RequestError(f"threads is {threads}, expected at least 1")
    recipe = make_recipe(
        type,
        overrides=overrides,
        output_type=output_type,
        embedding_type=embedding_type,
        pure=pure,
        allow_requantize=allow_requantize,
    )
    threads = threads or available_cores()
    imatrix = None if imatrix is None else Path(imatrix)
    save_imatrix = None if save_imatrix is None else Path(save_imatrix)
    if calibration is None and method in ("calibrated", "distilled"):
        calibration = BUILTIN
    guided = calibration is not None or imatrix is not None
    path, out = source_path(source), Path(out)
    with ExitStack() as stack:
        stream = stack.enter_context(open_stream(path))
        _refuse_overwriting(path, out, save_imatrix, calibration, imatrix)
        if out.exists() and not force:
            raise RequestError(
                "there is something at this path already",
                path=out,
                hint="Name another, or say --force to replace it.",
            )
        planned = plan(stream, recipe, has_importance=guided)
        text = _calibration(stream, calibration, calibration_tokens)
        if method in ("calibrated", "distilled"):
            assert text is not None
            ladder = Ladder(stream, planned, recipe, text, out, threads, progress)
            written = ladder.climb(distil=method == "distilled")
            if save_imatrix is not None:
                ladder.importance.save(save_imatrix)
            return _result(written, recipe, planned, ladder.kept, ladder.held_out)
        importance = None
        if imatrix is not None:
            importance = Importance.load(imatrix)
            importance.require_match(_widths(planned))
        if text is not None:
            importance = _measured(path, text, threads, progress)
        if save_imatrix is not None and importance is not None:
            importance.save(save_imatrix)
        written = write_quantized(
            stream,
            planned,
            out,
            recipe=recipe,
            encode=encoder(method, importance, threads=threads),
            extra_metadata=_facts(method, importance, imatrix, text),
            progress=progress,
        )
    return _result(written, recipe, planned, method, {})


def file_size(stream: TensorStream, planned: Sequence[PlannedTensor], recipe: Recipe) -> int:
    """Bytes of the file that ``quantize`` writes with its default method and no calibration."""
    metadata = final_metadata(stream, recipe, _facts("search", None, None, None))
    tensors = (TensorData(p.tensor.name, p.type, p.tensor.shape, b"") for p in planned)
    return gguf_nbytes(metadata, tensors)


def _check_options(
    method: str,
    calibration: object,
    calibration_tokens: int | None,
    imatrix: object,
    save_imatrix: object,
) -> None:
    if method not in METHODS:
        raise RequestError(
            f"there is no method '{method}'", hint=f"There are {', '.join(METHODS)}."
        )
    if calibration_tokens is not None and calibration is None and method in ("nearest", "search"):
        raise RequestError(
            "there is no calibration text to take tokens of",
            hint="Say --calibration builtin, or a FILE.",
        )
    if method == "nearest" and (calibration or imatrix):
        raise RequestError(
            "the method 'nearest' looks at no calibration", hint="Use --method search."
        )
    if imatrix is not None and (calibration is not None or method != "search"):
        raise RequestError(
            "an importance matrix from a file goes with the method 'search' alone",
            hint="Leave --imatrix out: the other methods measure what they need.",
        )
    if save_imatrix is not None and calibration is None and method in ("nearest", "search"):
        raise RequestError(
            "there is no importance matrix to save", hint="Say --calibration builtin, or a FILE."
        )


def _refuse_overwriting(
    source: Path,
    out: Path,
    save_imatrix: Path | None,
    calibration: str | Path | None,
    imatrix: Path | None,
) -> None:
    """Raises RequestError where a file to be written is one that is read, or the other one."""
    text = None if calibration == BUILTIN else calibration
    read = [Path(file) for file in (source, imatrix, text) if file is not None]
    written = [file for file in (out, save_imatrix) if file is not None]
    for file in read:
        for target in written:
            refuse_overwriting(file, target)
    if save_imatrix is not None:
        if save_imatrix.resolve() == out.resolve():
            raise RequestError("model and importance matrix have the same path", path=out)
        if not save_imatrix.absolute().parent.is_dir():
            raise RequestError("there is no such folder", path=save_imatrix.absolute().parent)


def _widths(planned: Sequence[PlannedTensor]) -> dict[str, int]:
    """Columns of the matrices that are rounded, by name."""
    return {p.tensor.name: p.tensor.shape[-1] for p in planned if not p.copied}


def _calibration(
    stream: TensorStream, source: str | Path | None, tokens: int | None
) -> CalibrationText | None:
    if source is None:
        return None
    tokenizer = Tokenizer.from_gguf(stream.metadata, stream.architecture)
    context = stream.metadata.get(f"{stream.architecture}.context_length")
    length = min(LENGTH, context) if isinstance(context, int) and context > 0 else LENGTH
    return read_calibration(source, tokenizer, tokens=tokens or DEFAULT_TOKENS, length=length)


def _measured(
    path: Path, text: CalibrationText, threads: int, progress: ProgressCallback
) -> Importance:
    spec = open_model(path)
    try:
        return measure_importance(spec, text, threads=threads, progress=progress)
    finally:
        spec.close()


def _facts(
    method: str,
    importance: Importance | None,
    imatrix: Path | None,
    text: CalibrationText | None,
) -> dict[str, Value]:
    """What the file says of how it was made; the imatrix keys are llama.cpp's."""
    facts: dict[str, Value] = {"pocketlm.quantize.method": method}
    if importance is not None:
        facts["quantize.imatrix.file"] = "" if imatrix is None else imatrix.name
        facts["quantize.imatrix.dataset"] = ", ".join(importance.datasets)
        facts["quantize.imatrix.entries_count"] = len(importance.means)
        facts["quantize.imatrix.chunks_count"] = importance.chunks
    if text is not None:
        facts[CALIBRATION_KEY] = list(text.hashes)
    return facts


def _result(
    written: Written,
    recipe: Recipe,
    planned: Sequence[PlannedTensor],
    method: str,
    held_out: dict[str, float],
) -> Quantized:
    return Quantized(
        path=written.path,
        file_type=recipe.file_type.name,
        size=written.size,
        bits_per_weight=written.bits_per_weight,
        method=method,
        fallbacks={p.tensor.name: p.type.name for p in planned if p.fallback is not None},
        held_out=held_out,
    )
