"""One engine for many clients: the HTTP APIs of OpenAI, Ollama and Anthropic over loaded models.

The front process (``app``, one module per API) checks requests, asks the ``fleet`` for a model and
writes answers; it computes nothing. Each loaded model lives in a worker process of its own
(``worker``): tokenizer, template, engine, native core. Between them is ``generation``: what an API
may ask of a model and what comes back, in plain data.
"""
