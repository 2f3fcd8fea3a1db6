"""The jinja2 environment that chat templates run in: transformers' dialect, with limits.

A chat template is code from a model file, so it runs in jinja2's immutable sandbox and on a
budget: loops, joined strings and repeated strings are charged, and a template that spends more than
any real one needs is stopped. Dialect (transformers, utils/chat_template_utils.py): trimmed blocks,
loop controls, `tojson` without HTML escapes, `raise_exception`, `strftime_now`, `{% generation %}`.
Imported by `template` when the first template is compiled.
"""

from __future__ import annotations

import datetime
import functools
import json
import re
from collections.abc import Callable, Iterable, Iterator
from contextvars import ContextVar
from typing import Any

import jinja2
import jinja2.ext
from jinja2 import nodes
from jinja2.exceptions import SecurityError
from jinja2.filters import do_format
from jinja2.parser import Parser
from jinja2.runtime import Context
from jinja2.sandbox import ImmutableSandboxedEnvironment
from jinja2.utils import Namespace

#: What one rendering may cost: 1 a character built, 1,000 a loop iteration. Far above any
#: conversation that fits a context, and a second or two of work.
BUDGET = 1_000_000_000
_ITERATION_COST = 1_000

#: Characters that one string may have, the rendered prompt included.
MAX_CHARS = 32_000_000

# A format's width or precision of seven digits, or one that is an argument.
_WIDTH = re.compile(r"\d{7}|%[^%]*\*|\{[^{}]*:[^{}]*\{")

_spent: ContextVar[int] = ContextVar("template_budget_spent", default=0)


class RefusedError(jinja2.TemplateError):
    """The template called `raise_exception`: its words are for the user."""


class BudgetError(SecurityError):
    """The template did more work, or built a longer text, than any real one does."""


def start_budget() -> None:
    """Begin a rendering in this thread: nothing is spent yet."""
    _spent.set(0)


def _charge(cost: int) -> None:
    spent = _spent.get() + cost
    _spent.set(spent)
    if spent > BUDGET:
        raise BudgetError("the template loops or builds text without end")


def _charge_text(length: int) -> None:
    if length > MAX_CHARS:
        raise BudgetError(f"the template builds a text of more than {MAX_CHARS:,} characters")
    _charge(length)


def _limit_widths(values: Iterable[object]) -> None:
    """Refuse numbers that a string function would take as a width."""
    for value in values:
        if isinstance(value, int) and value > MAX_CHARS:
            raise BudgetError(f"the template asks for a text {value:,} wide")


def _limited(function: Callable[..., Any]) -> Callable[..., Any]:
    """The filter `function`, its numbers limited and its result charged."""

    @functools.wraps(function)  # keeps the mark that says what else jinja2 passes
    def limited(*args: Any, **kwargs: Any) -> Any:
        _limit_widths((*args, *kwargs.values()))
        result = function(*args, **kwargs)
        if isinstance(result, str | list):
            _charge_text(len(result))
        return result

    return limited


def _format(text: str, *args: Any, **kwargs: Any) -> str:
    """jinja2's `format` filter, which is the `%` operator by another name."""
    if _WIDTH.search(str(text)):
        raise BudgetError("the template formats with a width of a million or more")
    return do_format(text, *args, **kwargs)


def _join(parts: Iterable[str]) -> str:
    pieces = list(parts)
    _charge_text(sum(map(len, pieces)))
    return "".join(pieces)


def _metered(items: Iterable[Any]) -> Iterator[Any]:
    for item in items:
        _charge(_ITERATION_COST)
        yield item


def _tojson(
    value: Any,
    ensure_ascii: bool = False,
    indent: int | None = None,
    separators: tuple[str, str] | None = None,
    sort_keys: bool = False,
) -> str:
    text = json.dumps(
        value, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys
    )
    _charge_text(len(text))
    return text


def _raise_exception(message: object) -> None:
    raise RefusedError(str(message))


def _strftime_now(form: str) -> str:
    return datetime.datetime.now().strftime(form)  # local time, as transformers does


class _TemplateNamespace(Namespace):
    """`namespace()` without underscore names, which could reach into Python."""

    def __init__(*args: Any, **kwargs: Any) -> None:
        self, args = args[0], args[1:]
        attributes = dict(*args, **kwargs)
        for name in attributes:
            _check_name(name)
        Namespace.__init__(self, attributes)

    def __setitem__(self, name: str, value: Any) -> None:
        _check_name(name)
        super().__setitem__(name, value)


