"""PocketLM: one tool for the whole life of a small language model on an edge device.

    import pocketlm

    with pocketlm.load("smollm2:135m") as model:
        print(model.chat("What is the capital of France? Answer in one sentence.").text)

The names in ``__all__`` are the public interface; everything is imported at its first use, so that
``import pocketlm`` costs next to nothing.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pocketlm.advise.footprint import Footprint, footprint
    from pocketlm.advise.recommend import Recommended, Wish, recommend
    from pocketlm.api import Model, load
    from pocketlm.conversion import Converted, convert
    from pocketlm.engine.answer import Chunk, Completion, Stats
    from pocketlm.engine.request import TokenLogprobs
    from pocketlm.engine.sampling import SamplingOptions
    from pocketlm.errors import (
        Cancelled,
        CapacityError,
        IntegrityError,
        ModelFileError,
        NotFoundError,
        PocketLMError,
        RequestError,
        SourceError,
        UnsupportedError,
    )
    from pocketlm.evaluate.evaluation import Evaluation, evaluate
    from pocketlm.evaluate.speed.bench import bench
    from pocketlm.evaluate.speed.results import Speed
    from pocketlm.quantize.quantization import Quantized, quantize

__version__ = "0.1.0"

__all__ = [
    "Cancelled",
    "CapacityError",
    "Chunk",
    "Completion",
    "Converted",
    "Evaluation",
    "Footprint",
    "IntegrityError",
    "Model",
    "ModelFileError",
    "NotFoundError",
    "PocketLMError",
    "Quantized",
    "Recommended",
    "RequestError",
    "SamplingOptions",
    "SourceError",
    "Speed",
    "Stats",
    "TokenLogprobs",
    "UnsupportedError",
    "Wish",
    "__version__",
    "bench",
    "convert",
    "evaluate",
    "footprint",
    "load",
    "quantize",
    "recommend",
]

# Packages that can be called: see ``callable_package``.
_PACKAGES = {"convert", "evaluate", "quantize"}
_HOMES = {
    "Chunk": "pocketlm.engine.answer",
    "Completion": "pocketlm.engine.answer",
    "Converted": "pocketlm.conversion",
    "Evaluation": "pocketlm.evaluate.evaluation",
    "Footprint": "pocketlm.advise.footprint",
    "Quantized": "pocketlm.quantize.quantization",
    "Recommended": "pocketlm.advise.recommend",
    "Model": "pocketlm.api",
    "SamplingOptions": "pocketlm.engine.sampling",
    "Speed": "pocketlm.evaluate.speed.results",
    "Stats": "pocketlm.engine.answer",
    "TokenLogprobs": "pocketlm.engine.request",
    "Wish": "pocketlm.advise.recommend",
    "bench": "pocketlm.evaluate.speed.bench",
    "footprint": "pocketlm.advise.footprint",
    "load": "pocketlm.api",
    "recommend": "pocketlm.advise.recommend",
}


def __getattr__(name: str) -> object:
    if name not in __all__:
        raise AttributeError(f"module 'pocketlm' has no attribute {name!r}")
    if name in _PACKAGES:
        return importlib.import_module(f"pocketlm.{name}")
    value = getattr(importlib.import_module(_HOMES.get(name, "pocketlm.errors")), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
