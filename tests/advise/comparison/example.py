"""A comparison of three models that are nowhere: one here, one of the catalog, one remote."""

from __future__ import annotations

from pocketlm.advise.comparison.records import (
    Comparison,
    Measured,
    ScoreRow,
    ScoreTable,
    Sized,
    Subject,
)


def sized(type: str, file: int, *, on_disk: bool = False, decode: float | None = None) -> Sized:
    return Sized(
        type=type, on_disk=on_disk, file=file, weights=file, kv=1 << 20, peak=2 * file,
        decode=decode, prefill=None if decode is None else 10 * decode,
    )  # fmt: skip


HERE = Subject(
    name="here|<b>:1b",
    ref="./a.gguf",
    where="here",
    family="llama",
    parameters=1_000_000_000,
    size_class="Micro",
    quantization="Q4_0",
    file=600_000_000,
    context=8192,
    layers=16,
    hidden=2048,
    vocabulary=32_000,
    licence="apache-2.0",
    gated=False,
    base=False,
    languages=("en", "de"),
    sizes=(
        sized("Q4_0", 600_000_000, on_disk=True, decode=20.5),
        sized("Q8_0", 1_100_000_000, decode=11.25),
    ),
    measured=Measured(
        prefill=1234.5, decode=21.0, prompt=256, generate=64, first_token=0.25, peak=700_000_000,
        perplexity=12.345, bits_per_byte=0.9876, text="prose.txt",
    ),
    notes=("Q4_0 is quantized already",),
)  # fmt: skip
KNOWN = Subject(
    name="known:9b",
    ref="known:9b",
    where="catalog",
    parameters=9_000_000_000,
    size_class="Small",
    context=131_072,
    licence="gemma",
    gated=True,
    base=True,
    languages=tuple(f"l{i}" for i in range(20)),
    sizes=(sized("Q8_0", 9_500_000_000, decode=1.5),),
)
REMOTE = Subject(name="azure:contoso/phi-4", ref="azure:contoso/phi-4", where="remote")

EXAMPLE = Comparison(
    (HERE, KNOWN, REMOTE),
    4096,
    "f16",
    "this device",
    (
        ScoreTable(
            "makers",
            "The Makers",
            "0-shot, chat",
            "https://example.org/report",
            (
                ScoreRow("MMLU", None, (40.0, 71.25, None)),
                ScoreRow("GSM8K", "CoT", (5.5, 80.0, None)),
            ),
        ),
    ),
    ("a note",),
)
