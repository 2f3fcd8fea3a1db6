"""How fast a model will be, and what it will take, before anything is downloaded.

planned(ref | path | entry) -> PlannedModel      what a model would be in each file type
predict(model, type, device, ...) -> Prediction  its speed and memory there
"""

from pocketlm.advise.performance.planned import (
    PlannedFile,
    PlannedModel,
    Where,
    catalog_entry,
    planned,
)
from pocketlm.advise.performance.prediction import Prediction, predict
from pocketlm.advise.performance.residence import Residence, residence

__all__ = [
    "PlannedFile",
    "PlannedModel",
    "Prediction",
    "Residence",
    "Where",
    "catalog_entry",
    "planned",
    "predict",
    "residence",
]
