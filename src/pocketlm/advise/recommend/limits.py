"""Hard limits: what a model or a variant must be, with found and wanted where it is not.

Limits of a model (licence, language, context, whether our engine runs it) need no prediction;
limits of a variant (memory, speed, disk) come from the performance model. A variant that breaks one
is never recommended, whatever its scores.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from pocketlm.advise.performance import Prediction
from pocketlm.advise.recommend.variants import Variant
from pocketlm.advise.recommend.wish import Terms
from pocketlm.catalog import CatalogEntry

Limit = Literal[
    "engine", "use", "offline", "license", "lang", "context", "disk", "memory", "min_speed"
]  # fmt: skip


@dataclass(frozen=True)
class Violation:
    """A limit that is broken.

    Attributes:
        limit: which.
        found, wanted: in words, with units; the second "" where nothing is to be chosen.
        excess: how far beyond the limit, as a ratio of at least 1; 1 where there is no measure.
    """

    limit: Limit
    found: str
    wanted: str = ""
    excess: float = 1.0

    def __str__(self) -> str:
        return f"{self.found}, wanted {self.wanted}" if self.wanted else self.found


def model_violations(
    entry: CatalogEntry, terms: Terms, refused: str | None, *, here: bool
) -> list[Violation]:
    """The limits that a model breaks whatever its type.

    refused: why our engine does not run it, None where it does; here: whether it is in the store.
    """
    found = []
    if refused is not None:
        found.append(Violation("engine", refused))
    if entry.base and not terms.use.base:
        found.append(Violation("use", "a base model: it continues text"))
    wanted = terms.use.collections
    if wanted and not set(wanted) & set(entry.collections):
        among = ", ".join(entry.collections) or "none"
        found.append(Violation("use", f"in the collections {among}", f"one of {', '.join(wanted)}"))
    if terms.offline and not here:
        found.append(Violation("offline", "not in the store", "a model that is here"))
    if terms.licences is not None and entry.licence.lower() not in terms.licences:
        found.append(Violation("license", entry.licence, str(terms.licence)))
    if terms.language is not None and not speaks(entry, terms.language):
        said = ", ".join(entry.languages) or "no language named"
        found.append(Violation("lang", said, terms.language))
    if entry.context < terms.context:
        found.append(
            Violation(
                "context",
                f"made for {entry.context:,} tokens",
                f"{terms.context:,}",
                terms.context / entry.context,
            )
        )
    return found


def variant_violations(variant: Variant, prediction: Prediction, terms: Terms) -> list[Violation]:
    """The limits that one form of a model breaks on the device."""
    found = []
    if terms.offline and not variant.here:
        found.append(Violation("offline", f"{variant.ref} is not in the store", "weights that are"))
    disk = terms.device.disk_free
    wanted_disk = disk_needed(variant, prediction)
    if disk is not None and wanted_disk > disk:
        found.append(
            Violation(
                "disk",
                f"{_gb(wanted_disk)} to store",
                f"at most {_gb(disk)}",
                wanted_disk / max(1, disk),
            )
        )
    if prediction.peak > terms.memory:
        found.append(
            Violation(
                "memory",
                f"{_gib(prediction.peak)} at its peak",
                f"at most {_gib(terms.memory)}",
                prediction.peak / max(1, terms.memory),
            )
        )
    if speed(prediction) < terms.min_speed:
        found.append(
            Violation(
                "min_speed",
                f"{speed(prediction):.1f} tokens/s",
                f"at least {terms.min_speed:g}",
                terms.min_speed / max(1e-9, speed(prediction)),
            )
        )
    return found


def speed(prediction: Prediction) -> float:
    """Tokens/s that a variant is held to: with a full context, where it is slowest."""
    return prediction.decode_at_context


def disk_needed(variant: Variant, prediction: Prediction) -> int:
    """Bytes on disk: what is pulled, where it is not here, and the file that is made of it."""
    source = 0 if variant.here else (variant.weights.size or original_bytes(variant))
    if not variant.made:
        return 0 if variant.here else (variant.weights.size or prediction.file)
    return source + prediction.file


def original_bytes(variant: Variant) -> int:
    """Of a download whose size nobody tells: its parameters in 16 or 32 bits."""
    width = 4 if variant.weights.quantization == "F32" else 2
    return width * variant.entry.parameters


def speaks(entry: CatalogEntry, language: str) -> bool:
    """Whether a model's own list of languages has this one, in any regional form."""
    return any(code.lower().partition("-")[0] == language for code in entry.languages)


def _gb(count: int) -> str:
    return f"{count / 1e9:.2f} GB"


def _gib(count: int) -> str:
    return f"{count / 2**30:.2f} GiB"
