"""An importance matrix measured by our own engine.

What llama.cpp's imatrix tool measures: the mean square of each input of each linear layer over a
calibration text. It weighs rounding errors by how much a column is used.
"""

from __future__ import annotations

import numpy as np

from pocketlm.models import ModelSpec
from pocketlm.progress import Progress, ProgressCallback, silent
from pocketlm.quantize.calibrated import OriginalWeights
from pocketlm.quantize.calibration_text import CalibrationText
from pocketlm.quantize.importance import Importance
from pocketlm.quantize.walk import Walk, matrices, stages


def measure_importance(
    spec: ModelSpec,
    text: CalibrationText,
    *,
    threads: int,
    progress: ProgressCallback = silent,
) -> Importance:
    """The importance of every matrix inside the model; not of the one that makes the logits."""
    walk = Walk(text.fit, threads=threads)
    weights = OriginalWeights(spec, threads)
    sums = {}
    steps = stages(spec.program)[:-1]
    for done, stage in enumerate(steps, 1):
        walk.advance(stage, weights)
        squares = np.square(walk.rows[stage.next.src], dtype=np.float32).sum(0, dtype=np.float64)
        for name in matrices(stage.next):
            sums[name] = (squares, text.fit.size)
        progress(Progress("measure importance", done, len(steps)))
    return Importance.from_sums(
        sums, datasets=text.names, chunks=len(text.fit), chunk_size=text.fit.shape[1]
    )
