"""What a run of ``pocketlm bench`` leaves in the history: each model, measured and predicted."""

from __future__ import annotations

import logging
from dataclasses import replace
from datetime import UTC, datetime

from pocketlm import __version__
from pocketlm.advise.device import Device, this_device
from pocketlm.advise.performance.formula import scaled
from pocketlm.advise.performance.history import Measure, Point, Run, remember
from pocketlm.advise.performance.planned import planned
from pocketlm.advise.performance.prediction import case_of, formula_of
from pocketlm.advise.performance.residence import residence
from pocketlm.errors import PocketLMError
from pocketlm.evaluate.speed.contenders import OURS
from pocketlm.evaluate.speed.results import ModelSpeed, Speed
from pocketlm.settings import Settings

_log = logging.getLogger(__name__)

_LEAST_PROMPT, _LEAST_DECODE = 64, 16  # tokens; less is too short to tell
_FIRST_PROMPT = 5  # tokens of the prompt that the first token is timed with


def remember_speed(found: Speed) -> None:
    """Adds the last model of a run to the history, where the run was long enough to tell.

    A home that cannot be written is told in a warning: what was measured is not lost with it.
    """
    plan = found.plan
    if plan.prompt < _LEAST_PROMPT or plan.generate < _LEAST_DECODE:
        return
    try:
        run = run_of(found, found.models[-1], this_device())
        remember([run], Settings.from_environment().home)
    except (OSError, PocketLMError) as error:
        _log.warning("the speed is not remembered for predictions: %s", error)


def run_of(found: Speed, speed: ModelSpeed, device: Device) -> Run:
    """One model of a run on ``device``, which knows its rates."""
    plan = found.plan
    assert device.rates is not None
    rates = scaled(device.rates, plan.threads)
    rates = replace(rates, read_bandwidth=speed.read_bandwidth.median, threads=plan.threads)
    device = replace(device, rates=rates)
    model = planned(speed.model)
    file = model.file()
    formula = formula_of(model, file, device, kv=plan.kv, threads=plan.threads)
    memory = residence(model, file, context=plan.context, kv=plan.kv, threads=plan.threads)
    medians = {row.measure: row.engines[OURS].median for row in speed.rows if OURS in row.engines}
    points = []

    def add(measured: str, measure: Measure, at: int, predicted: float, less: float = 0.0) -> None:
        if measured in medians:
            points.append(Point(measure, at, max(medians[measured] - less, 1e-6), predicted))

    half = plan.generate // 2
    at, deep = plan.prompt + half, plan.depth + half
    add("prefill", "prefill", plan.prompt, formula.prefill(plan.prompt))
    add("decode", "decode", at, formula.decode(at))
    add("decode_at_depth", "decode", deep, formula.decode(deep))
    start = formula.load(memory.weights, model.spec.config.vocab)
    add("first_token", "start", 0, start, less=formula.prompt(_FIRST_PROMPT))
    return Run(
        when=datetime.now(UTC).replace(microsecond=0),
        version=__version__,
        model=speed.model[-300:],
        case=case_of(model, file, device, kv=plan.kv, threads=plan.threads),
        points=tuple(points),
    )
