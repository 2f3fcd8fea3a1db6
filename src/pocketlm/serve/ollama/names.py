"""The model that a client of Ollama means: names as Ollama writes them, and ours.

Ollama's names are ``[HOST/][NAMESPACE/]NAME[:TAG]`` in any case. Models of the store have plain
names or refs with a scheme; both work everywhere.
"""

from __future__ import annotations

from pocketlm import catalog
from pocketlm.errors import NotFoundError, RequestError
from pocketlm.serve.services import Services
from pocketlm.store import Manifest, StoredModel, parse
from pocketlm.store.refs import OLLAMA_HOST, NameRef, PathRef

_HUBS = ("hf.co/", "huggingface.co/")
_MOST_CHARACTERS = 512


def ref_of(name: str) -> str:
    """The ref of a name as it may be pulled or made.

    ``hf.co/ORG/REPO:FILE`` is a repository of the hub; other names with slashes are of Ollama's
    registry or of the host that they name. A plain name stays one. Raises RequestError for what is
    no name, a path above all.
    """
    if not name:
        raise RequestError("model is required")
    if len(name) > _MOST_CHARACTERS or name.startswith((".", "/", "~")) or "\\" in name:
        raise RequestError(f"invalid model name: {name[:80]!r}")
    for hub in _HUBS:
        if name.lower().startswith(hub):
            name = f"hf:{name[len(hub) :]}"
    if not name.startswith(("hf:", "pypi:", "ollama:")) and "/" in name:
        name = _registry(name)
    if isinstance(parse(name), PathRef):
        raise RequestError(f"invalid model name: {name[:80]!r}")
    return name


def _registry(name: str) -> str:
    """A name with slashes; those of the library of Ollama's own registry lose them."""
    short = name.removeprefix(f"{OLLAMA_HOST}/").removeprefix("library/")
    return short if "/" not in short and short != name else f"ollama:{short}"


def source_of(name: str, services: Services) -> str:
    """The ref that a name is pulled as: a plain one that is in the catalog, or here already, keeps
    its meaning; any other is of Ollama's registry."""
    ref = ref_of(name)
    parsed = parse(ref)
    if not isinstance(parsed, NameRef) or catalog.find(parsed.name, parsed.tag) is not None:
        return ref
    found = find_stored(services, name)
    return ref if found is not None and found.name == str(_tagged(parsed)) else f"ollama:{ref}"


def called(services: Services, name: str) -> str:
    """What the fleet calls the model that a client means; an unknown name is returned as it is.

    Reads the store's manifests where the model is not loaded.
    """
    config = services.config
    if not name and config.models:
        return config.models[0]
    if name in config.aliases or name in config.models:
        return name
    wanted = _same(name)
    for loaded in services.fleet.loaded():
        if _same(loaded.facts.name) == wanted:
            return loaded.facts.name
    for given in (*config.aliases, *config.models):
        if _same(given) == wanted:
            return given
    found = find_stored(services, name)
    if found is not None:
        return found.name
    try:
        return str(parse(ref_of(name)))
    except RequestError:
        return name


def find_stored(services: Services, name: str) -> StoredModel | None:
    """The model of the store that a name means, whatever its case; None where there is none."""
    try:
        refs = [ref_of(name)]
    except RequestError:
        return None
    if isinstance(parse(refs[0]), NameRef):
        refs.append(f"ollama:{refs[0]}")
    every = {_same(model.name): model for model in services.store.list()}
    for ref in refs:
        if (found := every.get(_same(ref))) is not None:
            return found
    try:  # a plain name without its tag
        return services.store.resolve(refs[0])
    except NotFoundError:
        return None


def stored(services: Services, name: str) -> tuple[StoredModel, Manifest]:
    """As ``find_stored``. Raises NotFoundError in Ollama's words."""
    found = find_stored(services, name)
    if found is None or found.manifest is None:
        raise not_found(name)
    return found, found.manifest


def not_found(name: str) -> NotFoundError:
    """Ollama's error for a model that is not here; clients look for its words."""
    return NotFoundError(f"model '{name[:_MOST_CHARACTERS]}' not found")


def _same(name: str) -> str:
    """Equal for names of one model."""
    return name.lower().removesuffix(":latest")


def _tagged(ref: NameRef) -> NameRef:
    return NameRef(ref.name, ref.tag or "latest")
