"""Whatever gives logits for tokens, behind one small interface: evaluation asks nothing else of it.

Stands between the engines (here the native one) and ``evaluate``, which measures any of them.
"""

from __future__ import annotations

from pocketlm.backends.backend import Backend, Floats, Ints
from pocketlm.backends.native import NativeBackend

__all__ = ["Backend", "Floats", "Ints", "NativeBackend"]
