"""Packages that only some formats need."""

from __future__ import annotations

import importlib
from types import ModuleType

from vecdb import Unavailable


def optional_module(name: str, purpose: str, extra: str = "data") -> ModuleType:
    """Import an optional dependency, or say which extra brings it."""
    try:
        return importlib.import_module(name)
    except ImportError as error:
        package = name.split(".")[0]
        raise Unavailable(f"{purpose} needs {package}: pip install 'vecdb-engine[{extra}]'") from error