def _check_name(name: object) -> None:
    if isinstance(name, str) and name.startswith("_"):
        raise SecurityError(f"a namespace attribute may not begin with an underscore: {name!r}")


class _TemplateDict:
    """`dict(...)` as a function only, so that the class itself is out of reach."""

    def __call__(self, *args: Any, **kwargs: Any) -> dict[Any, Any]:
        return dict(*args, **kwargs)


class _GenerationTag(jinja2.ext.Extension):
    """`{% generation %} ... {% endgeneration %}` marks the answer for training; gives its body."""

    tags = {"generation"}  # noqa: RUF012 (jinja2's own class attribute)

    def parse(self, parser: Parser) -> list[nodes.Node]:
        next(parser.stream)
        return parser.parse_statements(("name:endgeneration",), drop_needle=True)


class TemplateEnvironment(ImmutableSandboxedEnvironment):
    """See the module's docstring."""

    intercepted_binops = frozenset({"*", "**", "+", "%"})
    concat = staticmethod(_join)

    def __init__(self) -> None:
        super().__init__(
            trim_blocks=True,
            lstrip_blocks=True,
            extensions=[_GenerationTag, jinja2.ext.loopcontrols],
        )
        for name, function in self.filters.items():
            self.filters[name] = _limited(function)
        self.filters["format"] = _limited(_format)
        self.globals.pop("lipsum", None)  # filler text of any length; no template needs it
        self.filters["tojson"] = _tojson
        self.filters["_metered"] = _metered
        self.filters["_joined"] = lambda parts: _join(map(str, parts))
        self.globals.update(
            raise_exception=_raise_exception,
            strftime_now=_strftime_now,
            dict=_TemplateDict(),
            namespace=_TemplateNamespace,
        )

    def _parse(self, source: str, name: str | None, filename: str | None) -> nodes.Template:
        """Parse, then meter every loop and every `~`, which no hook of jinja2 sees."""
        tree = super()._parse(source, name, filename)
        for loop in tree.find_all(nodes.For):
            loop.iter = nodes.Filter(loop.iter, "_metered", [], [], None, None, lineno=loop.lineno)
        _meter_joins(tree)
        return tree

    def call_binop(self, context: Context, operator: str, left: Any, right: Any) -> Any:
        if operator == "+":
            if hasattr(left, "__len__") and hasattr(right, "__len__"):
                _charge_text(len(left) + len(right))
        elif operator == "*":
            for sized, times in ((left, right), (right, left)):
                if hasattr(sized, "__len__") and isinstance(times, int):
                    _charge_text(len(sized) * max(times, 0))
        elif operator == "**":
            if isinstance(left, int) and isinstance(right, int):
                _charge_text(left.bit_length() * max(right, 0))
        elif isinstance(left, str) and _WIDTH.search(left):
            raise BudgetError("the template formats with a width of a million or more")
        return super().call_binop(context, operator, left, right)

    def call(self, context: Context, obj: Any, *args: Any, **kwargs: Any) -> Any:
        method = getattr(obj, "__wrapped__", obj)  # the sandbox wraps str.format
        text = getattr(method, "__self__", None)
        if isinstance(text, str):
            _limit_widths((*args, *kwargs.values()))
            if method.__name__ in ("format", "format_map") and _WIDTH.search(text):
                raise BudgetError("the template formats with a width of a million or more")
        result = super().call(context, obj, *args, **kwargs)
        if isinstance(result, str):
            _charge_text(len(result))
        return result


def _meter_joins(node: Any) -> Any:
    """`node` with every `a ~ b` replaced by a join that is charged."""
    for field, value in node.iter_fields():
        if isinstance(value, nodes.Node):
            setattr(node, field, _meter_joins(value))
        elif isinstance(value, list):
            value[:] = [_meter_joins(v) if isinstance(v, nodes.Node) else v for v in value]
    if isinstance(node, nodes.Concat):
        items = nodes.List(node.nodes, lineno=node.lineno)
        return nodes.Filter(items, "_joined", [], [], None, None, lineno=node.lineno)
    return node
