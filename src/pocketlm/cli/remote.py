"""What the verbs do with a model that runs elsewhere: answer, talk, tell its facts.

The same output as for a model that is here. What only a model that is here can do is refused by
the name of the option.
"""

from __future__ import annotations

import dataclasses
import json
import sys
from typing import TYPE_CHECKING, Any

from pocketlm.cli.chat import Session
from pocketlm.errors import RequestError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from pocketlm.backends.remote import RemoteModel, RemoteStats, Reply
    from pocketlm.backends.remote.facts import RemoteFacts

# What the verbs have where the option was not given.
_DEFAULTS = {
    "kv": "f16", "speculate": "ngram", "on_overflow": "error", "raw": False, "think": None,
}  # fmt: skip
_WHY = {
    "context": "the endpoint has its own context",
    "threads": "it does not compute here",
    "kv": "its cache is not here",
    "speculate": "the endpoint decodes as it does",
    "on_overflow": "the endpoint refuses what is too long",
    "raw": "the endpoint answers conversations only",
    "think": "each endpoint has its own switch for that",
}


def refuse_local_options(**options: Any) -> None:
    """Raises RequestError naming the options that a remote model cannot honour."""
    given = [n for n, value in options.items() if value is not None and value != _DEFAULTS.get(n)]
    if given:
        names = ", ".join(f"--{name.replace('_', '-')} ({_WHY[name]})" for name in given)
        raise RequestError(f"a remote model cannot honour {names}")


def answer(
    ref: str,
    messages: Sequence[Mapping[str, str]],
    options: Mapping[str, Any],
    *,
    stats: bool,
    as_json: bool,
) -> str:
    """``pocketlm run``: writes the answer; returns why it ended."""
    from pocketlm.backends.remote import RemoteModel, collect
    from pocketlm.cli.answering import stop_on_interrupt, written
    from pocketlm.cli.output import harmless

    with RemoteModel(ref) as model, stop_on_interrupt() as cancel:
        pieces = model.stream(messages, cancel=cancel, **options)
        reply = collect(pieces if as_json else written(pieces, for_terminal))
    if as_json:
        print(json.dumps(_record(ref, reply), ensure_ascii=False))
    for notice in notices(reply):
        print(f"pocketlm: {notice}", file=sys.stderr)
    if stats:
        for line in stats_lines(reply.stats, reply.finish_reason, ref):
            print(harmless(line), file=sys.stderr)
    return reply.finish_reason


def _record(ref: str, reply: Reply) -> dict[str, Any]:
    return {
        "model": ref,
        "text": reply.text,
        "finish_reason": reply.finish_reason,
        "stats": dataclasses.asdict(reply.stats),
    }


def for_terminal(text: str) -> str:
    """A piece of an answer as a terminal may have it: what a server writes must not steer it."""
    if not sys.stdout.isatty():
        return text
    return "".join(c if c.isprintable() or c in "\n\t" else repr(c)[1:-1] for c in text)


def notices(reply: Reply) -> list[str]:
    """What the reader of an answer has to know: that it is not whole."""
    if reply.finish_reason == "length":
        if not reply.text:
            return ["the limit of tokens was spent on thinking, before an answer (--max-tokens)"]
        return ["the answer was cut at the limit of tokens (--max-tokens, or the endpoint's own)"]
    if reply.finish_reason == "content_filter":
        return ["the content filter of the endpoint cut the answer"]
    return []


def stats_lines(stats: RemoteStats, reason: str, ref: str) -> list[str]:
    """The cost of an answer, for people; the times hold the network's."""

    def told(count: int | None) -> str:
        return "not said" if count is None else f"{count:,} tokens"

    cached = f" ({stats.cached_tokens:,} cached)" if stats.cached_tokens else ""
    thought = f" ({stats.reasoning_tokens:,} of thinking)" if stats.reasoning_tokens else ""
    ttft = "" if stats.ttft_s is None else f", first text after {stats.ttft_s:.2f} s"
    speed = "–" if stats.decode_tps is None else f"{stats.decode_tps:,.1f}"
    seed = "" if stats.seed is None else f" · seed {stats.seed}"
    return [
        f"remote   {ref} · answered by {stats.model or 'a model that is not named'} "
        f"· {stats.total_s:.2f} s in all",
        f"prompt   {told(stats.prompt_tokens)}{cached}{ttft}",
        f"answer   {told(stats.completion_tokens)}{thought}, {speed} tok/s "
        f"· ended by {reason}{seed}",
    ]


