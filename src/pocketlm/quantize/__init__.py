"""From a model to the same model in fewer bits a weight, in ordinary GGUF block types.

``plan`` says what each tensor becomes (``file_types``, ``mix``), ``files`` writes it. How weights
are rounded is the ladder of methods: by themselves (native encoders), ``calibrated`` for the
outputs on calibration text (``walk``, ``rounding``), ``distilled`` by gradient; ``ladder`` keeps
what helps. ``quantization`` does all of it for named models: ``pocketlm.quantize(...)`` is that.
"""

from __future__ import annotations

from pocketlm.callable_package import make_callable

make_callable(__name__, "quantization", "quantize")
