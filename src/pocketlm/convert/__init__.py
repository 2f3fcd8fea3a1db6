"""From one form of a model to another: Hugging Face folders and GGUF files, either way.

The floor above the readers (``models``, ``text``) and below everything that changes weights:
``stream`` gives the tensors of either form as GGUF keeps them, one at a time. Called as a function,
``pocketlm.convert(...)``, it is that of ``pocketlm.conversion``.
"""

from __future__ import annotations

from pocketlm.callable_package import make_callable
from pocketlm.convert.stream import StreamTensor, TensorStream, open_stream

__all__ = ["StreamTensor", "TensorStream", "open_stream"]

make_callable(__name__, "pocketlm.conversion", "convert")
