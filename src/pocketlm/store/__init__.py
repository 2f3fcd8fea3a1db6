"""The store: verified models on this disk, by name, and the sources that they come from."""

from pocketlm.store.manifest import Manifest
from pocketlm.store.refs import parse
from pocketlm.store.store import Removed, Store, StoredModel

__all__ = ["Manifest", "Removed", "Store", "StoredModel", "parse"]
