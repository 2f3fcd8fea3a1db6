"""The documentation is true: what a page names exists, what it tabulates is so, its Python runs."""

from __future__ import annotations

import ast
import functools
import math
import re
import runpy
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.main import get_command

import pocketlm
from engine import tiny_file
from pocketlm import _native, errors
from pocketlm.cli.chat import Session
from pocketlm.cli.main import VERBS, app
from pocketlm.engine.sampling import OPTION_NAMES, SamplingParams
from pocketlm.gguf import BlockType, block_bytes, block_elements, decodable, tensor_nbytes
from pocketlm.gguf.types import NATIVE_TYPES
from pocketlm.models.families import FAMILIES
from pocketlm.quantize.file_types import FILE_TYPES
from pocketlm.quantize.mix import fitting
from pocketlm.quantize.plan import plan
from pocketlm.quantize.quantization import make_recipe

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
PAGES = [*ROOT.glob("*.md"), *sorted(DOCS.rglob("*.md"))]
CLI = ("docs/reference/cli.md", "docs/reference/cli-choose.md")
PYTHON = re.compile(r"^```python\n(.*?)^```", re.M | re.S)
LINK = re.compile(r"\]\((?!https?:)([^)\s]+)\)")
COMMAND = re.compile(r"\bpocketlm ([a-z]+)\b([^`\n|)#]*)")

each_page = pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)


@functools.cache
def text_of(page: Path | str) -> str:
    return (ROOT / page).read_text("utf-8")


def table(page: str, *head: str) -> list[list[str]]:
    """The rows of the table whose head line begins with these cells."""
    start = "| " + " | ".join(head)
    lines = iter(text_of(page).splitlines())
    assert any(line.startswith(start) for line in lines), f"{page} has no table {start}"
    next(lines)
    rows = []
    for line in lines:
        if not line.startswith("|"):
            break
        rows.append([cell.strip() for cell in line.strip("|").split("|")])
    return rows


@functools.cache
def options_of(verb: str) -> frozenset[str]:
    command = get_command(app).get_command(None, verb)  # type: ignore[attr-defined]
    spelled = (o for p in command.params for o in (*p.opts, *p.secondary_opts))
    return frozenset(o for o in spelled if o.startswith("--")) | {"--help"}


def part_of(verb: str) -> str | None:
    """What the command line's pages say under a verb's heading."""
    parts = (p for page in CLI for p in re.split(r"^## ", text_of(page), flags=re.M))
    return next((p for p in parts if p.startswith(verb + "\n")), None)


# Pages


@each_page
def test_links_lead_somewhere(page: Path) -> None:
    for link in LINK.findall(text_of(page)):
        target, _, anchor = link.partition("#")
        found = page.parent / target if target else page
        assert found.exists(), f"links to {target}"
        if anchor:
            titles = re.findall(r"^#+ (.*)$", text_of(found), re.M)
            assert anchor in {re.sub(r"[^\w-]", "", t.lower().replace(" ", "-")) for t in titles}


def test_the_index_lists_every_page() -> None:
    listed = {(DOCS / link).resolve() for link in LINK.findall(text_of("docs/README.md"))}
    assert listed == set(DOCS.rglob("*.md")) - {DOCS / "README.md"}


@each_page
def test_pages_are_short_and_of_no_one_machine(page: Path) -> None:
    text = text_of(page)
    assert text.count("\n") <= 200
    assert not re.search(r"(?<![\w~.])/(root|home|tmp|work)/", text)


# The command line


@each_page
def test_commands_and_options_exist(page: Path) -> None:
    without_quotes = re.sub(r'"[^"$\n]*"', '""', text_of(page))
    for verb, rest in COMMAND.findall(without_quotes):
        assert verb in VERBS, f"says 'pocketlm {verb}'"
        unknown = set(re.findall(r"(?<!\S)--[a-z][a-z0-9-]*", rest)) - options_of(verb)
        assert not unknown, f"gives 'pocketlm {verb}' the options {unknown}"


def test_the_reference_names_every_verb_and_option() -> None:
    given = [row for page in CLI for row in table(page, "verb", "does")]
    rows = {row[0].strip("`").split()[1]: row[1] for row in given}
    assert set(rows) == set(VERBS)
    assert len(rows) == len(given)
    for verb, does in rows.items():
        part = part_of(verb)
        under = {"--json"} if part is None else set(re.findall(r"`([^`]+)`", part))
        named = {part for code in under for part in code.split()} | set(
            re.findall("--[a-z]+", does)
        )
        assert options_of(verb) - {"--help"} <= named, verb


def test_the_reference_names_every_command_of_a_chat() -> None:
    commands = set(Session(model=None).commands) | {"/bye"}  # type: ignore[arg-type]
    rows = table("docs/reference/cli.md", "command", "does")
    assert {row[0].strip("`").split()[0] for row in rows} == commands


