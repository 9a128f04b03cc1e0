"""Checks the names in a plan before anything is built."""

from __future__ import annotations

from collections.abc import Sequence

import vecdb


def refuse_unknown(given: Sequence[str], known: Sequence[str], what: str) -> None:
    """Raises InvalidArgument for the first name of `given` that is not in `known`. what : what the names are of."""
    for name in given:
        if name not in known:
            raise vecdb.InvalidArgument(f"no {what} {name!r}; there are {', '.join(known)}")
