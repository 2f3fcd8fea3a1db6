"""How fast a model runs, beside other engines: ``pocketlm bench`` and ``pocketlm.bench``.

``plan`` says what is measured, ``contenders`` are the engines as they are timed. ``worker`` is one
of them in a process of its own, ``processes`` holds it from outside, ``rounds`` asks them in turn.
``first_token`` times fresh processes, ``limits`` measures what the machine could do, ``bench`` runs
it all, and ``results`` is what comes out.
"""
