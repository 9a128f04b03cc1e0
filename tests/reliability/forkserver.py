"""The fork server's own process: loads everything, warms every kernel, then forks a worker for each line it is sent.

    {"fork": name, "arguments": {...}, "gate": fifo, "log": file} -> {"pid": ...}
    {"wait": pid, "seconds_max": s}                              -> {"status": code, or minus the signal}

Single-threaded at every fork: what is opened to warm kernels is closed again.
"""

from __future__ import annotations

import faulthandler
import gc
import json
import os
import select
import signal
import sys
import threading
import traceback
from typing import Any

from tests.reliability import damage, faulty
from tests.reliability.forked import creation, full_disk, interrupts, lifecycle, limited, lists, processes, records

MODULES = (records, lists, lifecycle, processes, creation, full_disk, interrupts, limited, faulty, damage)


def find(name: str) -> Any:
    return next(getattr(module, name) for module in MODULES if hasattr(module, name))


def _child(request: dict[str, Any], replies: int) -> None:
    code = 1
    try:
        os.close(replies)
        null = os.open(os.devnull, os.O_RDONLY)
        os.dup2(null, 0)
        log = os.open(request["log"], os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
        os.dup2(log, 1)
        os.dup2(log, 2)
        faulthandler.enable()
        with open(request["gate"], "rb") as gate:
            if gate.read(1) != b"g":
                os._exit(3)
        arguments = dict(request["arguments"])
        result = arguments.pop("result", None)
        value = find(request["fork"])(**arguments)
        if result is not None:
            with open(result + ".tmp", "w") as file:
                json.dump(value, file)
            os.rename(result + ".tmp", result)
        code = 0
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def _wait(pid: int, seconds_max: float) -> int:
    handle = os.pidfd_open(pid)
    try:
        if not select.select([handle], [], [], seconds_max)[0]:
            os.kill(pid, signal.SIGABRT)  # faulthandler says where it hung
            os.waitpid(pid, 0)
            return -999
    finally:
        os.close(handle)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def main() -> None:
    replies = os.dup(1)
    os.dup2(2, 1)
    records.warm()
    gc.collect()
    for thread in threading.enumerate():  # of pools that were shut down just now: they end by themselves
        if thread is not threading.current_thread():
            thread.join(30)
    assert threading.active_count() == 1, threading.enumerate()

    def reply(**what: Any) -> None:
        os.write(replies, json.dumps(what).encode() + b"\n")

    reply(ready=True)
    for line in sys.stdin:
        request = json.loads(line)
        if "wait" in request:
            reply(status=_wait(request["wait"], request["seconds_max"]))
            continue
        pid = os.fork()
        if pid == 0:
            _child(request, replies)
        reply(pid=pid)


if __name__ == "__main__":
    main()
