"""A model of the Azure AI Foundry catalog, read from what its two public services say of it.

The gallery gives flat ``summaries``; the index behind it, which Foundry Local asks too, gives
entities of ``annotations`` and ``properties``. Neither has a count of parameters: those come from
the curated catalog where it knows the model. Every field may be missing.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping

from pocketlm.search.fields import count, distinct, mapping, number, text, texts, time
from pocketlm.search.found import Found
from pocketlm.search.known import Known, with_entry

# What each way to deploy is called in offers, deployment options and SKUs.
_DEPLOYMENTS = {
    "serverless": re.compile(r"standard|maas|paygo|serverless", re.I),
    "managed": re.compile(r"^vm\b|^vm-|managed ?compute|maap", re.I),
    "provisioned": re.compile(r"ptu|provisioned", re.I),
    "batch": re.compile(r"batch", re.I),
    "local": re.compile(r"foundry ?local|on devices", re.I),
}
_DEVICES = ("cpu", "gpu", "npu")


def read_summary(record: object, known: Known) -> Found | None:
    """A summary of the gallery; None where it is none."""
    facts = mapping(record)
    return _found(facts, facts, mapping(facts.get("variantInformation")), known)


def read_entity(record: object, known: Known) -> Found | None:
    """An entity of the index; None where it is none."""
    entity = mapping(record)
    annotations, properties = mapping(entity.get("annotations")), mapping(entity.get("properties"))
    facts = {**mapping(annotations.get("tags")), **mapping(annotations.get("systemCatalogData"))}
    named = {
        "name": properties.get("name") or annotations.get("name"),
        "assetId": entity.get("assetId") or entity.get("entityId"),
        "createdTime": mapping(properties.get("creationContext")).get("createdTime"),
        "version": properties.get("version") or entity.get("version"),
    }
    variants = mapping(properties.get("variantInfo"))
    return _found(named | _missing(facts, named), facts, variants, known)


def _missing(facts: Mapping[str, object], named: Mapping[str, object]) -> dict[str, object]:
    return {name: value for name, value in facts.items() if named.get(name) is None}


def _found(
    facts: Mapping[str, object],
    more: Mapping[str, object],
    variants: Mapping[str, object],
    known: Known,
) -> Found | None:
    name = text(facts.get("name"))
    if name is None:
        return None
    limits = mapping(facts.get("modelLimits"))
    lengths = mapping(limits.get("textLimits"))
    variant = mapping(variants.get("variantMetadata"))
    device = (text(variant.get("device")) or "").lower()
    found = Found(
        source="azure",
        id=name,
        ref=text(facts.get("assetId")) or name,
        title=text(facts.get("displayName")),
        publisher=text(facts.get("publisher")),
        context=_whole(lengths.get("inputContextWindow")) or _whole(more.get("textContextWindow")),
        licence=_licence(facts),
        tasks=_tasks(facts),
        languages=_codes(limits.get("supportedLanguages") or facts.get("languages")),
        formats=("onnx",) if text(variant.get("modelType")) == "ONNX" else (),
        created=time(facts.get("createdTime")),
        modified=time(facts.get("modifiedTime")),
        trending=number(facts.get("popularity")),
        tags=_words(facts.get("keywords")),
        devices=(device,) if device in _DEVICES else (),
        deployments=deployments(facts, local=bool(variant)),
        fine_tunable=_fine_tunable(facts),
        sold_by_azure=_flag(facts.get("isDirectFromAzure")),
        size=_whole(variant.get("fileSizeBytes")),
        revision=text(facts.get("version")),
    )
    return with_entry(found, known.of_name(name))


def _licence(facts: Mapping[str, object]) -> str | None:
    """As the hub spells it: ``MIT`` and ``mit``, ``Apache 2.0`` are both there."""
    licence = text(facts.get("license"))
    return None if licence is None else re.sub(r"\s+", "-", licence.lower())


def _tasks(facts: Mapping[str, object]) -> tuple[str, ...]:
    return distinct(_words(facts.get("inferenceTasks")) + _words(facts.get("task")))


def deployments(facts: Mapping[str, object], *, local: bool = False) -> tuple[str, ...]:
    """Ways to deploy, in our words; ``local``: there is a form for devices."""
    said = _words(facts.get("azureOffers")) + _words(facts.get("deploymentOptions"))
    said += _words(facts.get("deploymentTypes")) + tuple(_skus(facts.get("deploymentSku")))
    kinds = [kind for kind, how in _DEPLOYMENTS.items() if any(how.search(one) for one in said)]
    if local and "local" not in kinds:
        kinds.append("local")
    return tuple(kinds)


def _skus(value: object) -> Iterator[str]:
    for sku in value if isinstance(value, list) else ():
        if name := text(mapping(sku).get("name")):
            yield name


def _fine_tunable(facts: Mapping[str, object]) -> bool | None:
    """Whether there are tasks to tune it for; not said where the field is not there."""
    for name in ("fineTuningTasks", "finetuningTasks", "finetuning-tasks"):
        if name in facts:
            return bool(_words(facts[name]))
    return None


def _flag(value: object) -> bool | None:
    """Tags have words in the place of true and false."""
    if isinstance(value, str):
        return {"true": True, "false": False}.get(value.strip().lower())
    return value if isinstance(value, bool) else None


def _words(value: object) -> tuple[str, ...]:
    """A list, or one text with commas between."""
    if isinstance(value, str):
        return tuple(part for one in value.split(",") if (part := one.strip()))
    return texts(value)


def _codes(value: object) -> tuple[str, ...]:
    return distinct(code.lower() for code in _words(value))


def _whole(value: object) -> int | None:
    """A count, which tags write as text."""
    if isinstance(value, str) and value.isascii() and value.isdigit() and len(value) < 19:
        return int(value)
    return count(value)
