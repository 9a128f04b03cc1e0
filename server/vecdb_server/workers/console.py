"""`vecdb console` beside a server: a process of its own, which calls the server as any client does.

    the server listens -> the console is started -> it ends with its standard input, however the server ends

Tokens are those of the server: where it has some, each browser signs in with one and sees what that reaches.
"""

from __future__ import annotations

import importlib.util
import subprocess
import sys

from vecdb import Unavailable
from vecdb.wire.addresses import UNIX, is_local
from vecdb_server.config import Config, host_and_port
from vecdb_server.logs import log

_NEEDED = ("starlette", "uvicorn", "jinja2")
_COMMAND = "from vecdb.cli import main; main()"
_END_S = 10.0


class ConsoleProcess:
    """The console of one server; none where its settings ask for none. It is not started anew when it ends."""

    def __init__(self, config: Config) -> None:
        """Raises Unavailable where a library is missing."""
        self._config = config
        self._process: subprocess.Popen[bytes] | None = None
        missing = [name for name in _NEEDED if importlib.util.find_spec(name) is None]
        if config.console is not None and missing:
            raise Unavailable(f"the console needs {missing[0]}: pip install 'vecdb-engine[console]'")

    def start(self, listening: str) -> None:
        """listening : host:port of the server, the port that it has, or unix:/path."""
        config = self._config
        if config.console is None:
            return
        host, port = host_and_port(config.console, "console")
        command = [sys.executable, "-c", _COMMAND, "console", _reached(listening), "--host", host]
        command += ["--port", str(port), "--until-stdin-ends"]
        command += ["--sign-in"] * (config.tokens is not None) + ["--write"] * config.console_write
        command += ["--insecure"] * (not is_local(host))
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE)
        log.info("console started", console=config.console, pid=self._process.pid)

    def end(self) -> None:
        """Tell it to end, and wait."""
        if self._process is None:
            return
        assert self._process.stdin is not None
        self._process.stdin.close()
        try:
            self._process.wait(_END_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()


def _reached(listening: str) -> str:
    """The URL of a server of this machine that listens there."""
    if listening.startswith(UNIX):
        return listening
    host, port = host_and_port(listening, "listen")
    host = host if is_local(host) else "localhost"
    return f"grpc://[{host}]:{port}" if ":" in host else f"grpc://{host}:{port}"
