"""Text and tokens: tokenizers, chat templates, streaming detokenization.

`Tokenizer` turns text into ids and back, `ChatTemplate` turns messages into the text a model was
trained on, `encode_chat` joins both so that user text cannot steer, and `StreamDecoder` gives text
out token by token. Nothing here knows a model's weights.
"""


from pocketlm.text.tokenizer import Tokenizer

__all__ = ["Tokenizer"]
