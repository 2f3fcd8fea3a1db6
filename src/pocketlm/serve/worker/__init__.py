"""The process of one loaded model: ``python -m pocketlm.serve.worker FD``.

It alone opens the model's file, so that a hostile one harms nobody else, and what it took comes
back whole when it ends. It ends when the channel is closed. The messages, by their key:

| to the worker                                      | from it                                    |
|----------------------------------------------------|--------------------------------------------|
| open: an ``Order``                                 | plan: bytes it will take, or failed: error |
| load: true                                         | ready: facts, or failed: error             |
| answer: id, generation                             | started: id, … or error: id, …; then step  |
| embed, tokenize, detokenize: id, …                 | result: id, … or error: id, …              |
| cancel: id                                         | nothing more of it                         |

``step`` has the pieces that one step of the engine brought for all answers, and its figures.

Three threads: one reads messages (``port``), one turns text into tokens (``asking``), the main one
runs the engine (``loop``) and sleeps where it has nothing to do.
"""
