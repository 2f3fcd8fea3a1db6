"""``pocketlm ps``: the models that a running server has in memory."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from pocketlm.cli.output import AsJson
from pocketlm.cli.serving import Url


def ps(url: Url = None, as_json: AsJson = False) -> None:
    """List the models that a server has loaded."""
    from pocketlm.cli.output import size_text, write_json, write_table
    from pocketlm.cli.serving import ask

    models = ask("GET", "/admin/models", url)["models"]
    if as_json:
        write_json(models)
        return
    if not models:
        print("no model is loaded")
    write_table(
        ["MODEL", "QUANTIZATION", "MEMORY", "CONTEXT", "KV", "RUNNING", "WAITING", "UNTIL"],
        [
            (
                model["name"],
                model["quantization"],
                size_text(model["memory"]),
                f"{model['context']:,}",
                f"{model['kv_used']:,} of {model['kv_tokens']:,}",
                str(model["running"]),
                str(model["waiting"]),
                _until(model),
            )
            for model in models
        ],
    )


def _until(model: dict[str, Any]) -> str:
    if model["pinned"]:
        return "pinned"
    if model["expires"] is None:
        return "for ever"
    left = datetime.fromisoformat(model["expires"]) - datetime.now(UTC)
    seconds = max(0, round(left.total_seconds()))
    return f"{seconds} s" if seconds < 120 else f"{round(seconds / 60)} min"
