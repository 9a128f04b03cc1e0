"""Signals while gRPC works for the main thread.

    stream begins -> handlers of signals are ours -> each step of gRPC: a signal's handler runs at once, and what it
                     raises (KeyboardInterrupt, as a rule) waits for the end of the step, which another thread brings
                     about by cancelling the call
    stream ends   -> handlers are those that were there

Python runs handlers wherever the main thread is. Within gRPC that is, as often as not, before a lock of the channel is
given back: then every call of the channel waits for ever (seen in one of sixty streams that Ctrl-C ended).

A single call has no handle to cancel it by, unless it costs a tenth more: there the channel is replaced afterwards.
"""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable
from types import FrameType
from typing import Any, Self

_SIGNALS = [getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGALRM") if hasattr(signal, name)]


def on_main_thread() -> bool:
    return threading.current_thread() is threading.main_thread()


class _Handlers:
    """Ours, as long as a stream lasts. All of it runs on the main thread, so that no lock is needed."""

    def __init__(self) -> None:
        self._streams = 0
        self._before: dict[int, Any] = {}
        self._cancel: Callable[[], object] | None = None  # of the step that gRPC works on
        self._raised: BaseException | None = None

    def begin(self) -> None:
        self._streams += 1
        for one in _SIGNALS:
            handler = signal.getsignal(one)
            if callable(handler) and handler != self._handle:  # as where somebody has put one there meanwhile
                self._before[one] = handler
                signal.signal(one, self._handle)

    def end(self) -> None:
        self._streams -= 1
        if self._streams == 0:
            for one, handler in self._before.items():
                if signal.getsignal(one) == self._handle:  # nobody has put another there meanwhile
                    signal.signal(one, handler)

    def _handle(self, number: int, frame: FrameType | None) -> None:
        try:
            self._before[number](number, frame)
        except BaseException as raised:
            if self._cancel is None:
                raise
            if self._raised is None:
                self._raised = raised
                _in_a_thread(self._cancel)

    def step(self, cancel: Callable[[], object], work: Callable[[], Any]) -> Any:
        """work(). Raises what handlers raised meanwhile, once it has ended."""
        self._cancel = cancel
        try:
            return work()
        finally:
            self._cancel = None
            if self._raised is not None:
                raised, self._raised = self._raised, None
                raise raised


_handlers = _Handlers()


class SteppedCall:
    """A call of gRPC with any number of answers, as a context, which it is cancelled at the end of, and an iterator."""

    def __init__(self, start: Callable[[], Any]) -> None:
        """start() : begins the call."""
        self._start = start
        self._call: Any = None
        self._handled = False  # handlers are ours

    def __enter__(self) -> Self:
        if on_main_thread():
            _handlers.begin()
            self._handled = True
        try:
            self._step(lambda: None, self._begin)
        except BaseException:
            if self._call is not None:
                _in_a_thread(self._call.cancel)
            self._give_back()
            raise
        return self

    def _begin(self) -> None:
        self._call = self._start()

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> Any:
        return self._step(self._call.cancel, self._call.__next__)

    def __exit__(self, *error: object) -> None:
        try:
            self._step(lambda: None, self._call.cancel)
        finally:
            self._give_back()

    def _step(self, cancel: Callable[[], object], work: Callable[[], Any]) -> Any:
        return _handlers.step(cancel, work) if self._handled and on_main_thread() else work()

    def _give_back(self) -> None:
        if self._handled and on_main_thread():
            _handlers.end()
            self._handled = False


def _in_a_thread(cancel: Callable[[], object]) -> None:
    threading.Thread(target=cancel, name="vecdb-cancel", daemon=True).start()
