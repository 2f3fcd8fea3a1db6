"""What an endpoint tells of its models: ``GET /models``, and the deployments of a Foundry project.

Every field is optional and every type is checked; what an endpoint does not say is None.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from pocketlm.backends.remote.connection import Connection, short
from pocketlm.errors import NotFoundError, SourceError
from pocketlm.store.remote_refs import RemoteRef

_MAX_PAGES = 50
_MAX_MODELS = 10_000


@dataclass(frozen=True)
class RemoteFacts:
    """One model of an endpoint.

    Attributes:
        ref: to use it by.
        model, version, publisher: of the model that is deployed.
        kind: how it is deployed (``GlobalStandard`` …).
        status: ``generally-available``, ``preview`` …
        context: tokens of prompt and answer, where the endpoint is a server that says so.
        created, retires: when it was made, and when it stops answering.
        capabilities: what it can do, by the endpoint's words.
    """

    ref: str
    model: str | None = None
    version: str | None = None
    publisher: str | None = None
    kind: str | None = None
    status: str | None = None
    context: int | None = None
    created: datetime | None = None
    retires: datetime | None = None
    capabilities: tuple[str, ...] = ()


def remote_facts(ref: RemoteRef) -> RemoteFacts:
    """What the endpoint tells of one model.

    Raises NotFoundError where it knows none of that name; SourceError where it cannot be asked.
    """
    connection = Connection(ref)
    try:
        if ref.project is not None:
            url = f"{_project(ref)}/{ref.model}?api-version=v1"
            return _deployment(connection.get(url, of_project=True), str(ref))
        try:
            found = connection.get(f"{ref.base}/models/{ref.model}")
        except NotFoundError:
            # Some servers list their models and cannot be asked for one.
            for listed in _models(connection, ref):
                if listed.ref == str(ref):
                    return listed
            raise
        return _model(found if isinstance(found, dict) else {}, str(ref))
    finally:
        connection.close()


def remote_models(place: RemoteRef) -> list[RemoteFacts]:
    """The models that an endpoint lists, or the deployments of a project. Raises SourceError."""
    connection = Connection(place)
    try:
        if place.project is None:
            return list(_models(connection, place))
        return list(_deployments(connection, place))
    finally:
        connection.close()


def _models(connection: Connection, ref: RemoteRef) -> Iterator[RemoteFacts]:
    document = connection.get(f"{ref.base}/models")
    listed = document.get("data") if isinstance(document, dict) else None
    if not isinstance(listed, list):
        raise SourceError(f"{ref.host} answered with something that is no list of models")
    for item in listed[:_MAX_MODELS]:
        if isinstance(item, dict) and isinstance(item.get("id"), str):
            yield _model(item, _ref_of(ref, item["id"]))


def _deployments(connection: Connection, place: RemoteRef) -> Iterator[RemoteFacts]:
    url: str | None = f"{_project(place)}?api-version=v1"
    for _ in range(_MAX_PAGES):
        document = connection.get(str(url), of_project=True)
        listed = document.get("value") if isinstance(document, dict) else None
        if not isinstance(listed, list):
            raise SourceError(
                f"{place.host} answered with something that is no list of deployments"
            )
        for item in listed:
            if isinstance(item, dict) and isinstance(item.get("name"), str):
                yield _deployment(item, f"{place}/{item['name']}")
        url = document.get("nextLink")
        if not url:
            return
        # The next page is asked with our token: only of the same host.
        if not isinstance(url, str) or not url.startswith(_root(place) + "/"):
            raise SourceError(f"{place.host} sends to another host for its next page")
    raise SourceError(f"{place.host} lists more than {_MAX_PAGES} pages of deployments")


def _root(ref: RemoteRef) -> str:
    return "/".join(ref.base.split("/")[:3])


def _project(ref: RemoteRef) -> str:
    return f"{_root(ref)}/api/projects/{ref.project}/deployments"


def _ref_of(place: RemoteRef, model: str) -> str:
    if place.scheme == "azure":
        return f"azure:{place.text.removeprefix('azure:').split('/')[0]}/{model}"
    return f"openai:{place.base}#{model}"


def _model(item: dict[str, Any], ref: str) -> RemoteFacts:
    retires = item.get("deprecation")
    can = item.get("capabilities")
    return RemoteFacts(
        ref,
        model=_text(item.get("model")) or _text(item.get("root")) or _text(item.get("id")),
        publisher=_text(item.get("owned_by")),
        status=_text(item.get("lifecycle_status")) or _text(item.get("status")),
        context=_count(item.get("max_model_len")) or _count(item.get("context_length")),
        created=_time(item.get("created") or item.get("created_at")),
        retires=_time(retires.get("inference")) if isinstance(retires, dict) else None,
        capabilities=_names(can),
    )


def _deployment(item: Any, ref: str) -> RemoteFacts:
    if not isinstance(item, dict):
        raise SourceError("the project answered with something that is no deployment")
    sku = item.get("sku")
    return RemoteFacts(
        ref,
        model=_text(item.get("modelName")),
        version=_text(item.get("modelVersion")),
        publisher=_text(item.get("modelPublisher")),
        kind=_text(sku.get("name")) if isinstance(sku, dict) else None,
        capabilities=_names(item.get("capabilities")),
    )


def _names(capabilities: object) -> tuple[str, ...]:
    """Those that are true; a project has them as texts."""
    if not isinstance(capabilities, dict):
        return ()
    return tuple(
        sorted(
            short(str(name))
            for name, value in capabilities.items()
            if value is True or (isinstance(value, str) and value.lower() == "true")
        )
    )


def _text(value: object) -> str | None:
    return short(value) if isinstance(value, str) and value.strip() else None


def _count(value: object) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) and value > 0 else None


def _time(value: object) -> datetime | None:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    try:
        return datetime.fromtimestamp(value, UTC)
    except (ValueError, OverflowError, OSError):
        return None
