"""Models of an Ollama registry.

A manifest lists layers by digest: the weights, and beside them template, parameters, system message
and licence, which are kept.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass

from pocketlm.errors import (
    IntegrityError,
    NotFoundError,
    SourceError,
    UnsupportedError,
)
from pocketlm.store.download import Remote
from pocketlm.store.manifest import Role, Source
from pocketlm.store.refs import OllamaRef
from pocketlm.store.registry import LAYER_TYPE, MANIFEST_TYPE, authorization, repository_url
from pocketlm.store.sources.base import Found, Intake, Pin

_DIGEST = re.compile(r"sha256:([0-9a-f]{64})")
_KEPT: dict[str, tuple[Role, str]] = {
    "model": ("weights", ".gguf"),
    "projector": ("projector", "-projector.gguf"),
    "adapter": ("adapter", "-adapter.gguf"),
    "template": ("template", "template"),
    "prompt": ("template", "template"),
    "params": ("params", "params.json"),
    "system": ("system", "system"),
    "messages": ("messages", "messages.json"),
    "license": ("license", "license"),
}


@dataclass(frozen=True)
class _Layer:
    role: Role
    name: str
    sha256: str
    size: int


def fetch(ref: OllamaRef, pin: Pin, intake: Intake) -> Found:
    """Raises NotFoundError, SourceError, UnsupportedError (not a GGUF), IntegrityError."""
    repository = repository_url(ref)
    document, headers = _manifest(ref, repository, intake)
    layers = read_layers(ref, document)
    records = tuple(
        intake.file(
            Remote(
                f"{repository}/blobs/sha256:{layer.sha256}",
                layer.name,
                layer.size,
                layer.sha256,
                headers,
            ),
            layer.role,
        )
        for layer in layers
    )
    for record in records:
        if record.role == "weights" and pin.sha256 not in (None, record.sha256):
            raise IntegrityError(
                f"{ref} is {record.sha256} now, the catalog pins {pin.sha256}",
                hint="The registry has replaced the model since the catalog was written.",
            )
    digest = hashlib.sha256(document).hexdigest()
    source = Source(ref=str(ref), url=repository, revision=f"sha256:{digest}")
    return Found(source, records, pin.licence)


def read_layers(ref: OllamaRef, document: bytes) -> list[_Layer]:
    """The layers that are kept. Nothing is trusted: a digest becomes a file name."""
    try:
        manifest = json.loads(document)
        version, listed = manifest["schemaVersion"], manifest["layers"]
        if version != 2 or not isinstance(listed, list):
            raise ValueError(f"schemaVersion is {version!r}, expected 2")
        layers: list[_Layer] = []
        for layer in listed:
            kind = str(layer["mediaType"]).removeprefix(LAYER_TYPE)
            if kind in _KEPT:
                layers.append(_layer(ref, kind, layer, {known.name for known in layers}))
        if isinstance(manifest.get("config"), dict):
            sha256, size = _digest_and_size(manifest["config"])
            layers.append(_Layer("other", "config.json", sha256, size))
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise SourceError(f"the manifest of {ref} is not one: {error!r}") from error
    if not any(layer.role == "weights" for layer in layers):
        raise UnsupportedError(
            f"{ref} has no GGUF layer",
            hint="It may run in the cloud only, or be of another format.",
        )
    return layers


def _layer(ref: OllamaRef, kind: str, layer: Mapping[str, object], taken: set[str]) -> _Layer:
    role, ending = _KEPT[kind]
    stem = f"{ref.name}-{ref.tag}" if ending.endswith(".gguf") else ""
    head, dot, tail = ending.partition(".")
    name, count = stem + ending, 1
    while name in taken:
        count += 1
        name = f"{stem}{head}-{count}{dot}{tail}"
    return _Layer(role, name, *_digest_and_size(layer))


def _digest_and_size(entry: Mapping[str, object]) -> tuple[str, int]:
    digest, size = entry["digest"], entry["size"]
    match = _DIGEST.fullmatch(digest) if isinstance(digest, str) else None
    if match is None:
        raise ValueError(f"{digest!r} is not a digest")
    if not isinstance(size, int) or isinstance(size, bool) or size < 0:
        raise ValueError(f"{size!r} is not a size")
    return match[1], size


def _manifest(ref: OllamaRef, repository: str, intake: Intake) -> tuple[bytes, dict[str, str]]:
    """The manifest's bytes and the header that the blobs are asked for with."""
    url = f"{repository}/manifests/{ref.tag}"
    headers: dict[str, str] = {}
    response, body = intake.web.get(url, {"Accept": MANIFEST_TYPE})
    if response.status_code == 401:
        headers = authorization(ref, response, intake.web)
        response, body = intake.web.get(url, {**headers, "Accept": MANIFEST_TYPE})
    if response.status_code == 404:
        raise NotFoundError(f"the registry {response.request.url.host} has no model {ref}")
    if response.status_code != 200:
        raise intake.web.refusal(response, str(ref))
    return body, headers
