"""Names that a plan gives, compared with those that there are, before anything is built."""

from __future__ import annotations

from collections.abc import Sequence

import vecdb


def refuse_unknown(given: Sequence[str], known: Sequence[str], what: str) -> None:
    """Raises InvalidArgument for the first of `given` that is not `known`. what : a word for one of them."""
    for name in given:
        if name not in known:
            raise vecdb.InvalidArgument(f"no {what} {name!r}; there are {', '.join(known)}")
