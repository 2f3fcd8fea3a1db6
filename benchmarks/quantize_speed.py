"""Seconds to quantize a file: PocketLM, and llama.cpp where a build of it is named.

    python benchmarks/quantize_speed.py F16.gguf [--llama LIBLLAMA.so] [--types Q4_0 Q8_0 Q4_K_M]
                                        [--rounds 5] [--threads 2] [--folder DIR] [--json]

From the call until the new file is written, source in the page cache, all to the same folder (by
default the source's). Each program lives in a process of its own and is asked in turn, round by
round, so that a noisy machine hits all alike; before each turn the disk is idle. PocketLM's time
includes waiting until the file is on the disk. llama.cpp does not wait: its time is taken when it
returns ("llama.cpp"), and once more when its file is on the disk, too ("llama.cpp, synced").

Compared are ``pocketlm.quantize``, by method, and ``llama_model_quantize`` without an importance
matrix: both read, round and write every tensor, by the same mix. "nearest" is the reference
rounding, "search" looks for scales of least error; llama.cpp searches for K types and rounds to the
nearest for the others. The Python bindings do not export ``llama_model_quantize``; a build of
llama.cpp does (``libllama.so``, with the libraries of ggml beside it). Ratios above 1: ours is
faster.
"""

from __future__ import annotations

import argparse
import ctypes
import json
import multiprocessing as mp
import os
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from multiprocessing.connection import Connection
from pathlib import Path

from pocketlm.files import sync_folder
from pocketlm.quantize.file_types import file_type

METHODS = ("nearest", "search")
LLAMA, SYNCED = "llama.cpp", "llama.cpp, synced"
Samples = dict[str, dict[str, list[float]]]  # seconds, by type and program
Job = Callable[[Path, Path, str, int], None]  # source, out, type, threads


class _Params(ctypes.Structure):
    _fields_ = (
        ("nthread", ctypes.c_int32),
        ("ftype", ctypes.c_int32),
        ("output_tensor_type", ctypes.c_int32),
        ("token_embedding_type", ctypes.c_int32),
        ("allow_requantize", ctypes.c_bool),
        ("quantize_output_tensor", ctypes.c_bool),
        ("rest", ctypes.c_uint64 * 32),
    )


# Silences llama.cpp.
_no_log = ctypes.CFUNCTYPE(None, ctypes.c_int, ctypes.c_char_p, ctypes.c_void_p)(
    lambda level, text, data: None
)


def llama_quantize(library: Path) -> Job:
    """``llama_model_quantize`` of a shared library."""
    for part in ("ggml-base", "ggml-cpu", "ggml"):
        ctypes.CDLL(str(library.with_name(f"lib{part}{library.suffix}")), ctypes.RTLD_GLOBAL)
    c = ctypes.CDLL(str(library))
    c.llama_model_quantize_default_params.restype = _Params
    c.llama_model_quantize.restype = ctypes.c_uint32
    c.llama_model_quantize.argtypes = [ctypes.c_char_p, ctypes.c_char_p, ctypes.POINTER(_Params)]
    c.llama_log_set(_no_log, None)
    c.llama_backend_init()

    def quantize(source: Path, out: Path, type: str, threads: int) -> None:
        params = c.llama_model_quantize_default_params()
        if (params.nthread, params.ftype, params.quantize_output_tensor) != (0, 7, True):
            raise RuntimeError("llama_model_quantize_params has another layout than is known here")
        params.nthread, params.ftype = threads, file_type(type).id
        if status := c.llama_model_quantize(str(source).encode(), str(out).encode(), params):
            raise RuntimeError(f"llama_model_quantize returned {status}")

    return quantize


def pocketlm_quantize(method: str) -> Job:
    from pocketlm.quantize.quantization import quantize

    def job(source: Path, out: Path, type: str, threads: int) -> None:
        quantize(source, out, type, method=method, threads=threads)  # type: ignore[arg-type]

    return job


def _serve(kind: str, library: Path | None, source: Path, threads: int, pipe: Connection) -> None:
    job = pocketlm_quantize(kind) if library is None else llama_quantize(library)
    pipe.send(None)  # ready
    while request := pipe.recv():
        type, out = request
        begin = time.perf_counter()
        job(source, out, type, threads)
        returned = time.perf_counter()
        if library is not None:
            with out.open("r+b") as file:
                os.fsync(file.fileno())
            sync_folder(out.parent)
        synced, size = time.perf_counter(), out.stat().st_size
        out.unlink()  # before the next program is asked: it writes to the same name
        pipe.send((returned - begin, synced - begin, size))


def measure(options: argparse.Namespace) -> tuple[Samples, dict[str, dict[str, int]]]:
    """Seconds of each round but the first, and the sizes of the files, by type and program."""
    libraries = dict.fromkeys(METHODS) | ({LLAMA: options.llama} if options.llama else {})
    samples: Samples = {type: {} for type in options.types}
    sizes: dict[str, dict[str, int]] = {type: {} for type in options.types}
    with ExitStack() as stack:
        pipes = {
            kind: stack.enter_context(_program(kind, library, options))
            for kind, library in libraries.items()
        }
        inside = options.folder or options.model.parent
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(dir=inside)))
        for round_ in range(options.rounds + 1):
            for type in options.types:
                for kind, pipe in pipes.items():
                    os.sync()
                    pipe.send((type, folder / "out.gguf"))
                    returned, synced, sizes[type][kind] = pipe.recv()
                    if round_:
                        samples[type].setdefault(kind, []).append(returned)
                        if kind == LLAMA:
                            samples[type].setdefault(SYNCED, []).append(synced)
    return samples, sizes


@contextmanager
def _program(kind: str, library: Path | None, options: argparse.Namespace) -> Iterator[Connection]:
    context = mp.get_context("spawn")
    ours, theirs = context.Pipe()
    arguments = (kind, library, options.model, options.threads, theirs)
    process = context.Process(target=_serve, args=arguments, daemon=True)
    process.start()
    theirs.close()  # so that a process that dies ends the wait for its answer
    ours.recv()
    yield ours
    ours.send(None)
    process.join()


def report(samples: Samples, sizes: dict[str, dict[str, int]], options: argparse.Namespace) -> None:
    print(
        f"{options.model.name}: seconds, median (min..max) of {options.rounds} rounds, "
        f"{options.threads} threads"
    )
    for type, rows in samples.items():
        print(
            f"{type}: {', '.join(f'{size:,}' for size in sorted(set(sizes[type].values())))} bytes"
        )
        for kind, seconds in rows.items():
            median = statistics.median(seconds)
            ratios = [
                f"{statistics.median(rows[peer]) / median:5.2f} x of {peer}"
                for peer in (LLAMA, SYNCED)
                if peer in rows and kind in METHODS
            ]
            spread = f"{median:8.2f} ({min(seconds):.2f}..{max(seconds):.2f})"
            print(f"  {kind:18} {spread:26}", "  ".join(ratios))


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("model", type=Path)
    parser.add_argument("--llama", type=Path, default=None)
    parser.add_argument("--types", nargs="+", default=["Q4_0", "Q8_0", "Q4_K_M"])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--folder", type=Path, default=None)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    samples, sizes = measure(options)
    if options.json:
        print(json.dumps({"seconds": samples, "bytes": sizes}, indent=2))
    else:
        report(samples, sizes, options)


if __name__ == "__main__":
    main()
