"""An S3 in a process of its own, which requests reach over a network: run as a script, host and port as its words.

It answers one request at a time, so that of two who create an object one is told, and keeps connections open, as real
stores do: a request on one that was cut is lost without a word.
"""

from __future__ import annotations

import io
import subprocess
import sys
import threading
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import unquote
from wsgiref.util import setup_testing_defaults

BUCKET = "bucket"


@contextmanager
def s3_process(host: str) -> Iterator[dict[str, str]]:
    """What the environment of those who use it says. It has one bucket."""
    words = [sys.executable, str(Path(__file__)), host]
    with subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as process:
        try:
            assert process.stdout is not None
            url = f"http://{host}:{int(process.stdout.readline())}"
            urllib.request.urlopen(urllib.request.Request(f"{url}/{BUCKET}", method="PUT")).close()
            yield {
                "AWS_ENDPOINT": url,
                "AWS_ALLOW_HTTP": "true",
                "AWS_ACCESS_KEY_ID": "somebody",
                "AWS_SECRET_ACCESS_KEY": "very-secret-key",
                "AWS_REGION": "us-east-1",
            }
        finally:
            process.kill()


class _Handler(BaseHTTPRequestHandler):
    """A request for a WSGI application. werkzeug's own server would close the connection after it."""

    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    application: Any = None
    turn = threading.Lock()

    def do_GET(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))  # before its turn: it may never come
        environ: dict[str, Any] = {"wsgi.url_scheme": "http", "wsgi.errors": io.StringIO(), "wsgi.version": (1, 0)}
        setup_testing_defaults(environ)
        path, _, query = self.path.partition("?")
        environ |= {
            "REQUEST_METHOD": self.command,
            "PATH_INFO": unquote(path),
            "RAW_URI": self.path,
            "QUERY_STRING": query,
            "wsgi.input": io.BytesIO(body),
            "CONTENT_LENGTH": str(len(body)),
            "CONTENT_TYPE": self.headers.get("Content-Type", ""),
        }
        environ |= {f"HTTP_{name.upper().replace('-', '_')}": value for name, value in self.headers.items()}
        said: list[Any] = []
        with self.turn:
            answer = b"".join(self.application(environ, lambda *words: said.extend(words)))
        self.send_response_only(int(said[0].split()[0]))
        for name, value in said[1]:
            if name.lower() not in ("connection", "transfer-encoding"):
                self.send_header(name, value)
        if not any(name.lower() == "content-length" for name, _ in said[1]):
            self.send_header("Content-Length", str(len(answer)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(answer)

    do_PUT = do_POST = do_DELETE = do_HEAD = do_GET

    def log_message(self, *_: Any) -> None:
        pass


class _Server(ThreadingHTTPServer):
    def handle_error(self, *_: Any) -> None:
        """Connections break here all the time."""


def main() -> None:
    from moto.moto_server.werkzeug_app import DomainDispatcherApplication, create_backend_app

    _Handler.application = DomainDispatcherApplication(create_backend_app)
    server = _Server((sys.argv[1], 0), _Handler)
    print(server.server_port, flush=True)
    server.serve_forever()


if __name__ == "__main__":
    main()
