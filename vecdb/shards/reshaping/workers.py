"""Who does the work of a reshaping: this process, one step after the other, or processes of Ray's (vecdb/ray)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol


class Workers(Protocol):
    """Objects that live elsewhere, perhaps, and are called. What a call returns is a promise, which other calls take in
    the place of the value.
    """

    def start(self, kind: Callable[..., Any], *args: Any) -> Any: ...

    def call(self, worker: Any, method: str, *args: Any, returns: int = 1) -> Any:
        """A promise; of a method that returns a tuple, a list of so many."""

    def get(self, promises: Any) -> Any:
        """What they became: of one, or of a list. Raises what a call did."""

    def end(self, worker: Any) -> None: ...


class InThisProcess:
    """Every call is made at once."""

    def start(self, kind: Callable[..., Any], *args: Any) -> Any:
        return kind(*args)

    def call(self, worker: Any, method: str, *args: Any, returns: int = 1) -> Any:
        found = getattr(worker, method)(*args)
        return list(found) if returns > 1 else found

    def get(self, promises: Any) -> Any:
        return promises

    def end(self, worker: Any) -> None:
        if hasattr(worker, "close"):
            worker.close()
