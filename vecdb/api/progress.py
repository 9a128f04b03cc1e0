"""How far long work is: a function that callers pass, or a bar on a terminal or in a notebook."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from vecdb.api.tables import library
from vecdb.errors import InvalidArgument

Report = Callable[[int, int], None]
Wanted = bool | Report | None


class Bar:
    """A bar of tqdm's, made when the first report says how much there is. Threads: one reports at a time."""

    def __init__(self, text: str) -> None:
        self._text = text
        self._make = library("tqdm.auto", "progress=True").tqdm
        self._bar: Any = None

    def __call__(self, done: int, total: int) -> None:
        if self._bar is None:
            self._bar = self._make(total=total, desc=self._text, unit_scale=True)
        if self._bar.disable:  # it was closed at the end
            return
        self._bar.total = total
        self._bar.n = min(done, total)
        self._bar.refresh()
        if done >= total:
            self._bar.close()


def reporter(progress: Any, text: str) -> Report | None:
    """What `progress` of a public call means: None or False nothing, True a bar that begins with the text, otherwise
    what is called with (done, total). Raises InvalidArgument; VecdbError where tqdm is missing.
    """
    if progress is None or progress is False:
        return None
    if progress is True:
        return Bar(text)
    if not callable(progress):
        raise InvalidArgument(f"progress must be True, for a bar, or a function of (done, total), got {progress!r}")
    report: Report = progress
    return report
