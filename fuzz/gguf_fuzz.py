"""Feeds mutated GGUF files to the reader and checks that each is read or refused, cheaply.

    python fuzz/gguf_fuzz.py --count 1000000 --seed 1

Case `index` of seed `seed` is always the same file; `--only INDEX` runs that one and lets its error
through. What must hold for every file:

- it is accepted, or refused with ModelFileError or UnsupportedError;
- it takes less than 100 ms of processor time;
- it takes no more memory than a small multiple of its size (Python's own count for every 64th file,
  a limit on the address space for all);
- if it is accepted, every tensor's bytes are in the file and no one else's, small tensors decode,
  and the metadata is written back as the bytes it was read from.

The cases run in a child process: one that kills it is reported by its number. A finding is saved
in fuzz/findings and ends the run with exit code 1.
"""

from __future__ import annotations

import argparse
import collections
import mmap
import os
import re
import resource
import struct
import sys
import tempfile
import time
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from random import Random

import numpy as np

from pocketlm.errors import ModelFileError, UnsupportedError
from pocketlm.gguf import (
    BlockType,
    GGUFFile,
    TensorData,
    block_bytes,
    block_elements,
    decodable,
    write_gguf,
)
from pocketlm.gguf.metadata import (
    Float64,
    Int8,
    Int16,
    Int32,
    Int64,
    Uint8,
    Uint16,
    Uint64,
    Value,
    encode_metadata,
)

FINDINGS = Path(__file__).parent / "findings"
MAX_SECONDS = 0.1
ADDRESS_SPACE = 256 << 20  # above what the process has when the cases begin
MEMORY_EVERY = 64
MEMORY_BASE, MEMORY_FACTOR = 64 << 10, 64

EDGES = [0, 1, 2, 3, 4, 5, 7, 8, 31, 32, 33, 63, 64, 127, 128, 255, 256, 1 << 15, 1 << 16, 1 << 20]
EDGES += [1 << 24, (1 << 31) - 1, 1 << 31, (1 << 32) - 1, 1 << 32, 1 << 40, 1 << 61, 1 << 62]
EDGES += [(1 << 63) - 1, 1 << 63, (1 << 64) - 32, (1 << 64) - 2, (1 << 64) - 1]


# what differs between messages of one kind
_DETAILS = re.compile(r"[0-9][0-9,]*|'.*'")


class FindingError(AssertionError):
    """Something that must hold for every file did not."""


# --- the sound files that mutations start from ---------------------------------------------------


def sound_files() -> list[bytes]:
    """Small files that between them have every type of value and many types of tensors."""
    scalars: dict[str, Value] = {
        "general.architecture": "llama",
        "a": Uint8(1),
        "b": Int8(-1),
        "c": Uint16(1),
        "d": Int16(-1),
        "e": 1,
        "f": Int32(1),
        "g": 0.5,
        "h": True,
        "i": Uint64(1),
        "j": Int64(1),
        "k": Float64(0.5),
    }
    arrays: dict[str, Value] = {
        "tokenizer.ggml.tokens": ["<s>", "a", "", "\u2581b"],
        "tokenizer.ggml.scores": np.zeros(4, np.float32),
        "tokenizer.ggml.token_type": np.ones(4, np.int32),
        "flags": np.array([True, False]),
        "bytes": np.arange(5, dtype=np.uint8),
        "longs": np.arange(2, dtype=np.int64),
    }
    split: dict[str, Value] = {"split.no": Uint16(0), "split.count": Uint16(1)}
    files = [
        _written(scalars, ["F32", "Q8_0"], 32),
        _written(arrays, ["Q4_K", "F16"], 32),
        _written({"general.alignment": 64, **split}, ["Q4_0", "Q4_1", "Q5_0"], 64),
        _written({}, ["TQ1_0", "Q6_K", "I8", "F64", "BF16"], 8),
    ]
    return [*files, files[0][:4] + struct.pack("<I", 2) + files[0][8:]]


def _written(metadata: dict[str, Value], types: list[str], alignment: int) -> bytes:
    tensors = []
    for name in types:
        type = BlockType[name]
        data = bytes(i % 251 for i in range(2 * block_bytes(type)))
        tensors.append(TensorData(f"{name}.weight", type, (2, block_elements(type)), data))
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "m.gguf"
        write_gguf(path, metadata, tensors, alignment=alignment)
        return path.read_bytes()


