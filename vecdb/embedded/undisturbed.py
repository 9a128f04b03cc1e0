"""Work that Ctrl-C must not break off in the middle runs in a thread of its own, since Python handles signals in the
main thread alone.

    main thread   starts the work, waits ------- Ctrl-C ------ waits for its end, raises KeyboardInterrupt
    the work      step, step, step ...              `interrupted` is true: it gives up between two steps, or comes to
                                                    its end

Without it an interruption is raised wherever the main thread is: as a rule right behind a kernel that took long, before
the index has noted what the kernel has done to its arrays.

Threads: in any other than the main thread no signal is raised, and the work runs where it is called.
"""

from __future__ import annotations

import contextlib
import contextvars
import threading
from collections.abc import Callable
from typing import Generic, TypeVar

T = TypeVar("T")

_LOOK_S = 0.1  # a signal may come just before the main thread begins to wait: then it is seen when this has passed


class _Work(threading.Thread, Generic[T]):
    def __init__(self, work: Callable[[], T]) -> None:
        super().__init__(name="vecdb-call")
        self.given_up = False
        self.ended = threading.Event()  # `join` that a signal has interrupted takes a thread for ended (CPython 3.11)
        self._error: BaseException | None = None
        self._answers: list[T] = []
        self._work = work
        self._context = contextvars.copy_context()

    def run(self) -> None:
        try:
            self._answers.append(self._context.run(self._work))
        except BaseException as error:
            self._error = error
        finally:
            del self._work, self._context
            self.ended.set()

    def wait(self) -> None:
        while not self.ended.wait(_LOOK_S):
            pass

    def take(self) -> T:
        """The answer, or the error; this object keeps neither."""
        if self._error is not None:
            try:
                raise self._error
            finally:
                self._error = None
        return self._answers.pop()


def interrupted() -> bool:
    """Whether the work that runs in this thread is to be given up: asked between its steps."""
    thread = threading.current_thread()
    return isinstance(thread, _Work) and thread.given_up


def undisturbed(work: Callable[[], T], undo: Callable[[T], object] = lambda answer: None) -> T:
    """work(), in a thread of its own where this is the main thread. Raises what it raises; KeyboardInterrupt, and what
    other handlers of signals raise, once the work has ended, or at once the second time.

    undo(answer) : called where the work came to its end and the answer is given to nobody.
    """
    if threading.current_thread() is not threading.main_thread():
        return work()
    thread = _Work(work)
    try:
        try:
            thread.start()
        except RuntimeError:  # the system gives this process no more threads
            return work()
        thread.wait()
        thread.join()  # for the moment until it is gone: who forks or counts threads now finds none
    except BaseException:
        thread.given_up = True
        thread.wait()
        with contextlib.suppress(Exception):
            undo(thread.take())
        raise
    return thread.take()
