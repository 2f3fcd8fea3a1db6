"""``pocketlm chat REF``: a conversation. Ctrl-C stops the answer, not the program."""

from __future__ import annotations

import ast
import contextlib
import sys
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from pocketlm.errors import CapacityError, PocketLMError, RequestError

if TYPE_CHECKING:
    from pocketlm import Completion, Model

HELP = """\
/set               show the options        /set NAME VALUE   set one, such as temperature 0.2
                                           /set NAME none    back to what it was
/system            show the system message /system TEXT      set it ("none" for none)
/reset             forget the conversation
/stats             what the last answer cost
/help              this                    /bye              leave (or Ctrl-D)
A message that begins with \"\"\" goes on to the next \"\"\", and may begin with a / then.
A line that ends with \\ goes on too. Ctrl-C stops an answer."""

OVERFLOW_HINT = (
    "/reset forgets the conversation, '/set on_overflow truncate' its oldest messages; "
    "a larger --context holds more."
)
_THINKING = {None: "none", True: "on", False: "off"}  # none: as the model's template has it


def chat(
    ref: Annotated[str, typer.Argument(help="A model: smollm2:135m, hf:ORG/REPO, ./model.gguf …")],
    system: Annotated[str | None, typer.Option(help="The system message.")] = None,
    context: Annotated[
        int | None, typer.Option(help="Tokens that a conversation may have.")
    ] = None,
    threads: Annotated[int | None, typer.Option(help="Default: the physical cores.")] = None,
    kv: Annotated[Literal["f16", "q8", "f32"], typer.Option(help="Type of the KV cache.")] = "f16",
    speculate: Annotated[
        str, typer.Option(help="Guess tokens: ngram (from the text), off, or a smaller model.")
    ] = "ngram",
) -> None:
    """Talk with a model."""
    from pocketlm.cli.answering import start_quickly

    start_quickly()
    from pocketlm.cli.fetching import load, warn_of_base
    from pocketlm.store.remote_refs import is_remote

    given = {"context": context, "threads": threads}
    options: dict[str, Any] = {name: v for name, v in given.items() if v is not None}
    if is_remote(ref):
        from pocketlm.cli.remote import refuse_local_options, talk

        refuse_local_options(**options, kv=kv, speculate=speculate)
        talk(ref, system)
        return
    with load(ref, kv=kv, speculate=speculate, **options) as model:
        if model.template is None:
            raise RequestError(
                f"the model {model.name} has no chat template",
                hint="It is probably a base model: 'pocketlm run --raw' continues a text.",
            )
        warn_of_base(ref)
        Session(model, system).talk()