def integer_fields(data: bytes) -> list[tuple[int, int]]:
    """(offset, width) of every integer in the header of a sound file."""
    fields = [(4, 4), (8, 8), (16, 8)]
    n_tensors, n_kv = struct.unpack_from("<QQ", data, 8)
    widths = {0: 1, 1: 1, 2: 2, 3: 2, 4: 4, 5: 4, 6: 4, 7: 1, 10: 8, 11: 8, 12: 8}
    at = 24

    def integer(width: int) -> int:
        nonlocal at
        fields.append((at, width))
        at += width
        return int.from_bytes(data[at - width : at], "little")

    def text() -> None:
        nonlocal at
        length = integer(8)
        at += length

    def value(type: int) -> None:
        if type == 8:
            text()
        elif type == 9:
            element, count = integer(4), integer(8)
            for _ in range(count):
                value(element)
        else:
            integer(widths[type])

    for _ in range(n_kv):
        text()
        value(integer(4))
    for _ in range(n_tensors):
        text()
        for _ in range(integer(4)):
            integer(8)
        integer(4)
        integer(8)
    return fields


# --- mutations ----------------------------------------------------------------------------------

Mutation = Callable[[Random, bytearray, "Seeds"], None]


class Seeds:
    """The sound files and where their integers are."""

    def __init__(self) -> None:
        self.files = sound_files()
        self.fields = [integer_fields(data) for data in self.files]
        self.chosen: list[tuple[int, int]] = []  # the integers of the file that is being mutated


def flip_bits(random: Random, data: bytearray, seeds: Seeds) -> None:
    for _ in range(random.choice((1, 1, 2, 8))):
        data[random.randrange(len(data))] ^= 1 << random.randrange(8)


def edge_in_field(random: Random, data: bytearray, seeds: Seeds) -> None:
    at, width = random.choice(seeds.chosen)
    _put(data, at, width, random.choice(EDGES))


def nudge_field(random: Random, data: bytearray, seeds: Seeds) -> None:
    at, width = random.choice(seeds.chosen)
    old = int.from_bytes(data[at : at + width], "little")
    _put(data, at, width, old + random.choice((-32, -8, -1, 1, 8, 32, 256)))


def edge_anywhere(random: Random, data: bytearray, seeds: Seeds) -> None:
    _put(data, random.randrange(len(data)), random.choice((1, 2, 4, 8)), random.choice(EDGES))


def random_bytes(random: Random, data: bytearray, seeds: Seeds) -> None:
    at = random.randrange(len(data))
    data[at : at + 8] = random.randbytes(random.randrange(9))


def truncate(random: Random, data: bytearray, seeds: Seeds) -> None:
    del data[random.randrange(len(data)) :]


def delete(random: Random, data: bytearray, seeds: Seeds) -> None:
    at = random.randrange(len(data))
    del data[at : at + random.randrange(64)]


def duplicate(random: Random, data: bytearray, seeds: Seeds) -> None:
    at = random.randrange(len(data))
    data[at:at] = data[at : at + random.randrange(256)]


def splice(random: Random, data: bytearray, seeds: Seeds) -> None:
    other = random.choice(seeds.files)
    at, start = random.randrange(len(data)), random.randrange(len(other))
    data[at : at + random.randrange(64)] = other[start : start + random.randrange(128)]


def copy_field(random: Random, data: bytearray, seeds: Seeds) -> None:
    (source, width), (target, _) = random.choice(seeds.chosen), random.choice(seeds.chosen)
    data[target : target + width] = data[source : source + width]


MUTATIONS: list[Mutation] = [flip_bits, edge_in_field, edge_in_field, nudge_field, edge_anywhere]
MUTATIONS += [random_bytes, truncate, delete, duplicate, splice, copy_field]


def _put(data: bytearray, at: int, width: int, value: int) -> None:
    value &= (1 << 8 * width) - 1
    data[at : at + width] = value.to_bytes(width, "little")