def test_variables_are_those_that_the_program_reads() -> None:
    sources = [*(ROOT / "src").rglob("*.py"), *(ROOT / "native").rglob("*.cc")]
    code = "\n".join(path.read_text("utf-8") for path in sources)
    read = set(re.findall(r'(?:_flag|getenv|environ\.get)\("(POCKETLM_[A-Z_]+)"', code))
    rows = table("docs/reference/cli.md", "variable", "meaning")
    listed = set(re.findall("POCKETLM_[A-Z_]+", "".join(row[0] for row in rows)))
    assert listed == read
    for page in PAGES:
        assert set(re.findall("POCKETLM_[A-Z]+", text_of(page))) <= {
            name[: len("POCKETLM_") + len(name.split("_")[1])] for name in read
        }


# Python


@each_page
def test_python_names_what_is_public(page: Path) -> None:
    for block in PYTHON.findall(text_of(page)):
        for node in ast.walk(ast.parse(block)):
            if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
                assert node.value.id != "pocketlm" or node.attr in pocketlm.__all__


@pytest.mark.parametrize(
    "page", [p for p in PAGES if PYTHON.search(p.read_text("utf-8"))], ids=lambda page: page.stem
)
def test_python_runs(
    page: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """On a tiny model in place of the one that is named; a page's blocks follow on each other."""
    monkeypatch.setattr(tiny_file, "CONTEXT", 2048)
    path = tiny_file.write_tiny_model(tmp_path / "tiny.gguf")
    load = pocketlm.load

    def load_tiny(ref: str, **options: Any) -> pocketlm.Model:
        return load(path, **options | {"threads": 1})

    def evaluate_tiny(ref: str, **options: Any) -> Any:
        models = {name: path for name in ("reference",) if name in options}
        return evaluate(path, **options | models | {"threads": 1})

    def quantize_tiny(ref: str, out: str, type: str, **options: Any) -> Any:
        return quantize(path, tmp_path / out, type, **options | {"method": "search", "threads": 1})

    def footprint_tiny(ref: str, *arguments: Any, **options: Any) -> Any:
        return footprint(path, *arguments, **options | {"threads": 1})

    def bench_tiny(ref: str, **options: Any) -> Any:
        return bench(path, **options | {"threads": 1})

    evaluate, quantize = pocketlm.evaluate, pocketlm.quantize
    bench, footprint = pocketlm.bench, pocketlm.footprint
    monkeypatch.setattr(pocketlm, "bench", bench_tiny)
    monkeypatch.setattr(pocketlm, "footprint", footprint_tiny)
    monkeypatch.setattr(pocketlm, "load", load_tiny)
    monkeypatch.setattr(pocketlm, "evaluate", evaluate_tiny)
    monkeypatch.setattr(pocketlm, "quantize", quantize_tiny)
    names: dict[str, Any] = {}
    for block in PYTHON.findall(text_of(page)):
        exec(compile(block, page.name, "exec"), names)
    assert capsys.readouterr().out.strip()


# Tables of facts


def test_the_table_of_devices() -> None:
    from pocketlm.advise.device import profiles
    from pocketlm.advise.device.profiles import table as facts

    found = profiles()
    rows = table("docs/reference/devices.md", "profile", "cores")
    assert {row[0].strip("`") for row in rows} == set(facts().device)
    for name, _, gib, read, int8, f32, kernels in rows:
        for size in gib.split(", "):
            device = found[f"{name.strip('`')}-{size}gb"]
            assert device.rates is not None
            assert device.isa == kernels
            assert read == f"{device.rates.read_bandwidth / 1e9:.1f}"
            assert int8 == f"{device.rates.int8 / 1e9:.0f}"
            assert f32 == f"{device.rates.f32 / 1e9:.0f}"
        assert len(gib.split(", ")) == sum(n.rpartition("-")[0] == name.strip("`") for n in found)


def test_the_table_of_cores() -> None:
    from pocketlm.advise.device.profiles import table as facts

    rows = table("docs/reference/devices.md", "core", "int8")
    known = {core.title: core for core in facts().core.values()}
    assert {row[0] for row in rows} == set(known)
    for title, int8, f32, source in rows:
        assert (float(int8), float(f32)) == (known[title].int8, known[title].f32), title
        assert source == known[title].source


def test_the_tables_of_choosing() -> None:
    from pocketlm.advise.recommend.rules import rules

    page, known = "docs/explanation/choosing.md", rules()
    uses = {row[0].strip("`"): row[1:] for row in table(page, "use", "context")}
    assert set(uses) == set(known.use)
    for name, (context, speed, benchmarks, scored) in uses.items():
        use = known.use[name]
        assert (context, scored) == (f"{use.context:,}", f"`{use.table}`")
        assert speed == f"{use.min_speed:g}"
        wanted = (f"{benchmark} {weight:g}" for benchmark, weight in use.benchmarks.items())
        assert benchmarks == ", ".join(wanted), name
    guidelines = {row[0]: row[1] for row in table(page, "guideline", "points")}
    assert guidelines == {one.says: f"{one.points:g}" for one in known.guideline.values()}
    losses = table(page, "file type", "Llama 3 8B")
    for name, published, measured, times in losses:
        assert float(published) == known.loss.types[name]
        assert times == f"{float(measured.split()[0]) / float(published):.1f}"
    fitted = math.prod(float(row[2].split()[0]) / float(row[1]) for row in losses)
    exponent = math.log(fitted) / len(losses) / math.log(known.loss.parameters / 134_515_008)
    assert known.loss.exponent == round(exponent, 2)


def test_the_table_of_errors() -> None:
    found = {}
    for name, _, code, status in table("docs/reference/errors.md", "class", "when"):
        found[name.split("`")[1]] = (int(code), int(status))
    classes = [
        c for c in vars(errors).values() if isinstance(c, type) and c.__module__ == errors.__name__
    ]
    assert found == {
        c.__name__: (c.exit_code, c.http_status) for c in classes if c is not errors.PocketLMError
    }


def test_the_table_of_sampling_options() -> None:
    defaults = SamplingParams()
    words = {"none": (None, (), frozenset()), "no": (False,)}
    rows = table("docs/reference/sampling.md", "option", "ours")
    assert {row[0].strip("`") for row in rows} == set(OPTION_NAMES)
    for name, ours, _ in rows:
        if ours == "new":
            continue
        value = getattr(defaults, name.strip("`"))
        assert value in words[ours] if ours in words else float(ours) == value, name


def test_the_table_of_families() -> None:
    rows = {row[0]: row for row in table("docs/reference/formats-and-families.md", "family")}
    assert set(rows) == {family.name for family in FAMILIES}
    for family in FAMILIES:
        _, gguf, classes, _ = rows[family.name]
        assert set(re.findall(r"`(.+?)`", gguf)) - {"llama"} == set(family.gguf) - {"llama"}
        assert set(re.findall(r"`(.+?)`", classes)) == set(family.hf)


def test_the_table_of_block_types_that_are_written() -> None:
    rows = table("docs/reference/types.md", "block type", "bits a weight")
    assert {row[0] for row in rows} == {kind.type.name for kind in FILE_TYPES.values()}
    for name, bits, weights, size, _ in rows:
        type = BlockType[name]
        assert (int(weights), int(size)) == (block_elements(type), block_bytes(type)), name
        assert float(bits) == 8 * int(size) / int(weights), name


def test_the_table_of_file_types() -> None:
    """Its bits are those of a Qwen3 0.6B, whose shape a benchmark has."""
    benchmark = runpy.run_path(str(ROOT / "benchmarks" / "random_model.py"))
    model = benchmark["random_stream"]("qwen3-0.6b", 1)
    rows = table("docs/reference/types.md", "file type", "matrices")
    assert [row[0] for row in rows] == list(FILE_TYPES)
    for name, type, _, bits in rows:
        planned = plan(model, make_recipe(name))
        weights = sum(math.prod(item.tensor.shape) for item in planned)
        assert type == FILE_TYPES[name].type.name
        assert bits == f"{8 * sum(item.nbytes for item in planned) / weights:.2f}", name


def test_the_table_of_fallbacks() -> None:
    rows = table("docs/reference/types.md", "wanted", "with rows of whole 32s")
    listed = {wanted: row for row in rows for wanted in row[0].split(", ")}
    quantized = {kind.type for kind in FILE_TYPES.values() if kind.quantized}
    assert set(listed) == {type.name for type in quantized}
    for type in quantized:
        _, fitting_32, otherwise = listed[type.name]
        found = fitting(type, 576)
        assert fitting_32 == ("as wanted" if found == type else found.name)
        assert otherwise == fitting(type, 80).name


def packed_bytes(type: BlockType) -> float:
    """Bytes that 256 weights of a row take in memory, where no stream needs padding."""
    rows, columns = 16, 512
    data = np.zeros(tensor_nbytes(type, (rows, columns)), np.uint8)
    return _native.Weight.pack(type, rows, columns, data).nbytes / rows / (columns / 256)


def test_the_table_of_block_types() -> None:
    rows = table("docs/reference/formats-and-families.md", "type", "bits a weight")
    seen = set()
    for names, bits, read, run, packed in rows:
        for type in (BlockType[n] for n in names.split(", ") if n in BlockType.__members__):
            assert (read == "yes", run == "yes") == (decodable(type), type in NATIVE_TYPES), names
            if run == "yes":
                assert float(bits) == 8 * block_bytes(type) / block_elements(type), names
                assert float(packed) == 8 * packed_bytes(type) / 256, names
            seen.add(type)
    assert {t for t in BlockType if not t.name.startswith("IQ")} == seen


def test_the_table_of_packed_weights() -> None:
    rows = table("docs/explanation/packed-weights.md", "type", "codes", "scales")
    quantized = NATIVE_TYPES - {BlockType.F32, BlockType.F16, BlockType.BF16}
    assert {row[0] for row in rows} == {type.name for type in quantized}
    for name, _, _, in_file, packed, ratio in rows:
        type = BlockType[name]
        assert int(in_file) == 256 // block_elements(type) * block_bytes(type), name
        assert int(packed) == packed_bytes(type), name
        assert ratio == f"{int(packed) / int(in_file):.3f}", name
