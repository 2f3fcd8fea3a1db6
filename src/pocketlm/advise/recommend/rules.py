"""The rules that models are chosen by, read from ``rules.toml`` and checked.

Rules are data so that what a recommendation rests on can be read, questioned and changed without
reading code. Every rule has its source: a guideline, a measurement, or "our choice".
"""

from __future__ import annotations

import json
import math
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from importlib.resources import files
from typing import Annotated, ClassVar, Literal

from pydantic import ConfigDict, Field, TypeAdapter

from pocketlm.quantize.file_types import FILE_TYPES

_EXACT = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False)
_FILE = "rules.toml"

Text = Annotated[str, Field(min_length=1, max_length=600)]
Points = Annotated[float, Field(ge=-100, le=100)]
Nats = Annotated[float, Field(ge=0, le=10)]
Positive = Annotated[float, Field(gt=0, le=1e9)]
SizeClass = Literal["Micro", "Small", "Medium", "outside"]
Situation = Literal["always", "tightest", "balance", "ample"]


@dataclass(frozen=True)
class Room:
    """Memory that is left to others.

    Attributes:
        margin: share of the free memory that is not used.
        most_reserved: of a RAM that was only named, the system is taken to keep no more than this.
    """

    __pydantic_config__: ClassVar[ConfigDict] = _EXACT

    margin: Annotated[float, Field(ge=0, lt=1)]
    most_reserved: Annotated[float, Field(ge=0, lt=1)]
    source: Text


@dataclass(frozen=True)
class Use:
    """What a model is wanted for.

    Attributes:
        context: tokens, where none are asked for.
        prompt: tokens of a usual prompt, for the time to the first token.
        min_speed: tokens/s of decoding, where none are asked for.
        patience: seconds to the first token that nobody minds.
        table: the one table of published scores that models are ranked by.
        mode: of the scores, as the table has them.
        benchmarks: of that table, with their weights.
        collections: of the catalog; a model must be in one of them.
        favours: collections that are worth points.
        speed: points for each doubling of the minimal speed, up to two.
        base: whether models without instruction tuning will do.
    """

    __pydantic_config__: ClassVar[ConfigDict] = _EXACT

    title: Text
    context: Annotated[int, Field(ge=256, le=1 << 20)]
    prompt: Annotated[int, Field(ge=1, le=1 << 20)]
    min_speed: Positive
    patience: Positive
    table: Text
    benchmarks: Annotated[dict[Text, Positive], Field(min_length=1)]
    sources: dict[Text, Text]
    mode: str | None = None
    collections: tuple[Text, ...] = ()
    favours: dict[Text, Points] = field(default_factory=dict)
    speed: Points = 0.0
    base: bool = False


@dataclass(frozen=True)
class Guideline:
    """Points for what fits a guideline.

    Attributes:
        says: the guideline in words.
        situation: "tightest" where nothing above Q4_0 fits, "balance" where Q5_1 fits but Q8_0
            takes more than half of the usable memory, "ample" where Q8_0 takes at most half.
        types: that it favours; or, without them,
        classes, collections: of models that it favours.
        uses: that it holds for; empty for all.
    """

    __pydantic_config__: ClassVar[ConfigDict] = _EXACT

    says: Text
    points: Points
    source: Text
    situation: Situation = "always"
    types: tuple[Text, ...] = ()
    classes: tuple[SizeClass, ...] = ()
    collections: tuple[Text, ...] = ()
    uses: tuple[Text, ...] = ()


@dataclass(frozen=True)
class Losses:
    """What types cost: mean KL divergence from the original in nats a token.

    Attributes:
        types: of each file type, for a model of ``parameters``; smaller ones lose more.
        exponent: a model of n parameters loses (parameters / n) ** exponent times as much.
        kv: of each type of the KV cache.
        trained: a part of the refs of files whose model was trained to be in their type; of the
            loss of the type they have the share ``trained_share``.
    """

    __pydantic_config__: ClassVar[ConfigDict] = _EXACT

    parameters: Annotated[int, Field(gt=0)]
    exponent: Annotated[float, Field(ge=0, le=2)]
    types: dict[Text, Nats]
    kv: dict[Text, Nats]
    trained: Text
    trained_share: Annotated[float, Field(ge=0, le=1)]
    sources: dict[Text, Text]

    def of(self, type: str, parameters: int) -> float:
        """Nats a token that a model of so many parameters loses in a file type."""
        times = math.pow(self.parameters / parameters, self.exponent)
        return self.types[type] * times


@dataclass(frozen=True)
class DefaultUse:
    """The use for devices whose name begins so, where none is asked for."""

    __pydantic_config__: ClassVar[ConfigDict] = _EXACT

    device: str
    use: Text


@dataclass(frozen=True)
class Rules:
    """The whole file.

    Attributes:
        unscored: points that a model without scores in the table ranks below its size's line.
        slow_start: points that each doubling of a use's patience costs, up to three.
        licences: groups of licences that can be asked for by one name.
        languages: names of codes.
        types: that files are made in, largest first; ``ternary`` for models trained so.
        called: what forms of the catalog are called besides, and the type they are in memory.
        kv: types of the KV cache that are considered.
    """

    __pydantic_config__: ClassVar[ConfigDict] = _EXACT

    room: Room
    unscored: Positive
    slow_start: Positive
    licences: dict[Text, tuple[Text, ...]]
    languages: dict[Text, Text]
    types: tuple[Text, ...]
    ternary: tuple[Text, ...]
    called: dict[Text, Text]
    kv: tuple[Text, ...]
    default_use: tuple[DefaultUse, ...]
    loss: Losses
    guideline: dict[Text, Guideline]
    use: dict[Text, Use]
    sources: Mapping[Text, Text]


def read_rules(text: str) -> Rules:
    """Rules in TOML. Raises ValueError for faulty ones."""
    # By way of JSON, which has no tuples either: the records are strict.
    rules = TypeAdapter(Rules).validate_json(json.dumps(tomllib.loads(text)))
    named = {*rules.types, *rules.ternary, *rules.loss.types, *rules.called.values()}
    named |= {type for one in rules.guideline.values() for type in one.types}
    if unknown := named - set(FILE_TYPES):
        raise ValueError(f"there are no file types {sorted(unknown)}")
    if missing := named - set(rules.loss.types):
        raise ValueError(f"what {sorted(missing)} lose is missing")
    uses = {one.use for one in rules.default_use}
    uses |= {use for one in rules.guideline.values() for use in one.uses}
    if strange := uses - set(rules.use):
        raise ValueError(f"there are no uses {sorted(strange)}")
    for name, one in rules.guideline.items():
        if one.types and (one.classes or one.collections):
            raise ValueError(f"the guideline {name} is about types and about models")
        if one.situation != "always" and not one.types:
            raise ValueError(f"the guideline {name} has a situation but no types")
    if not set(rules.kv) <= set(rules.loss.kv):
        raise ValueError("what a type of the KV cache loses is missing")
    for name, use in rules.use.items():
        if lacking := {"context", "min_speed", "scores"} - set(use.sources):
            raise ValueError(f"the use {name} gives no source of {sorted(lacking)}")
    return rules


@cache
def rules() -> Rules:
    """The rules that ship with PocketLM."""
    return read_rules((files(__package__) / _FILE).read_text("utf-8"))
