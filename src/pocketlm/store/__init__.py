"""The store: verified models on this disk, by name, and the sources that they come from."""

from pocketlm.store.checking import Finding, Report
from pocketlm.store.manifest import Manifest
from pocketlm.store.refs import parse
from pocketlm.store.setup import Setup
from pocketlm.store.shelf import Removed, StoredModel
from pocketlm.store.store import Store

__all__ = ["Finding", "Manifest", "Removed", "Report", "Setup", "Store", "StoredModel", "parse"]
