"""Packages that are functions too: ``pocketlm.evaluate(...)`` beside ``pocketlm.evaluate.windows``.

The import system binds a package's name in its parent, whatever stood there. So a function of the
same name would come and go with the order of imports; a package that can be called does not.
"""

from __future__ import annotations

import importlib
import sys
from types import ModuleType
from typing import Any


class CallablePackage(ModuleType):
    """A package whose call is that of the function ``function`` of its submodule ``home``."""

    _home: str
    _function: str

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return self.__wrapped__(*args, **kwargs)

    @property
    def __wrapped__(self) -> Any:  # ``help`` and ``inspect.signature`` ask for it
        return getattr(importlib.import_module(self._home), self._function)


def make_callable(package: str, home: str, function: str) -> None:
    """Lets a package that is being imported stand for ``function`` of its submodule ``home``.

    The submodule, or the module where ``home`` has a dot, is imported at the first call.
    """
    module = sys.modules[package]
    module.__class__ = CallablePackage
    vars(module).update(_home=home if "." in home else f"{package}.{home}", _function=function)
