"""The loaded models, each a worker process: who is loaded, who goes, who may ask.

``fleet`` decides, ``resident`` is one loaded model, ``process`` its worker seen from here,
``remote`` what an API holds in its hands, ``names`` turns what a client calls a model into files.
"""

from pocketlm.serve.fleet.fleet import WorkerFleet

__all__ = ["WorkerFleet"]
