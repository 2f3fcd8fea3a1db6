"""One run, from names of models to ratios: what ``pocketlm bench`` and ``pocketlm.bench`` call.

An engine that cannot run a model, or whose process dies, is left out of what it cannot do, and the
run goes on; where PocketLM itself fails, the run does.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from pathlib import Path

from pocketlm.engine.machine import available_cores
from pocketlm.engine.options import KvType
from pocketlm.errors import RequestError
from pocketlm.evaluate.speed.contenders import OURS, Setup, require_peers
from pocketlm.evaluate.speed.first_token import first_token
from pocketlm.evaluate.speed.limits import read_bandwidth, this_machine
from pocketlm.evaluate.speed.plan import Plan
from pocketlm.evaluate.speed.processes import EngineProcess
from pocketlm.evaluate.speed.results import (
    Agreement,
    ModelSpeed,
    Row,
    Samples,
    Speed,
    Traffic,
    label,
    unit,
)
from pocketlm.evaluate.speed.rounds import Rounds
from pocketlm.models import open_model
from pocketlm.models.memory import decode_reads
from pocketlm.progress import ProgressCallback, silent
from pocketlm.store import Store
from pocketlm.store.describe import describe_path
from pocketlm.store.importing import model_files


def bench(
    refs: str | Path | Sequence[str | Path],
    *,
    against: Sequence[str] = (),
    prompt: int = 512,
    generate: int = 128,
    depth: int = 2048,
    batch: Sequence[int] = (1, 4, 16),
    rounds: int = 5,
    threads: int | None = None,
    kv: KvType = "f16",
    progress: ProgressCallback = silent,
    measured: Callable[[Speed], None] | None = None,
) -> Speed:
    """Prefill, decode, decode at depth, batched decode, time to the first token and peak memory.

    Args:
        refs: one model or several: refs of the store or paths; peers read .gguf files only.
        against: engines to compare with: "llamacpp", "llamacpp-nofa", "ik". All hold the model in
            memory at once.
        prompt, generate, depth, batch, rounds, kv: see ``Plan``.
        threads: of every engine; None is the physical cores.
        measured: told after every model what the run has so far: it may take long, and may not
            come to its end.

    Raises RequestError for a value out of range or no model, NotFoundError for a model that is not
    here, PocketLMError where PocketLM itself cannot run one, UnsupportedError for a peer that is
    not installed.
    """
    plan = Plan(
        threads=threads or available_cores(),
        prompt=prompt,
        generate=generate,
        depth=depth,
        batch=tuple(batch),
        rounds=rounds,
        kv=kv,
    )
    require_peers(against)
    names = [refs] if isinstance(refs, str | Path) else list(refs)
    if not names:
        raise RequestError("there is no model to measure")
    paths = [_path(name) for name in names]
    versions = dict.fromkeys((OURS, *against), "")
    bandwidth: list[float] = []
    models = []
    for name, path in zip(names, paths, strict=True):
        rounds_ = Rounds(
            plan,
            [
                Setup(
                    engine=engine,
                    path=str(path),
                    context=plan.context,
                    sequences=1,
                    threads=plan.threads,
                    kv=plan.kv,
                )
                for engine in (OURS, *against)
            ],
            open_engine=EngineProcess,
            start=first_token,
            probe=lambda: read_bandwidth(plan.threads),
            progress=progress,
        )
        rounds_.run(path.name)
        versions |= rounds_.versions
        bandwidth += rounds_.bandwidth
        models.append(_model_speed(str(name), path, rounds_, plan))
        found = Speed(this_machine(), plan, versions, Samples(tuple(bandwidth)), tuple(models))
        if measured is not None:
            measured(found)
    return found


def _path(ref: str | Path) -> Path:
    if isinstance(ref, Path):
        return ref
    if not isinstance(ref, str):
        raise RequestError(f"a model is named by a string or a Path, found {ref!r}")
    return Store().resolve(ref).path


def _model_speed(name: str, path: Path, rounds: Rounds, plan: Plan) -> ModelSpeed:
    rows = tuple(
        Row(
            measure,
            label(measure, plan),
            unit(measure),
            {engine: Samples(tuple(values)) for engine, values in engines.items()},
        )
        for measure, engines in rounds.samples.items()
    )
    return ModelSpeed(
        model=name,
        type=describe_path(path).quantization,
        file=sum(given.path.stat().st_size for given in model_files(path)),
        rows=rows,
        traffic=_traffic(path, rows, Samples(tuple(rounds.bandwidth)).median, plan),
        agreements=_agreements(rounds.first_tokens),
        failures=tuple(rounds.failures),
        read_bandwidth=Samples(tuple(rounds.bandwidth)),
    )


def _agreements(first_tokens: Mapping[str, Sequence[int]]) -> tuple[Agreement, ...]:
    ours = first_tokens[OURS]
    return tuple(
        Agreement(name, len(ours), sum(a == b for a, b in zip(ours, theirs, strict=True)))
        for name, theirs in first_tokens.items()
        if name != OURS and len(theirs) == len(ours) > 1
    )


def _traffic(path: Path, rows: Sequence[Row], bandwidth: float, plan: Plan) -> tuple[Traffic, ...]:
    """What the decodes of one sequence read, against the bandwidth measured between them."""
    before = {"decode": plan.prompt, "decode_at_depth": plan.depth}
    found = []
    with closing(open_model(path)) as spec:
        for row in rows:
            if row.measure in before:
                reads = decode_reads(spec, before[row.measure] + plan.generate // 2, plan.kv)
                speed = row.engines[OURS].median
                reached = (reads.weights + reads.kv) * speed / bandwidth
                found.append(Traffic(row.measure, reads.weights, reads.kv, reached))
    return tuple(found)
