"""JSON files of a model folder, read with errors that name the file."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from pocketlm.errors import ModelFileError


def read_json(path: Path) -> dict[str, Any]:
    """The object in `path`.

    Raises:
        ModelFileError: no such file, not JSON, or not an object.
    """
    try:
        value = json.loads(path.read_bytes())
    except FileNotFoundError as error:
        raise ModelFileError(f"{path.name} is missing", path=path) from error
    except (ValueError, RecursionError) as error:
        raise ModelFileError(f"{path.name} is not valid JSON: {error}", path=path) from error
    if not isinstance(value, dict):
        raise ModelFileError(f"{path.name} should hold an object", path=path)
    return value
