"""What the processes have in common, loaded once before they are forked: libraries, and kernels as machine code.

A process that loads the kernels by itself takes 140 MB for them, nearly all of it LLVM's. A forked one shares the pages
of its parent as long as neither writes to them. The parent therefore opens the directory as a reader, searches each
kind of collection once, closes it, and forks from then on; it has no thread of Python's then, and nothing open. Threads
of BLAS libraries stay: numpy's, and scipy's, which kernels load where it is there. They stop theirs before a fork.
"""

from __future__ import annotations

import contextlib
import ctypes
import gc
import os
import threading
import time

import vecdb
from vecdb import NotFound, VecdbError
from vecdb_server.app import search_once
from vecdb_server.logs import log

_KINDS_MAX = 16  # collections that are searched: each of another kind
_THREADS_S = 5.0  # for threads that are ending
_QUIET_S = 0.01
_TASKS = "/proc/self/task"


def warm_up(path: str) -> bool:
    """Load what searches of this directory need. What cannot be loaded each process loads for itself. Returns whether
    there is a directory that can be read.
    """
    warm = True
    try:
        with vecdb.open(path, read_only=True) as db:
            _search_kinds(db)
    except NotFound:
        return False
    except (VecdbError, OSError) as error:
        log.warning("kernels are not shared", reason=str(error))
        warm = False
    gc.collect()
    gc.freeze()  # the collector writes to all that it looks at
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).malloc_trim(0)
    _let_threads_end()
    return warm


def _let_threads_end() -> None:
    """Wait until Python has one thread, and the system shows no more that is ending: its list stays the same."""
    ends = time.monotonic() + _THREADS_S
    before: set[str] = set()
    while (threads := set(os.listdir(_TASKS))) != before or threading.active_count() > 1:
        if time.monotonic() > ends:
            return
        before = threads
        time.sleep(_QUIET_S)


def _search_kinds(db: vecdb.Database) -> None:
    kinds: set[tuple[object, ...]] = set()
    for name in db.collections():
        with contextlib.suppress(VecdbError):
            docs = db.collection(name)
            kind = docs.metric, docs.dtype, type(docs.config.index), docs.dim
            if kind not in kinds and len(kinds) < _KINDS_MAX:
                kinds.add(kind)
                search_once(docs)
