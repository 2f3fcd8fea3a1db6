"""``pocketlm eval`` by asking for letters: of remote models, which give no probabilities, and with
``--asked`` of models that are here, to be compared with them."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pocketlm.errors import PocketLMError, RequestError

if TYPE_CHECKING:
    from pocketlm.evaluate.asked import Ask, AskedScore

_PATIENCE_S = 120.0  # in all, for one question, where an endpoint asks to wait
_WHY = (
    "Perplexity and divergence need the probability of every token of a given text, which the "
    "chat-completions API does not give; --task FILE can be asked."
)


def evaluate(
    ref: str,
    task: Path | None,
    unfit: Mapping[str, object],
    *,
    context: int | None,
    threads: int | None,
    kv: str,
    as_json: bool,
) -> None:
    """Asks the questions of a file and writes the score.

    ``unfit`` are options that this protocol has no use for; RequestError names those given.
    """
    from pocketlm.backends.remote.connection import RefusedError
    from pocketlm.cli.output import progress, write_json
    from pocketlm.cli.remote import refuse_local_options
    from pocketlm.evaluate.asked import ask_letters
    from pocketlm.evaluate.questions import read_questions
    from pocketlm.store.remote_refs import is_remote

    remote = is_remote(ref)
    if given := [name for name, value in unfit.items() if value is not None]:
        options = ", ".join(f"--{name.replace('_', '-')}" for name in given)
        who = "a remote model" if remote else "--asked"
        raise RequestError(f"{who} cannot be measured with {options}", hint=_WHY)
    if remote:
        refuse_local_options(context=context, threads=threads, kv=kv)
    if task is None:
        raise RequestError("there are no questions to ask", hint="Give --task FILE.")
    questions = read_questions(task)
    with ExitStack() as stack:
        if remote:
            ask = _of_remote(ref, stack)
        else:
            ask = _of_local(ref, stack, context=context, threads=threads, kv=kv)
        report = stack.enter_context(progress())
        found = ask_letters(
            ask, questions, refusal=RefusedError, task=f"questions to {ref}", progress=report
        )
    if as_json:
        write_json({"model": ref, "asked": asdict(found)})
        return
    _write(ref, found)


def _of_remote(ref: str, stack: ExitStack) -> Ask:
    from pocketlm.backends.remote import RemoteModel
    from pocketlm.backends.remote.connection import RefusedError
    from pocketlm.evaluate.asked import MAX_TOKENS

    model = stack.enter_context(RemoteModel(ref))
    options: dict[str, Any] = {"max_tokens": MAX_TOKENS, "temperature": 0.0}

    def ask(message: str) -> Iterator[str]:
        try:
            pieces = model.stream(message, patience_s=_PATIENCE_S, **options)
        except RefusedError as error:
            if error.parameter != "temperature" or "temperature" not in options:
                raise
            print(f"pocketlm: {ref} chooses its own temperature", file=sys.stderr)
            del options["temperature"]
            pieces = model.stream(message, patience_s=_PATIENCE_S, **options)
        yield from (piece.text for piece in pieces)

    return ask


def _of_local(ref: str, stack: ExitStack, **options: Any) -> Ask:
    from pocketlm.cli.fetching import load
    from pocketlm.evaluate.asked import MAX_TOKENS

    given = {name: value for name, value in options.items() if value is not None}
    model = stack.enter_context(load(ref, **given))
    if model.template is None:
        raise PocketLMError(
            f"the model {model.name} has no chat template, so it cannot be asked",
            hint="Without --asked its choices are scored by their log-likelihood.",
        )

    def ask(message: str) -> Iterator[str]:
        chunks = model.stream(message, max_tokens=MAX_TOKENS, temperature=0.0, on_overflow="stop")
        yield from (chunk.text for chunk in chunks)

    return ask


def _write(ref: str, found: AskedScore) -> None:
    from pocketlm.cli.output import harmless

    error = "" if found.acc_stderr is None else f" ± {100 * found.acc_stderr:.2f}"
    print(harmless(ref))
    print(f"  protocol       {found.protocol}: not comparable with scores by log-likelihood")
    print(f"  questions      {found.questions:,}")
    print(f"  acc            {100 * found.acc:.2f}{error} %")
    if found.unclear:
        print(f"  unclear        {found.unclear} replies name no choice, and count as wrong")
    if found.refused:
        print(f"  refused        {found.refused} by the content filter, and count as wrong")