def talk(ref: str, system: str | None) -> None:
    """``pocketlm chat``."""
    from pocketlm.backends.remote import RemoteModel

    with RemoteModel(ref) as model:
        RemoteSession(model, system).talk()


class RemoteSession(Session):
    """A conversation with a remote model: the commands are the same, the options those it has."""

    def __init__(self, model: RemoteModel, system: str | None) -> None:
        super().__init__(None, system)  # type: ignore[arg-type]  # every use of it is below
        self.remote = model
        self.reply: Reply | None = None

    def _title(self) -> str:
        return f"{self.remote.name}, a remote model: what you write is sent to it"

    def _answer(self, message: str) -> None:
        from pocketlm.backends.remote import collect
        from pocketlm.cli.answering import stop_on_interrupt, written

        head = [] if self.system is None else [{"role": "system", "content": self.system}]
        asked = {"role": "user", "content": message}
        with stop_on_interrupt() as cancel:
            pieces = self.remote.stream(
                [*head, *self.messages, asked], cancel=cancel, **self.options
            )
            self.reply = collect(written(pieces, for_terminal))
        self.messages += [asked, {"role": "assistant", "content": self.reply.text}]
        for notice in notices(self.reply):
            print(f"[{notice}]")

    def _reset(self, rest: str) -> None:
        super()._reset(rest)
        self.reply = None

    def _stats(self, rest: str) -> None:
        from pocketlm.cli.output import harmless

        if self.reply is None:
            raise RequestError("there has been no answer yet")
        lines = stats_lines(self.reply.stats, self.reply.finish_reason, self.remote.name)
        print(harmless("\n".join(lines)))

    def _set(self, rest: str) -> None:
        from pocketlm.backends.remote.model import checked

        name, _, _ = rest.partition(" ")
        if name in ("on_overflow", "think"):
            raise RequestError(f"a remote model has no option {name}")
        before = self.options
        super()._set(rest)
        try:
            checked(self.options)
        except RequestError:
            self.options = before
            raise

    def _show_options(self) -> None:
        from pocketlm.backends.remote.model import HONOURED

        for name in HONOURED:
            value = self.options.get(name)
            print(f"{name:<20} {'as the endpoint has it' if value is None else value}")


def show(ref: str, *, as_json: bool) -> None:
    """``pocketlm show``: what the endpoint tells of one model."""
    from pocketlm.backends.remote.facts import remote_facts
    from pocketlm.cli.output import harmless, write_json
    from pocketlm.store.remote_refs import parse_remote

    remote = parse_remote(ref)
    facts = remote_facts(remote)
    if as_json:
        write_json(record(facts) | {"endpoint": remote.base})
        return
    print(harmless(facts.ref))
    for name, value in [("endpoint", remote.base), *_lines(facts)]:
        print(f"  {name:<13} {harmless(value)}")


def list_models(place: str, *, as_json: bool) -> None:
    """``pocketlm list azure:RESOURCE``: the models that an endpoint tells of."""
    from pocketlm.backends.remote.facts import remote_models
    from pocketlm.cli.output import write_json, write_table
    from pocketlm.store.remote_refs import parse_place

    found = remote_models(parse_place(place))
    if as_json:
        write_json([record(facts) for facts in found])
        return
    if not found:
        print("There are no models that it tells of.")
    rows = [
        (
            facts.ref,
            facts.model or "not said",
            facts.version or "",
            facts.publisher or "not said",
            facts.kind or facts.status or "",
        )
        for facts in found
    ]
    write_table(("REF", "MODEL", "VERSION", "PUBLISHER", "STATUS"), rows)


def record(facts: RemoteFacts) -> dict[str, Any]:
    """As JSON; times in ISO 8601."""
    found = dataclasses.asdict(facts)
    for name in ("created", "retires"):
        if found[name] is not None:
            found[name] = found[name].isoformat()
    return found


def _lines(facts: RemoteFacts) -> list[tuple[str, str]]:
    model = facts.model or "not said"
    pairs = [
        ("model", model if facts.version is None else f"{model}, version {facts.version}"),
        ("publisher", facts.publisher or "not said"),
        ("deployed as", facts.kind),
        ("status", facts.status),
        ("context", None if facts.context is None else f"{facts.context:,} tokens"),
        ("created", None if facts.created is None else f"{facts.created:%Y-%m-%d}"),
        ("retires", None if facts.retires is None else f"{facts.retires:%Y-%m-%d}"),
        ("can", ", ".join(facts.capabilities) or None),
    ]
    return [(name, value) for name, value in pairs if value is not None]
