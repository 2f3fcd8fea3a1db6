"""What an engine has done and has to do, as numbers for whoever watches it."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineStats:
    """A snapshot. Counters count since the engine was built; ``Engine.reset`` keeps them.

    Attributes:
        running, waiting: requests.
        kv_usage: share of the KV cache that requests hold, 0 to 1; of the fullest group of layers.
        prefix_queries: tokens of admitted prompts, a counter; prefix_hits: of them, those that were
            found in the prefix cache.
        preemptions: how often a request lost its place, a counter.
        steps: a counter.
        step_tokens: of the last step, prompts and guesses included.
        drafted, accepted: tokens guessed by speculation, and of them the right ones; counters.
    """

    running: int
    waiting: int
    kv_usage: float
    prefix_queries: int
    prefix_hits: int
    preemptions: int
    steps: int
    step_tokens: int
    drafted: int
    accepted: int
