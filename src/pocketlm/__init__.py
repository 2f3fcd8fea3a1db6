"""PocketLM: one tool for the whole life of a small language model on an edge device."""