class Session:
    """One conversation: its messages, its options, and the commands that change them."""

    def __init__(self, model: Model, system: str | None = None) -> None:
        self.model = model
        self.system = system
        self.messages: list[dict[str, str]] = []
        self.options: dict[str, Any] = {}
        self.on_overflow: Literal["error", "stop", "truncate"] = "error"
        self.think: bool | None = None
        self.last: Completion | None = None
        self.commands = {
            "/help": self._help,
            "/set": self._set,
            "/system": self._system,
            "/reset": self._reset,
            "/stats": self._stats,
        }

    def talk(self) -> None:
        """Reads and answers until /bye, the end of input, or a second Ctrl-C at the prompt."""
        if sys.stdin.isatty():
            with contextlib.suppress(ImportError):  # Windows' terminal edits lines itself
                import readline  # noqa: F401 (gives input() its editing and history)
            print(f"{self._title()}. /help says what there is.")
        interrupted = False
        while True:
            try:
                message, quoted = self._read()
            except EOFError:
                if sys.stdin.isatty():
                    print()
                return
            except KeyboardInterrupt:
                if interrupted:
                    return
                interrupted = True
                print("\nCtrl-C again, Ctrl-D or /bye leaves.")
                continue
            interrupted = False
            if not quoted and message.strip() in ("/bye", "/exit", "/quit"):
                return
            try:
                self.handle(message, quoted=quoted)
            except PocketLMError as error:
                print(f"pocketlm: {error}", file=sys.stderr)
            except KeyboardInterrupt:  # the second one, while an answer was being stopped
                print()

    def _title(self) -> str:
        from pocketlm.cli.output import harmless

        return f"{harmless(self.model.name)}, context {self.model.context:,}"

    def handle(self, message: str, *, quoted: bool = False) -> None:
        """One message or, unless it was put in quotes, one command.

        Raises PocketLMError; the conversation is then as before.
        """
        name, _, rest = message.strip().partition(" ")
        if name.startswith("/") and not quoted:
            command = self.commands.get(name)
            if command is None:
                known = ", ".join([*self.commands, "/bye"])
                raise RequestError(
                    f"there is no command {name}",
                    hint=f'There are {known}. A message that begins with / is put in """.',
                )
            command(rest.strip())
        elif message.strip():
            self._answer(message)

    def _read(self) -> tuple[str, bool]:
        """The next message, and whether it was put in quotes."""
        prompt = sys.stdin.isatty()
        line = input("> " if prompt else "")
        if line.startswith('"""'):
            text = line[3:]
            while '"""' not in text:
                text += "\n" + input("… " if prompt else "")
            return text[: text.index('"""')], True
        while line.endswith("\\"):
            line = line[:-1] + "\n" + input("… " if prompt else "")
        return line, False

    def _answer(self, message: str) -> None:
        from pocketlm.cli.answering import notices, show, stop_on_interrupt

        head = [] if self.system is None else [{"role": "system", "content": self.system}]
        asked = {"role": "user", "content": message}
        # Templates call it by the one name or by the other.
        names = () if self.think is None else ("enable_thinking", "thinking")
        with stop_on_interrupt() as cancel:
            try:
                chunks = self.model.stream(
                    [*head, *self.messages, asked],
                    template_options=dict.fromkeys(names, self.think),
                    on_overflow=self.on_overflow,
                    cancel=cancel,
                    **self.options,
                )
            except CapacityError as error:
                raise CapacityError(error.message, hint=OVERFLOW_HINT) from error
            self.last = show(chunks)
        # What was said of a stopped answer stays in the conversation: it was read.
        self.messages += [asked, {"role": "assistant", "content": self.last.text}]
        most = self.options.get("max_tokens")
        for notice in notices(self.last, self.model, most, limit="/set max_tokens"):
            print(f"[{notice}]")

    def _help(self, rest: str) -> None:
        print(HELP)

    def _reset(self, rest: str) -> None:
        self.messages.clear()
        self.last = None
        print("The conversation is empty.")

    def _system(self, rest: str) -> None:
        if rest:
            self.system = None if rest == "none" else rest
        print(self.system or "There is no system message.")

    def _stats(self, rest: str) -> None:
        from pocketlm.cli.answering import stats_lines

        if self.last is None:
            raise RequestError("there has been no answer yet")
        print("\n".join(stats_lines(self.last.stats, self.last.finish_reason, self.model)))

    def _set(self, rest: str) -> None:
        from pocketlm.engine.sampling import resolve

        name, _, value = rest.partition(" ")
        if not name:
            self._show_options()
            return
        value = value.strip()
        if not value:
            raise RequestError(f"/set {name} needs a value")
        if name == "on_overflow":
            if value not in ("error", "stop", "truncate"):
                raise RequestError(f"on_overflow is {value!r}, expected error, stop or truncate")
            self.on_overflow = value  # type: ignore[assignment]
        elif name == "think":
            self.think = _switch(value)
        else:
            changed = {**self.options, name: _literal(value)}
            resolve(changed)  # raises for an unknown name or a value out of range
            self.options = {name: v for name, v in changed.items() if v is not None}

    def _show_options(self) -> None:
        import dataclasses

        shown = dataclasses.asdict(self.model.sampling(**self.options))
        if "seed" not in self.options:
            shown["seed"] = "a new one for every answer"
        for name, value in shown.items():
            text = "none" if value in (None, (), frozenset()) else value
            print(f"{name:<20} {text}{'  (set here)' if name in self.options else ''}")
        print(f"{'on_overflow':<20} {self.on_overflow}")
        print(f"{'think':<20} {_THINKING[self.think]}")


def _literal(value: str) -> object:
    """0.5, 7, True, ["a", "b"] or {1: -2.0} as Python writes them; anything else is text."""
    if value == "none":
        return None
    try:
        return ast.literal_eval(value)
    except (ValueError, SyntaxError):
        return value


def _switch(value: str) -> bool | None:
    for state, name in _THINKING.items():
        if value == name:
            return state
    raise RequestError(f"think is {value!r}, expected on, off or none")
