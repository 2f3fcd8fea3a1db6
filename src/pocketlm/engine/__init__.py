"""The native engine: many sequences share one model, one KV cache and one token budget a step.

Read in this order: ``sampling`` (what a caller may ask for), ``request`` (one sequence and its
life), ``blocks`` (pages of the KV cache), ``scheduler`` (who computes what in the next step),
``runner`` (the step itself, native or mocked), ``engine`` (the loop that ties them), ``machine``
(memory and cores that this process may use). The engine works on token ids; text enters as an
optional decoder.
"""
