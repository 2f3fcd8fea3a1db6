"""A model of the Hugging Face hub, read from what ``/api/models`` says of it.

Every field may be missing, null or of another type than the last time; only the id must be there.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping

from pocketlm.search.fields import count, distinct, items, mapping, number, text, texts, time
from pocketlm.search.found import Found, Score
from pocketlm.search.known import Known, with_entry

_REPO = re.compile(r"[A-Za-z0-9][\w.-]{0,95}(?:/[\w.-]{1,96})?", re.ASCII)
_LANGUAGE = re.compile(r"[a-z]{2,3}(?:-[A-Za-z0-9]{2,8})*")
_COMMIT = re.compile(r"[0-9a-f]{40}")
_FORMATS = ("gguf", "safetensors", "onnx", "mlx")
_MOST_SCORES = 200


def read_record(record: object, known: Known) -> Found | None:
    """None where it is no model."""
    facts = mapping(record)
    repo = text(facts.get("id")) or text(facts.get("modelId"))
    if repo is None or not _REPO.fullmatch(repo):
        return None
    card, tags = mapping(facts.get("cardData")), texts(facts.get("tags"))
    files = _files(facts.get("siblings"))
    sha = text(facts.get("sha"))
    task = text(facts.get("pipeline_tag")) or text(card.get("pipeline_tag"))
    found = Found(
        source="hub",
        id=repo,
        ref=f"hf:{repo}",
        publisher=text(facts.get("author")) or repo.rpartition("/")[0] or None,
        stated=_stated(facts),
        context=count(mapping(facts.get("gguf")).get("context_length")) or None,
        licence=_licence(card, tags),
        tasks=(task,) if task else (),
        languages=_languages(card, tags),
        formats=_formats(tags, files),
        library=text(facts.get("library_name")) or text(card.get("library_name")),
        gated=_gated(facts.get("gated")),
        downloads=count(facts.get("downloads")),
        likes=count(facts.get("likes")),
        trending=number(facts.get("trendingScore")),
        created=time(facts.get("createdAt")),
        modified=time(facts.get("lastModified")),
        scores=tuple(_scores(facts))[:_MOST_SCORES],
        tags=tags,
        revision=sha if sha and _COMMIT.fullmatch(sha) else None,
        files=files,
    )
    return with_entry(found, known.of_repo(repo))


def _stated(facts: Mapping[str, object]) -> int | None:
    """The hub's total: elements as they are stored, whatever they mean."""
    for kind in ("safetensors", "gguf"):
        if total := count(mapping(facts.get(kind)).get("total")):
            return total
    return None


def _licence(card: Mapping[str, object], tags: tuple[str, ...]) -> str | None:
    """The name of a licence of its own where the card gives one for "other"."""
    named = next(iter(texts(card.get("license"))), None)
    tagged = next((t.partition(":")[2] for t in tags if t.startswith("license:")), None)
    licence = named or tagged
    if licence in (None, "other"):
        return text(card.get("license_name")) or licence
    return licence


def _languages(card: Mapping[str, object], tags: tuple[str, ...]) -> tuple[str, ...]:
    """The card's; without one, tags that look like codes say too little to be believed, but those
    marked as a language do."""
    named = texts(card.get("language"))
    marked = tuple(tag.partition(":")[2] for tag in tags if tag.startswith("language:"))
    return distinct(code.lower() for code in named + marked if _LANGUAGE.fullmatch(code.lower()))


def _files(siblings: object) -> tuple[str, ...]:
    names = (mapping(one).get("rfilename") for one in items(siblings))
    return tuple(name for name in names if isinstance(name, str) and 0 < len(name) <= 1024)


def _formats(tags: tuple[str, ...], files: tuple[str, ...]) -> tuple[str, ...]:
    tagged = {tag.lower() for tag in tags}
    endings = {name.rpartition(".")[2].lower() for name in files}
    return tuple(kind for kind in _FORMATS if kind in tagged or kind in endings)


def _gated(value: object) -> bool | None:
    """``"auto"`` and ``"manual"`` say who lets people in."""
    return value if isinstance(value, bool) else True if value in ("auto", "manual") else None


def _scores(facts: Mapping[str, object]) -> Iterator[Score]:
    for one in items(facts.get("evalResults")):
        yield from _eval_result(mapping(one))
    for entry in items(facts.get("model-index")) + items(
        mapping(facts.get("cardData")).get("model-index")
    ):
        for result in items(mapping(entry).get("results")):
            yield from _index_result(mapping(result))


def _eval_result(result: Mapping[str, object]) -> Iterator[Score]:
    """An entry of ``.eval_results/*.yaml``; older answers have no ``data`` around it."""
    facts = mapping(result.get("data")) or result
    data_set = mapping(facts.get("dataset"))
    name = text(data_set.get("id")) or text(facts.get("dataset_id"))
    task = text(data_set.get("task_id")) or text(facts.get("task_id"))
    value = number(facts.get("value"))
    if name is not None and value is not None:
        where = mapping(facts.get("source"))
        source = text(where.get("url")) or text(facts.get("source_url"))
        label = name.rpartition("/")[2]
        yield Score(
            label if task in (None, "default", label) else f"{label} {task}", value, None, source
        )


def _index_result(result: Mapping[str, object]) -> Iterator[Score]:
    """A result of the card's model-index: one data set, and metrics on it."""
    data_set = mapping(result.get("dataset"))
    name = text(data_set.get("name")) or text(data_set.get("type"))
    source = mapping(result.get("source"))
    for one in items(result.get("metrics")):
        metric = mapping(one)
        value = number(metric.get("value"))
        if name is not None and value is not None:
            kind = text(metric.get("name")) or text(metric.get("type"))
            yield Score(name, value, kind, text(source.get("url")) or text(source.get("name")))
