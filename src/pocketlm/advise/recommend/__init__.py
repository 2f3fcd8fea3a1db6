"""Which model, in which type, for this device and use: first limits, then points, with reasons."""

from pocketlm.advise.recommend.planning import Form, Plan, plan
from pocketlm.advise.recommend.recommending import (
    Choice,
    Ranked,
    Recommended,
    RuledOut,
    recommend,
)
from pocketlm.advise.recommend.wish import Wish

__all__ = [
    "Choice",
    "Form",
    "Plan",
    "Ranked",
    "Recommended",
    "RuledOut",
    "Wish",
    "plan",
    "recommend",
]
