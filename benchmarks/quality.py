"""What each method of quantization loses, beside llama.cpp's quantizers, at the same file size.

    python benchmarks/quality.py ORIGINAL.gguf TEXT.txt --types Q4_0,Q4_K_M --work DIR

Rows: llama.cpp's rounding without and with an importance matrix (``ggml_quantize_chunk`` of the
``xllamacpp`` package, tensor by tensor, with the types of llama.cpp's mix: what llama-quantize
does), then the methods of ``pocketlm quantize``. Both sides get the same calibration text and the
same importance matrix. Columns: mean KL divergence from the original on TEXT with its standard
error, top-1 agreement, perplexity, file size. Files that are in DIR already are not made again.
"""

from __future__ import annotations

import argparse
import ctypes
import json
import time
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

import pocketlm
from pocketlm.backends import NativeBackend
from pocketlm.backends.llamacpp import library_path
from pocketlm.convert.stream import open_stream
from pocketlm.evaluate import windows
from pocketlm.evaluate.divergence import Divergence, DivergenceMeter
from pocketlm.evaluate.windows import Window
from pocketlm.gguf import dequantize
from pocketlm.quantize.calibration_text import BUILTIN, read_calibration
from pocketlm.quantize.distilled import distil
from pocketlm.quantize.files import Encode, write_quantized
from pocketlm.quantize.importance import Importance
from pocketlm.quantize.plan import PlannedTensor, plan
from pocketlm.quantize.quantization import make_recipe
from pocketlm.text import Tokenizer

LLAMA = {"llama.cpp": False, "llama.cpp + imatrix": True}
CONTEXT = 512
OURS = ("nearest", "search", "calibrated", "distilled")


def llama_encoder(importance: Importance | None) -> Encode:
    """llama.cpp's own rounding of one tensor."""
    library = ctypes.CDLL(str(library_path()))
    rounding = library.ggml_quantize_chunk
    rounding.restype = ctypes.c_size_t
    rounding.argtypes = [ctypes.c_int, ctypes.c_void_p, ctypes.c_void_p] + [ctypes.c_int64] * 3
    rounding.argtypes += [ctypes.c_void_p]

    def encode(item: PlannedTensor) -> Iterator[NDArray[np.uint8]]:
        tensor = item.tensor
        rows, cols = tensor.shape
        values = dequantize(tensor.type, tensor.read(), tensor.shape)
        columns = None if importance is None else importance.for_matrix(tensor.name, cols)
        out = np.empty(item.nbytes, np.uint8)
        pointer = None if columns is None else columns.ctypes.data
        rounding(int(item.type), values.ctypes.data, out.ctypes.data, 0, rows, cols, pointer)
        yield out

    return encode


def distil_calibrated(original: Path, calibrated: Path, out: Path) -> None:
    """The last rung alone, from the file that the rung below has made: the same as all of them."""
    with open_stream(original) as stream:
        tokenizer = Tokenizer.from_gguf(stream.metadata, stream.architecture)
    text = read_calibration(BUILTIN, tokenizer)
    work = out.with_suffix(".work")
    distil(
        original, calibrated, out, train=text.train, held_out=text.held_out, work=work, threads=2
    )


def make(original: Path, type: str, method: str, out: Path, imatrix: Path) -> None:
    """Writes one file of the table."""
    if method == "distilled":
        distil_calibrated(original, out.with_name(f"{type}-calibrated.gguf"), out)
        return
    if method not in LLAMA:
        options = {"imatrix": imatrix} if method == "search" else {}
        pocketlm.quantize(original, out, type, method=method, threads=2, **options)
        return
    importance = Importance.load(imatrix) if LLAMA[method] else None
    recipe = make_recipe(type)
    with open_stream(original) as stream:
        planned = plan(stream, recipe, has_importance=LLAMA[method])
        write_quantized(stream, planned, out, recipe=recipe, encode=llama_encoder(importance))


class Judge:
    """Compares files with their original on one text; the original's logits are made once."""

    def __init__(self, original: Path, text: Path, max_tokens: int | None) -> None:
        self._original = original
        with open_stream(original) as stream:
            tokenizer = Tokenizer.from_gguf(stream.metadata, stream.architecture)
        tokens = tokenizer.encode(text.read_text(encoding="utf-8"))[:max_tokens]
        bos = tokenizer.bos_id if tokenizer.adds_bos else None
        self._windows = windows.plan(tokens, CONTEXT, bos=bos)

    def __call__(self, files: list[Path]) -> list[Divergence]:
        with ExitStack() as stack:
            engines = [
                stack.enter_context(NativeBackend.open(path, context=CONTEXT, threads=2))
                for path in (self._original, *files)
            ]
            meters = [DivergenceMeter() for _ in files]
            for window in self._windows:
                self._compare(engines, meters, window)
        return [meter.result() for meter in meters]

    def _compare(
        self, engines: list[NativeBackend], meters: list[DivergenceMeter], window: Window
    ) -> None:
        tokens, at = window.tokens[:-1], window.first
        rows = min(engine.block_rows for engine in engines)
        blocks = [engine.blocks(tokens, first=at, rows=rows) for engine in engines]
        for reference, *candidates in zip(*blocks, strict=True):
            following = window.tokens[at + 1 : at + 1 + len(reference)]
            for meter, candidate in zip(meters, candidates, strict=True):
                meter.add(reference, candidate, following)
            at += len(reference)
        for meter in meters:
            meter.end_sequence()


def tabulate(
    type: str, method: str, out: Path, found: Divergence, seconds: float
) -> dict[str, Any]:
    print(
        f"{type:7} {method:20} KL {found.mean:.5f} ± {found.standard_error:.5f}  "
        f"top-1 {100 * found.top1:.2f} %  PPL {found.perplexity:.3f} "
        f"(original {found.reference_perplexity:.3f})  {out.stat().st_size:,} bytes  "
        f"{seconds:.0f} s",
        flush=True,
    )
    return {
        "type": type,
        "method": method,
        "size": out.stat().st_size,
        "seconds": round(seconds, 1),
        **asdict(found),
    }


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("original", type=Path)
    parser.add_argument("text", type=Path)
    parser.add_argument("--types", default="Q4_0,Q3_K_M,Q2_K,Q4_K_M,Q5_1")
    parser.add_argument("--methods", default=",".join([*LLAMA, *OURS]))
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--max-tokens", type=int, default=None)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()

    options.work.mkdir(parents=True, exist_ok=True)
    imatrix = options.work / "imatrix.gguf"
    if not imatrix.exists():
        made = options.work / "with-imatrix.gguf"
        pocketlm.quantize(
            options.original, made, "Q8_0", calibration="builtin", save_imatrix=imatrix, threads=2
        )
        made.unlink()
    judge = Judge(options.original, options.text, options.max_tokens)
    rows = []
    for type in options.types.split(","):
        files, seconds = {}, {}
        for method in options.methods.split(","):
            files[method] = options.work / f"{type}-{method.replace(' ', '')}.gguf"
            started = time.monotonic()
            if not files[method].exists():
                make(options.original, type, method, files[method], imatrix)
            seconds[method] = time.monotonic() - started
        for (method, out), found in zip(files.items(), judge([*files.values()]), strict=True):
            rows.append(tabulate(type, method, out, found, seconds[method]))
        if options.json:
            options.json.write_text(json.dumps(rows, indent=2))


if __name__ == "__main__":
    main()
