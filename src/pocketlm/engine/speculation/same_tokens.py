"""Whether a draft model can guess for another one: token ids have to mean the same in both."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from pocketlm.errors import UnsupportedError
from pocketlm.models.spec import ModelSpec


def require_same_tokens(spec: ModelSpec, draft: ModelSpec) -> None:
    """Raises UnsupportedError that names the first id with another token in the draft model.

    One vocabulary may go on after the other ends: models of a family pad it differently.
    """
    ours, theirs = _tokens(spec), _tokens(draft)
    for id, (our, their) in enumerate(zip(ours, theirs, strict=False)):
        if our != their:
            raise UnsupportedError(
                f"the draft model {draft.name} does not share the vocabulary of {spec.name}: "
                f"token {id} is {their!r} there, {our!r} here",
                hint="Take a smaller model of the same family as the draft.",
            )


def _tokens(spec: ModelSpec) -> Sequence[object]:
    source = spec.tokenizer_source
    if isinstance(source, Path):
        from pocketlm.text import Tokenizer

        return list(Tokenizer.from_folder(source).vocabulary.tokens)
    tokens = source.get("tokenizer.ggml.tokens")
    return tokens if isinstance(tokens, Sequence) else ()
