"""Goal: a kernel that is compiled already is reached at once, whatever other threads compile."""

from __future__ import annotations

import threading

import numpy as np
from numba.core.compiler_lock import global_compiler_lock

from vecdb.kernels.compile import entry_of
from vecdb.kernels.search import code_scan


def test_a_known_kernel_is_found_while_another_is_compiled() -> None:
    arguments = (
        np.zeros((2, 24), np.float32), np.zeros(2, np.int64), 0, 0, np.zeros(64, np.int64), np.zeros((2, 5), np.int64),
        np.zeros(2, np.int64), (0,),
    )  # fmt: skip
    entry_of(code_scan.scan_codes, *arguments)
    found: list[object] = []
    with global_compiler_lock:  # as whoever compiles holds it
        other = threading.Thread(target=lambda: found.append(entry_of(code_scan.scan_codes, *arguments)), daemon=True)
        other.start()
        other.join(30)
        assert found, "it waits for the lock"
