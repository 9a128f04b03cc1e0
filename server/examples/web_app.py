"""A web application that searches a database which another process writes: an ASGI application without a framework.

    VECDB_PATH=./data uvicorn web_app:app --workers 4
    VECDB_PATH=./data gunicorn web_app:app --workers 4 --worker-class uvicorn.workers.UvicornWorker

    GET /count                      {"count": 3, "pid": 4711}
    POST /search [0.1, 0.2, ...]    {"ids": [...], "distances": [...]}

Each process opens the directory when it begins (lifespan), so after it was forked or spawned, and only to read: each
call sees the newest commit of whoever writes. Where the application itself is to write, let `vecdb serve` own the
directory, and open grpc://... here instead, without read_only.
"""

from __future__ import annotations

import json
import os
from typing import Any

import vecdb.aio

_COLLECTION = os.environ.get("VECDB_COLLECTION", "docs")
_state: dict[str, Any] = {}


async def app(scope: Any, receive: Any, send: Any) -> None:
    if scope["type"] == "lifespan":
        await _live(receive, send)
    elif scope["type"] == "http":
        status, answer = await _answer(scope["method"], scope["path"], receive)
        headers = [(b"content-type", b"application/json")]
        await send({"type": "http.response.start", "status": status, "headers": headers})
        await send({"type": "http.response.body", "body": json.dumps(answer).encode()})


async def _live(receive: Any, send: Any) -> None:
    while True:
        message = await receive()
        if message["type"] == "lifespan.startup":
            _state["db"] = await vecdb.aio.open(os.environ["VECDB_PATH"], read_only=True)
            _state["docs"] = await _state["db"].collection(_COLLECTION)
            await send({"type": "lifespan.startup.complete"})
        else:
            await _state["db"].close()
            await send({"type": "lifespan.shutdown.complete"})
            return


async def _answer(method: str, path: str, receive: Any) -> tuple[int, Any]:
    docs = _state["docs"]
    try:
        if (method, path) == ("GET", "/count"):
            return 200, {"count": await docs.count(), "pid": os.getpid()}
        if (method, path) == ("POST", "/search"):
            hits = await docs.search(json.loads(await _body(receive)), limit=10)
            return 200, {"ids": hits.ids.tolist(), "distances": hits.distances.tolist()}
    except (vecdb.InvalidArgument, ValueError) as error:
        return 400, {"error": str(error)}
    return 404, {"error": "there are GET /count and POST /search"}


async def _body(receive: Any) -> bytes:
    body, more = b"", True
    while more:
        message = await receive()
        body, more = body + message.get("body", b""), message.get("more_body", False)
    return body