def make_case(seed: int, index: int, seeds: Seeds) -> bytes:
    """The file of this number: one sound file after one to three mutations."""
    random = Random(seed << 40 | index)
    which = random.randrange(len(seeds.files))
    data, seeds.chosen = bytearray(seeds.files[which]), seeds.fields[which]
    for _ in range(random.choice((1, 1, 1, 2, 3))):
        if data:
            random.choice(MUTATIONS)(random, data, seeds)
    return bytes(data)


# --- what must hold -----------------------------------------------------------------------------


def check_case(data: bytes) -> str:
    """ "accepted", or the error's class and message without its numbers. Raises FindingError."""
    start = time.thread_time()
    try:
        file = GGUFFile.parse(data)
    except (ModelFileError, UnsupportedError) as error:
        outcome = f"{type(error).__name__} {_DETAILS.sub('#', error.message)}"
    else:
        outcome = "accepted"
        _check_accepted(file, data)
    if (seconds := time.thread_time() - start) > MAX_SECONDS:
        raise FindingError(f"took {seconds:.3f} s")
    return outcome


def _check_accepted(file: GGUFFile, data: bytes) -> None:
    encoded = encode_metadata(file.metadata)
    has_nan = any(isinstance(v, float) and v != v for v in file.metadata.values())
    if encoded != data[24 : 24 + len(encoded)] and not has_nan:  # a NaN's other bits may change
        raise FindingError("the metadata is not written back as it was read")
    end = 24 + len(encoded)
    for info in sorted(file.tensors.values(), key=lambda info: info.offset):
        if info.offset < end or info.offset % file.alignment:
            raise FindingError(f"{info} overlaps or is not aligned")
        end = info.offset + info.nbytes
        if file.tensor_bytes(info.name).tobytes() != data[info.offset : end]:
            raise FindingError(f"{info} has other bytes")
        if decodable(info.type) and file.tensor(info.name).shape != info.shape:
            raise FindingError(f"{info} decodes to another shape")


def check_memory(data: bytes) -> None:
    """The same under Python's count of allocations."""
    tracemalloc.start()
    try:
        check_case(data)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    if peak > MEMORY_BASE + MEMORY_FACTOR * len(data):
        raise FindingError(f"took {peak:,} bytes of memory for a file of {len(data):,}")


# --- running ------------------------------------------------------------------------------------


def run_cases(seed: int, count: int, current: mmap.mmap) -> int:
    """The child: all cases, the number of the present one in `current`. Returns the exit code."""
    seeds = Seeds()
    outcomes: collections.Counter[str] = collections.Counter()
    in_use = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (in_use + ADDRESS_SPACE,) * 2)
    start = time.perf_counter()
    for index in range(count):
        current[:8] = index.to_bytes(8, "little")
        data = make_case(seed, index, seeds)
        try:
            outcomes[check_case(data)] += 1
            if index % MEMORY_EVERY == 0:
                check_memory(data)
        except Exception as error:
            FINDINGS.mkdir(exist_ok=True)
            saved = FINDINGS / f"gguf-{seed}-{index}.gguf"
            saved.write_bytes(data)
            print(f"case {index}: {type(error).__name__}: {error} (saved as {saved})")
            return 1
    seconds = time.perf_counter() - start
    print(
        f"{count:,} files, seed {seed}: {outcomes['accepted']:,} accepted, the others refused in "
        f"{len(outcomes) - 1} ways, no findings, {count / seconds:,.0f} files/s"
    )
    return 0


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--count", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument(
        "--only", type=int, metavar="INDEX", help="run one case, with its traceback"
    )
    options = parser.parse_args()
    if options.only is not None:
        data = make_case(options.seed, options.only, Seeds())
        print(check_case(data))
        check_memory(data)
        return 0
    current = mmap.mmap(-1, 8)
    child = os.fork()
    if child == 0:
        code = 2
        try:
            code = run_cases(options.seed, options.count, current)
        finally:
            sys.stdout.flush()
            os._exit(code)
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    if code not in (0, 1):
        index = int.from_bytes(current[:8], "little")
        print(f"case {index} ended the process with {code}: run again with --only {index}")
        return 1
    return code


if __name__ == "__main__":
    sys.exit(main())
