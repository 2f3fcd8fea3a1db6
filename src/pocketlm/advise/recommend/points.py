"""Points: what ranks the variants that keep within every limit, and why.

    points = score x exp(-divergence of the type and of the KV cache) + guidelines + speed

Scores are those of one published table, chosen by the use, since publishers disagree by tens of
points about the same model. A model that the table lacks is taken for less than its size has there.
Every part comes out as a ``Reason``, and their points add up to the whole.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from pocketlm.advise.performance import Prediction
from pocketlm.advise.recommend.limits import speed
from pocketlm.advise.recommend.rules import Situation, Use, rules
from pocketlm.advise.recommend.variants import Variant
from pocketlm.advise.recommend.wish import Terms
from pocketlm.catalog import CatalogEntry, size_class

_MOST_DOUBLINGS = 2.0
_MOST_SLOW_DOUBLINGS = 3.0
_LEAST_FOR_A_LINE = 3


@dataclass(frozen=True)
class Reason:
    """Why a variant stands where it stands.

    Attributes:
        rule: its name in ``rules.toml``.
        says: in words, with the figures.
        points: that it gives or takes.
        source: of the rule.
    """

    rule: str
    says: str
    points: float
    source: str


@dataclass(frozen=True)
class Line:
    """Scores by size in one table: ``at + slope x ln(parameters)``, at most the best of it."""

    at: float
    slope: float
    most: float

    def of(self, parameters: int) -> float:
        return min(max(self.at + self.slope * math.log(parameters), 0.0), self.most)


def scores(entry: CatalogEntry, use: Use) -> dict[str, float] | None:
    """What the use's table says of the use's benchmarks; None where one of them is missing."""
    found = {
        one.benchmark: one.value
        for one in entry.scores
        if one.table == use.table and (use.mode is None or one.mode == use.mode)
    }
    return {name: found[name] for name in use.benchmarks} if {*use.benchmarks} <= {*found} else None


def mean(values: Mapping[str, float], use: Use) -> float:
    """The mean of a use's benchmarks by their weights."""
    total = sum(use.benchmarks.values())
    return sum(weight * values[name] for name, weight in use.benchmarks.items()) / total


def line(entries: Iterable[CatalogEntry], use: Use) -> Line | None:
    """Least squares over the models of the use's table; None where they are too few."""
    known = {
        one.parameters: mean(values, use)
        for one in entries
        if (values := scores(one, use)) is not None
    }
    if len(known) < _LEAST_FOR_A_LINE:
        return None
    xs = [math.log(count) for count in known]
    ys = list(known.values())
    mean_x, mean_y = sum(xs) / len(xs), sum(ys) / len(ys)
    spread = sum((x - mean_x) ** 2 for x in xs)
    slope = sum((x - mean_x) * (y - mean_y) for x, y in zip(xs, ys, strict=True)) / spread
    slope = max(0.0, slope)
    return Line(mean_y - slope * mean_x, slope, max(ys))


def reasons(
    variant: Variant,
    prediction: Prediction,
    situation: Situation,
    terms: Terms,
    sizes: Line | None,
) -> tuple[Reason, ...]:
    """Every reason that speaks for or against a variant, the score first."""
    scored = _score(variant.entry, terms.use, sizes)
    loss, points = type_loss(variant), scored.points
    formed = form_reasons(variant.type, variant.kv, loss, points, prediction, situation, terms)
    return (scored, *_model_reasons(variant.entry, terms), *formed)


def type_loss(variant: Variant) -> float:
    """Nats a token that a variant's type costs."""
    known = rules().loss
    share = known.trained_share if variant.trained else 1.0
    return share * known.of(variant.type, variant.entry.parameters)


def form_reasons(
    type: str,
    kv: str,
    loss: float,
    points: float,
    prediction: Prediction,
    situation: Situation,
    terms: Terms,
) -> tuple[Reason, ...]:
    """Reasons for or against one form of a model whose score gives so many points.

    loss: nats a token that the type costs.
    """
    guidelines = (
        Reason(name, one.says, one.points, one.source)
        for name, one in rules().guideline.items()
        if type in one.types
        and one.situation in ("always", situation)
        and (not one.uses or terms.use_name in one.uses)
    )
    return (*_losses(type, kv, loss, points), *guidelines, *_speed(prediction, terms))


def _model_reasons(entry: CatalogEntry, terms: Terms) -> Iterator[Reason]:
    for name, one in rules().guideline.items():
        if (
            not one.types
            and (not one.uses or terms.use_name in one.uses)
            and (not one.classes or size_class(entry.parameters) in one.classes)
            and (not one.collections or {*one.collections} & {*entry.collections})
        ):
            yield Reason(name, one.says, one.points, one.source)
    for collection, points in terms.use.favours.items():
        if collection in entry.collections:
            says = f"in the collection {collection}"
            yield Reason(f"favours {collection}", says, points, terms.use.sources["scores"])


def total(found: Sequence[Reason]) -> float:
    """The points of a variant."""
    return sum(one.points for one in found)


def _score(entry: CatalogEntry, use: Use, sizes: Line | None) -> Reason:
    values = scores(entry, use)
    if values is not None:
        each = ", ".join(f"{name} {value:g}" for name, value in values.items())
        says = f"{each} in the table {use.table}"
        return Reason("score", says, mean(values, use), use.sources["scores"])
    source = rules().sources["unscored"]
    if sizes is None:
        return Reason("no score", f"the table {use.table} says too little", 0.0, source)
    of_size = sizes.of(entry.parameters)
    says = (
        f"no {' and '.join(use.benchmarks)} in the table {use.table}: what models of its size "
        f"have there, {of_size:.1f}, less {rules().unscored:g}"
    )
    return Reason("no score", says, max(0.0, of_size - rules().unscored), source)


def _losses(type: str, kv: str, loss: float, points: float) -> Iterator[Reason]:
    known = rules().loss
    if loss:
        says = f"{type} is {loss:.3f} nats a token from the original at this size"
        yield Reason("type", says, points * math.expm1(-loss), known.sources["types"])
    cache = known.kv[kv]
    if cache:
        says = f"a KV cache in {kv} is {cache:g} nats a token from one in f16"
        lost = points * math.exp(-loss) * math.expm1(-cache)
        yield Reason("kv", says, lost, known.sources["kv"])


def _speed(prediction: Prediction, terms: Terms) -> list[Reason]:
    use, found = terms.use, []
    doublings = min(math.log2(speed(prediction) / terms.min_speed), _MOST_DOUBLINGS)
    if use.speed and doublings > 0:
        says = f"{speed(prediction):.1f} tokens/s where {terms.min_speed:g} will do"
        found.append(Reason("speed", says, use.speed * doublings, use.sources["min_speed"]))
    if prediction.first_token > use.patience:
        slow = min(math.log2(prediction.first_token / use.patience), _MOST_SLOW_DOUBLINGS)
        says = (
            f"the first token after {prediction.first_token:.1f} s, "
            f"where {use.patience:g} s are expected"
        )
        found.append(
            Reason("slow start", says, -rules().slow_start * slow, rules().sources["slow_start"])
        )
    return found
