"""Speculative decoding: guessed tokens are computed in the same step as the next one and kept where
they turn out to be what would have been drawn (Leviathan et al. 2023), so the output is the same.

``proposer`` says what can be guessed (``ngram`` from the sequence itself, ``draft_model`` with a
smaller model), ``acceptance`` how often that was right, ``costs`` what it takes; ``speculator``
decides by both how many tokens are worth it. The engine verifies.
"""
