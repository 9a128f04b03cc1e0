"""Functions that run at the same time, each in a thread of its own."""

from __future__ import annotations

import threading
from collections.abc import Callable


def together(*works: Callable[[], None]) -> None:
    """Run the functions in threads until all have returned; raise the first error that one of them raised."""
    errors: list[BaseException] = []

    def guarded(work: Callable[[], None]) -> None:
        try:
            work()
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=guarded, args=(work,)) for work in works]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(120)
        assert not thread.is_alive(), "hangs"
    if errors:
        raise errors[0]
