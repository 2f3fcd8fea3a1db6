"""Finding models: on the Hugging Face hub, in Azure's catalog and in the curated one.

Below the models' code and above the store, whose connection, refs and rules of counting it uses.
"""

from pocketlm.search.discovery import search
from pocketlm.search.found import Found, Origin, Results, Score
from pocketlm.search.query import AtLeast, Query, Range

__all__ = ["AtLeast", "Found", "Origin", "Query", "Range", "Results", "Score", "search"]
