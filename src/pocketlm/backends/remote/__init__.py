"""A deployed chat-completions endpoint as a model: Azure AI Foundry, or any OpenAI-like server.

    credentials   who we say we are
    connection    one request, its limits, and its failures in our words
    events        the answer's stream of server-sent events, bounded
    model         ``RemoteModel``: messages in, pieces of text out
    facts         what an endpoint tells of its models

It is no ``Backend``: an endpoint gives texts, not logits. Nothing is sent but what the caller asks
to be sent to the ref that the caller names, and never when PocketLM is offline.
"""

from __future__ import annotations

from pocketlm.backends.remote.model import RemoteModel, RemoteStats, Reply, collect

__all__ = ["RemoteModel", "RemoteStats", "Reply", "collect"]
