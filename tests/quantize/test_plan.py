"""What each tensor becomes: overrides, named matrices, fallbacks, refusals."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pocketlm.convert.stream import StreamTensor, TensorStream
from pocketlm.errors import ModelFileError, RequestError
from pocketlm.gguf import BlockType, tensor_nbytes
from pocketlm.quantize.plan import PlannedTensor, Recipe, plan
from pocketlm.quantize.quantization import make_recipe

KEYS = {"llama.block_count": 8, "llama.attention.head_count": 8, "llama.attention.head_count_kv": 2}


def stream(
    shapes: dict[str, tuple[int, ...]],
    type: BlockType = BlockType.F16,
    metadata: dict[str, Any] | None = None,
) -> TensorStream:
    def tensor(name: str, shape: tuple[int, ...]) -> StreamTensor:
        own = BlockType.F32 if len(shape) == 1 else type
        return StreamTensor(name, own, shape, lambda: np.empty(0, np.uint8), lambda: None)

    tensors = [tensor(name, shape) for name, shape in shapes.items()]
    return TensorStream(Path("m.gguf"), "llama", KEYS | (metadata or {}), tensors)


def layers(width: int, ffn: int, count: int = 8) -> dict[str, tuple[int, ...]]:
    shapes: dict[str, tuple[int, ...]] = {"token_embd.weight": (1000, width)}
    for i in range(count):
        shapes |= {
            f"blk.{i}.attn_norm.weight": (width,),
            f"blk.{i}.attn_q.weight": (width, width),
            f"blk.{i}.attn_v.weight": (width // 4, width),
            f"blk.{i}.attn_output.weight": (width, width),
            f"blk.{i}.ffn_down.weight": (width, ffn),
        }
    return shapes


def types(planned: list[PlannedTensor]) -> dict[str, str]:
    return {item.tensor.name: item.type.name for item in planned}


def recipe(type: str, **options: Any) -> Recipe:
    return make_recipe(type, **options)


def test_vectors_and_norms_stay() -> None:
    found = types(
        plan(stream({"blk.0.attn_norm.weight": (64,), "a.weight": (4, 64)}), recipe("Q8_0"))
    )
    assert found == {"blk.0.attn_norm.weight": "F32", "a.weight": "Q8_0"}


def test_rows_that_fit_no_block() -> None:
    shapes = {"a.weight": (8, 576), "b.weight": (8, 48), "c.weight": (8, 512)}
    planned = plan(stream(shapes), recipe("Q4_K_M"))
    assert types(planned) == {"a.weight": "Q5_0", "b.weight": "F16", "c.weight": "Q4_K"}
    assert [item.fallback for item in planned] == [BlockType.Q4_K, BlockType.Q4_K, None]


def test_importance_gives_early_layers_of_q4_0_one_step_more() -> None:
    shapes = layers(256, 512)
    without, guided = (
        types(plan(stream(shapes), recipe("Q4_0"), has_importance=has)) for has in (False, True)
    )
    assert without["blk.0.ffn_down.weight"] == "Q4_0"
    changed = {name for name in guided if guided[name] != without[name]}
    assert changed == {"blk.0.ffn_down.weight"}
    assert guided["blk.0.ffn_down.weight"] == "Q4_1"


def test_overrides_win_and_the_first_match_counts() -> None:
    wanted = ["blk.1.ffn=F16", r"ffn_down=Q6_K", "attn_q=q8_0"]
    found = types(plan(stream(layers(256, 512)), recipe("Q4_K_S", overrides=wanted)))
    assert found["blk.1.ffn_down.weight"] == "F16"
    assert found["blk.2.ffn_down.weight"] == "Q6_K"
    assert found["blk.0.attn_q.weight"] == "Q8_0"
    assert found["blk.7.attn_output.weight"] == "Q4_K"


def test_output_and_embedding() -> None:
    untied = layers(256, 512) | {"output.weight": (1000, 256)}
    found = types(plan(stream(untied), recipe("Q4_0", output_type="Q8_0", embedding_type="F16")))
    assert (found["output.weight"], found["token_embd.weight"]) == ("Q8_0", "F16")
    assert types(plan(stream(untied), recipe("Q4_0")))["output.weight"] == "Q6_K"
    tied = layers(256, 512)
    assert types(plan(stream(tied), recipe("Q4_0")))["token_embd.weight"] == "Q6_K"
    assert (
        types(plan(stream(tied), recipe("Q4_0", output_type="F16")))["token_embd.weight"] == "F16"
    )


def test_pure_is_one_type() -> None:
    found = plan(stream(layers(256, 512)), recipe("Q4_K_M", pure=True))
    assert {item.type.name for item in found} == {"Q4_K", "F32"}


def test_sizes() -> None:
    [item] = plan(stream({"a.weight": (8, 512)}), recipe("Q2_K"))
    assert item.nbytes == tensor_nbytes(BlockType.Q2_K, (8, 512)) == 8 * 2 * 84


def test_quantized_sources_are_refused_unless_allowed() -> None:
    quantized = stream({"a.weight": (8, 512)}, BlockType.Q4_0)
    with pytest.raises(RequestError, match="quantized already"):
        plan(quantized, recipe("Q4_K_M"))
    assert types(plan(quantized, recipe("Q4_K_M", allow_requantize=True))) == {"a.weight": "Q4_K"}
    assert types(plan(quantized, recipe("F16"))) == {"a.weight": "F16"}  # which loses nothing more
    [same] = plan(quantized, recipe("Q4_0"))
    assert same.copied


@pytest.mark.parametrize("override", ["nope=Q4_0", "=Q4_0", "ffn_down", "ffn_down=Q9", "(=Q4_0"])
def test_bad_overrides(override: str) -> None:
    with pytest.raises(RequestError):
        plan(stream(layers(256, 512)), recipe("Q4_0", overrides=[override]))


@pytest.mark.parametrize("heads", [0, "8", True])
def test_metadata_is_not_trusted(heads: object) -> None:
    bad = stream(layers(256, 512), metadata={"llama.attention.head_count": heads})
    with pytest.raises(ModelFileError, match="head_count"):
        plan(bad, recipe("Q4_0"))
