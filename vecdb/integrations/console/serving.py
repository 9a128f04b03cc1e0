"""A console that is listened to at a port, until its process is told to end."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import threading
from collections.abc import Callable
from typing import Any

import uvicorn

from vecdb.integrations.console.app import application
from vecdb.integrations.console.context import Console
from vecdb.integrations.console.entries import Entry, OneToken, SignIn
from vecdb.integrations.console.guard import new_token
from vecdb.integrations.console.view import View

_HEAD_BYTES_MAX = 1 << 18  # of a request: the address of a search has a vector in it


def console_address(host: str, port: int, token: str | None = None) -> str:
    name = f"[{host}]" if ":" in host else host
    return f"http://{name}:{port}/" + ("" if token is None else f"?token={token}")


def serve_console(view: View, host: str, port: int, say: Callable[[str], None]) -> None:
    """Serve one view until the process is told to end. port 0 : a free one. say : is told the address, with the token
    in it.
    """
    token = new_token()
    entry = OneToken(Console(view), token)
    _serve(entry, host, port, lambda bound: say(console_address(host, bound, token)))


def serve_sign_in(entry: SignIn, host: str, port: int, say: Callable[[str], None]) -> None:
    """The same for whoever has a token of the server."""
    _serve(entry, host, port, lambda bound: say(console_address(host, bound)))


def end_with_stdin() -> None:
    """End this process, as SIGTERM does, once its standard input ends: whoever started it is gone then."""
    signal.pthread_sigmask(signal.SIG_UNBLOCK, (signal.SIGTERM, signal.SIGINT))  # a supervisor has blocked them

    def wait() -> None:
        while sys.stdin.buffer.read(1 << 10):
            pass
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=wait, name="vecdb-console-stdin", daemon=True).start()


def _serve(entry: Entry, host: str, port: int, bound_at: Callable[[int], None]) -> None:
    options: dict[str, Any] = {
        "http": "h11", "ws": "none", "log_level": "warning", "access_log": False, "server_header": False,
        "h11_max_incomplete_event_size": _HEAD_BYTES_MAX, "timeout_graceful_shutdown": 5, "lifespan": "off",
    }  # fmt: skip
    bound = uvicorn.Config(_nothing, host=host, port=port, **options).bind_socket()
    try:
        bound.listen()
        port = bound.getsockname()[1]
        config = uvicorn.Config(application(entry, host, f"console_{port}"), host=host, port=port, **options)
        bound_at(port)
        asyncio.run(uvicorn.Server(config).serve(sockets=[bound]))
    finally:
        entry.close()
        bound.close()


async def _nothing(scope: Any, receive: Any, send: Any) -> None:
    """Stands for the application until its port is known, after which its cookie is named."""
