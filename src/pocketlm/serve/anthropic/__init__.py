"""Anthropic's Messages API over the models of a fleet, for its clients and for coding agents.

``request`` is the body, ``translate`` makes a ``Generation`` of it, ``events`` gives the answer its
shape, ``routes`` puts them together.
"""

from __future__ import annotations

from pocketlm.serve.anthropic.routes import router

__all__ = ["router"]
