"""Packages whose own code runs when something is asked of it, not when a module inside them is imported."""

from __future__ import annotations

import sys
from importlib.util import find_spec, module_from_spec
from threading import RLock
from types import ModuleType
from typing import Any

_RUNNING = RLock()


class DeferredPackage(ModuleType):
    """A package with its path alone; the first other thing that is asked of it has it imported as usual."""

    def __getattr__(self, name: str) -> Any:
        with _RUNNING:
            if isinstance(self, DeferredPackage):
                self.__class__ = ModuleType  # type: ignore[assignment]
                spec = self.__spec__
                if spec is not None and spec.loader is not None:
                    spec.loader.exec_module(self)
        return getattr(self, name)


def defer_package(name: str) -> None:
    """Let a package that is not imported yet be imported so; nothing where it is not there."""
    if name not in sys.modules and (spec := find_spec(name)) is not None and spec.submodule_search_locations:
        sys.modules[name] = module = module_from_spec(spec)
        module.__class__ = DeferredPackage
