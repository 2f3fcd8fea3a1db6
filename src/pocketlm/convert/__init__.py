"""From one form of a model to another: Hugging Face folders and GGUF files, either way.

The floor above the readers (``models``, ``text``) and below everything that changes weights:
``stream`` gives the tensors of either form as GGUF keeps them, one at a time.
"""

from pocketlm.convert.stream import StreamTensor, TensorStream, open_stream

__all__ = ["StreamTensor", "TensorStream", "open_stream"]
