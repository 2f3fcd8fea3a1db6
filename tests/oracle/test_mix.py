"""The mixes behind names like Q4_K_M against llama.cpp's.

``data/mixes.json`` is what llama.cpp's own ``llama_model_quantize`` (build 11434, mainline, from
its source) chose for the models of ``mixes.py``, in a dry run, with and without an importance
matrix; ``mixes.py`` made it and makes it anew.
"""

from __future__ import annotations

import json
from typing import Any

import pytest

from pocketlm.quantize.file_types import FILE_TYPES
from pocketlm.quantize.plan import plan
from pocketlm.quantize.quantization import make_recipe

from .mixes import MODELS, TABLE, compact, key, stream

pytestmark = pytest.mark.oracle


def planned(model: str, file_type: str, *, importance: bool) -> dict[str, str]:
    items = plan(stream(MODELS[model]), make_recipe(file_type), has_importance=importance)
    matrices = {i.tensor.name: i.type.name for i in items if len(i.tensor.shape) > 1}
    return compact(matrices)


def spread(row: dict[str, str]) -> dict[str, str]:
    """``compact``'s table by kind alone: the order of kinds in a layer is nobody's promise."""
    types = {kind.type.name for kind in FILE_TYPES.values()}
    found = {kind: value for kind, value in row.items() if kind not in types}
    return found | {kind: type for type in types & row.keys() for kind in row[type].split()}


@pytest.fixture(scope="module")
def table() -> dict[str, Any]:
    read: dict[str, Any] = json.loads(TABLE.read_text(encoding="utf-8"))["models"]
    return read


def test_the_table_is_complete(table: dict[str, Any]) -> None:
    assert table.keys() == MODELS.keys()
    for rows in table.values():
        assert rows.keys() >= FILE_TYPES.keys()


@pytest.mark.parametrize("model", MODELS)
def test_every_tensor_has_llama_cpps_type(model: str, table: dict[str, Any]) -> None:
    rows = table[model]
    for file_type in FILE_TYPES:
        for importance in (False, True):
            wanted = rows.get(key(file_type, importance), rows[file_type])
            found = planned(model, file_type, importance=importance)
            assert spread(found) == spread(wanted), (file_type, importance)
