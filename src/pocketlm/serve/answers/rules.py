"""Constraints as parts of a larger grammar, in llguidance's dialect of Lark."""

from __future__ import annotations

import json

from pocketlm.serve.generation import Constraint


def as_rule(constraint: Constraint, name: str) -> str:
    """A rule ``name`` that takes what the constraint takes."""
    value = constraint.value
    match constraint.kind:
        case "json":
            return f"{name}: %json {json.dumps(value)}\n"
        case "choice":
            texts = " | ".join(json.dumps(text, ensure_ascii=False) for text in value)
            return f"{name}: {texts}\n"
        case "regex":
            return f"{name}: /{_between_slashes(value)}/\n"
        case "lark":
            return f"{name}: %lark {{\n{value}\n}}\n"


def _between_slashes(expression: str) -> str:
    """A regular expression as it stands between slashes."""
    written: list[str] = []
    escaped = False
    for char in expression:
        if char == "\n":
            written.append("n" if escaped else r"\n")
        else:
            written.append(r"\/" if char == "/" and not escaped else char)
        escaped = char == "\\" and not escaped
    return "".join(written)
