"""What a model is worth: perplexity, divergence from a reference, multiple-choice tasks.

It measures anything that answers as a ``Backend`` does. ``windows`` cuts the text, ``perplexity``
and ``divergence`` read it window by window, ``tasks`` scores choices, ``clusters`` has the errors.
``evaluation`` does all of it for named models and files; ``pocketlm.evaluate(...)`` is that.
"""

from __future__ import annotations

from pocketlm.callable_package import make_callable

make_callable(__name__, "evaluation", "evaluate")
