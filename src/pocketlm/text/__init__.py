"""Text and tokens: tokenizers, chat templates, streaming detokenization.

`Tokenizer` turns text into ids and back, `ChatTemplate` turns messages into the text a model was
trained on, `encode_chat` joins both so that user text cannot steer, and `StreamDecoder` gives text
out token by token. Nothing here knows a model's weights.
"""

from pocketlm.text.chat import encode_chat
from pocketlm.text.fill import encode_fill, fill_ends, fill_tokens
from pocketlm.text.stream import StreamDecoder
from pocketlm.text.template import ChatTemplate
from pocketlm.text.template_sources import folder_templates, gguf_templates
from pocketlm.text.tokenizer import Tokenizer

__all__ = [
    "ChatTemplate",
    "StreamDecoder",
    "Tokenizer",
    "encode_chat",
    "encode_fill",
    "fill_ends",
    "fill_tokens",
    "folder_templates",
    "gguf_templates",
]
