"""What a model is worth: perplexity, divergence from a reference, multiple-choice tasks.

It measures anything that answers as a ``Backend`` does. ``windows`` cuts the text, ``perplexity``
and ``divergence`` read it window by window, ``tasks`` scores choices; ``clusters`` has the errors.
"""

from __future__ import annotations
