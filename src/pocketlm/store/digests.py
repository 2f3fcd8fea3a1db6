"""Digests as registries and clients write them: checked before any of it becomes a path."""

from __future__ import annotations

import re

from pocketlm.errors import RequestError

_DIGEST = re.compile(r"sha256[:-]([0-9a-fA-F]{64})")


def sha256_of(digest: str) -> str:
    """The lowercase hex of ``sha256:HEX`` or ``sha256-HEX``. Raises RequestError for all else."""
    match = _DIGEST.fullmatch(digest)
    if match is None:
        raise RequestError(f"invalid digest format: {digest[:80]!r}")
    return match[1].lower()
