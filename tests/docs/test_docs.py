"""The documentation names only what exists: links, verbs, options, Python names."""

from __future__ import annotations

import ast
import importlib
import inspect
import re
from pathlib import Path
from typing import Annotated, get_args, get_origin, get_type_hints

import pytest
import typer

import pocketlm
from pocketlm.cli.main import VERBS

ROOT = Path(__file__).parents[2]
PAGES = [*ROOT.glob("*.md"), *sorted((ROOT / "docs").rglob("*.md"))]
PYTHON = re.compile(r"^```python\n(.*?)^```", re.M | re.S)
LINK = re.compile(r"\]\((?!https?:)([^)#\s]+)")
COMMAND = re.compile(r"\bpocketlm ([a-z]+)\b([^`\n|)\"#]*)")

each_page = pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)


def options_of(verb: str) -> set[str]:
    """The long options of a verb, as its annotations spell them."""
    module, name = VERBS[verb]
    function = getattr(importlib.import_module(module), name)
    found = {"--help"}
    for parameter, hint in get_type_hints(function, include_extras=True).items():
        if get_origin(hint) is not Annotated:
            continue
        for info in get_args(hint)[1:]:
            if isinstance(info, typer.models.OptionInfo):
                spelled = [d for d in (info.default, *(info.param_decls or ())) if d is not ...]
                name = f"--{parameter.replace('_', '-')}"
                found |= {str(d) for d in spelled if str(d).startswith("--")} or {
                    name,
                    name.replace("--", "--no-", 1),
                }
    return found


def test_there_are_pages() -> None:
    assert len(PAGES) > 10


@each_page
def test_links_lead_somewhere(page: Path) -> None:
    for target in LINK.findall(page.read_text("utf-8")):
        assert (page.parent / target).exists(), f"{page.name} links to {target}"


@each_page
def test_commands_and_options_exist(page: Path) -> None:
    for verb, rest in COMMAND.findall(page.read_text("utf-8")):
        assert verb in VERBS, f"{page.name} says 'pocketlm {verb}'"
        unknown = set(re.findall(r"(?<!\S)--[a-z][a-z-]*", rest)) - options_of(verb)
        assert not unknown, f"{page.name} gives 'pocketlm {verb}' the options {unknown}"


@pytest.mark.parametrize("verb", ["run", "list", "show", "rm", "import"])
def test_the_reference_names_every_option(verb: str) -> None:
    text = (ROOT / "docs/reference/cli.md").read_text("utf-8")
    missing = {o for o in options_of(verb) if o not in text and not o.startswith("--no-")}
    assert missing <= {"--help"}


@each_page
def test_python_compiles_and_names_exist(page: Path) -> None:
    for block in PYTHON.findall(page.read_text("utf-8")):
        for node in ast.walk(ast.parse(block)):
            if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
                if node.value.id == "pocketlm":
                    assert node.attr in pocketlm.__all__
                elif node.value.id == "model":
                    assert inspect.getattr_static(pocketlm.Model, node.attr)
