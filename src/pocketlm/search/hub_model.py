"""One model that lies on the hub, as its configuration and the headers of its files describe it.

For plans, before anything is downloaded. A ref means here the files that a pull of it would take,
and the facts are those that the store would note of them, by the same code.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from pocketlm.errors import UnsupportedError
from pocketlm.gguf import GGUFFile
from pocketlm.search.headers import (
    MOST_FILES,
    Repository,
    gguf_header,
    read_config,
    safetensors_header,
)
from pocketlm.store import Store, parse
from pocketlm.store.facts import parsed_folder_facts, parsed_gguf_facts, safetensors_tensors
from pocketlm.store.manifest import Facts
from pocketlm.store.refs import HubRef
from pocketlm.store.sources.hub import Listing, listing
from pocketlm.store.web import Web


@dataclass(frozen=True)
class RemoteFolder:
    """A folder of safetensors.

    Attributes:
        config: of config.json.
        headers: of each file of weights: the header's JSON, and the size of the file.
    """

    config: Mapping[str, object]
    headers: Mapping[str, tuple[bytes, int]]


@dataclass(frozen=True)
class HubModel:
    """A model of the hub.

    Attributes:
        facts: as the store would note them.
        gated: whether terms must be accepted first.
        size: bytes of the files that run the model.
        weights: what describes them; of a GGUF file its metadata and tensors, without their values.
    """

    ref: HubRef
    facts: Facts
    gated: bool
    size: int
    weights: GGUFFile | RemoteFolder


def hub_model(ref: str, store: Store | None = None) -> HubModel | None:
    """What the hub has under a ref; None for a ref of another kind.

    store: says whether the network may be used, and where it may go; the user's own without.

    Raises NotFoundError and SourceError (no such repository, the network, terms to accept, a login,
    PocketLM is offline), BusyError, RequestError where several files could be meant,
    ModelFileError and UnsupportedError for files that are not understood.
    """
    parsed = parse(ref)
    if not isinstance(parsed, HubRef):
        return None
    store = store or Store()
    with Web(offline=store.offline, egress=store.egress) as web:
        listed = listing(parsed, web)
        return _described(parsed, listed, Repository(web, listed.base, listed.headers))


def _described(ref: HubRef, listed: Listing, repository: Repository) -> HubModel:
    names = [entry.path for entry, role in listed.chosen if role == "weights"]
    if len(names) > MOST_FILES:
        raise UnsupportedError(f"the weights of {ref} are {len(names)} files, over {MOST_FILES}")
    weights: GGUFFile | RemoteFolder
    if names[0].lower().endswith(".gguf"):
        parts = [gguf_header(repository, name) for name in names]
        facts = parsed_gguf_facts(parts, Path(names[0]))
        weights, size = GGUFFile(parts), sum(part.size for part in parts)
    else:
        weights = RemoteFolder(
            read_config(repository),
            {name: safetensors_header(repository, name) for name in names},
        )
        tensors: dict[str, tuple[str, int]] = {}
        for name, (header, _) in weights.headers.items():
            tensors |= safetensors_tensors(header, Path(name))
        facts = parsed_folder_facts(weights.config, tensors, Path("config.json"))
        beside = (e.size or 0 for e, role in listed.chosen if role not in ("weights", "license"))
        size = sum(size for _, size in weights.headers.values()) + sum(beside)
    licence = listed.licence or facts.licence
    return HubModel(ref, facts.model_copy(update={"licence": licence}), listed.gated, size, weights)
