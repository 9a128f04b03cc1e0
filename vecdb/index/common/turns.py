"""The turns of this process: its threads share one interpreter, whatever collections they search
(kernels/primitives/turns.py).
"""

from __future__ import annotations

import os
import sys

import numpy as np
from numpy.typing import NDArray

from vecdb.kernels.primitives import turns


def _has_lock() -> bool:
    """Whether this interpreter runs one thread at a time."""
    return bool(getattr(sys, "_is_gil_enabled", lambda: True)())


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


TURNS: NDArray[np.int64] = turns.new_turns(_cores()) if _has_lock() else np.empty(0, np.int64)


def _after_fork_in_child() -> None:
    if len(TURNS):
        turns.reset(TURNS, _cores())  # threads of the parent are not here


os.register_at_fork(after_in_child=_after_fork_in_child)
