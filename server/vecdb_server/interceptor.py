"""Every call of every listener passes here: who is asking, may they, is there room, and what became of it.

    headers -> token -> permission -> rate -> (message is read) -> room -> service -> answer, or a status

A call that is refused by its headers is answered before its message is read. Handlers are made once for each rpc and
caller; a call costs two look-ups, a hash of its token and two counts. Services of others (reflection) are
found as gRPC finds them, and pass the same checks.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import re
import secrets
import time
from collections.abc import Awaitable, Callable, Iterable
from typing import Any

import grpc
from google.protobuf import message_factory

from vecdb import Unavailable
from vecdb_server import status_errors
from vecdb_server.admission import Account, Admission
from vecdb_server.auth import ANONYMOUS, NEEDS, Caller, Need
from vecdb_server.logs import log
from vecdb_server.metrics import Metrics
from vecdb_server.status_errors import Refused
from vecdb_server.tokens import Tokens

Behaviour = Callable[[Any, Caller, Any], Any]
_unary_unary = grpc.unary_unary_rpc_method_handler
_ID = re.compile(r"[\x21-\x7e]{1,64}")


class Visitor:
    """A caller at the door: what it holds, and the handlers made for it."""

    __slots__ = ("account", "caller", "handlers")

    def __init__(self, caller: Caller, account: Account | None) -> None:
        self.caller = caller
        self.account = account
        self.handlers: dict[str, Any] = {}


class Guard(grpc.aio.ServerInterceptor):  # type: ignore[misc]
    """tokens : None where nobody needs one.   hidden : text that no error shows."""

    def __init__(self, tokens: Tokens | None, admission: Admission, metrics: Metrics, hidden: str = "") -> None:
        self._tokens = tokens
        self._admission = admission
        self._metrics = metrics
        self._hidden = hidden
        self._rpcs: dict[str, tuple[Any, Behaviour, Any, Any]] = {}  # and what reads and writes its messages
        self._visitors: dict[bytes, Visitor] = {}
        self._version = 0  # of the tokens that they hold
        self._anonymous = Visitor(ANONYMOUS, admission.account(ANONYMOUS))
        self._anybody = Visitor(ANONYMOUS, None)  # of rpcs that are open: neither asked nor counted
        self._watching: set[asyncio.Task[Any]] = set()
        self._ending = False

    def add(self, service: Any, behaviours: Any) -> None:
        """Serve the rpcs of a service's descriptor: one method of that name each,
        `(message or messages, Caller, context)`, async; those that stream answers write them to the context.
        Those that are `raw` get and give bytes, and need not be async; what it holds for each packs what it gives.
        """
        raw = getattr(behaviours, "raw", {})
        for method in service.methods:
            name = method.name
            parse = None if name in raw else _parser(message_factory.GetMessageClass(method.input_type))
            rpc = method, getattr(behaviours, name), parse, raw.get(name, _packed)
            self._rpcs[f"/{service.full_name}/{name}"] = rpc

    @property
    def rpcs(self) -> Iterable[str]:
        return self._rpcs

    def end_watches(self) -> None:
        """Streams of services of others: they would last as long as their callers."""
        self._ending = True
        for task in self._watching:
            task.cancel()

    # -- at the door ---------------------------------------------------------------------------------

    async def intercept_service(self, continuation: Any, details: Any) -> Any:
        method = details.method
        try:
            need = NEEDS.get(method)
            asked = need is None or not need.open
            visitor = self._visitor(details.invocation_metadata) if asked else self._anybody
            handler = visitor.handlers.get(method)
            if need is None or (handler is None and not visitor.caller.may(need)):
                found = method in self._rpcs or await continuation(details) is not None
                raise self._denied(need, visitor.caller, method) if found else _unknown(method)
            if visitor.account is not None:
                self._admission.check(visitor.account)
            if handler is None:
                handler = await self._handler(visitor, method, continuation, details)
                visitor.handlers[method] = handler
            return handler
        except Refused as refused:
            return self._denial(method, refused)

    def _visitor(self, metadata: Any) -> Visitor:
        if self._tokens is None:
            return self._anonymous
        header = next((value for key, value in metadata if key == "authorization"), "")
        kind, _, secret = header.partition(" ")
        if kind.lower() != "bearer":
            raise _unauthenticated("this server wants a token: send it as `authorization: Bearer TOKEN`")
        digest = hashlib.sha256(secret.encode()).digest()
        if self._version != self._tokens.version:
            self._visitors.clear()
            self._version = self._tokens.version
        visitor = self._visitors.get(digest)
        if visitor is None:
            caller = self._tokens.find(digest)
            if caller is None:
                raise _unauthenticated("the token is not known to this server")
            visitor = Visitor(caller, self._admission.account(caller))
            self._visitors[digest] = visitor  # as many as there are tokens: unknown ones never come here
        if visitor.caller.expired():
            raise _unauthenticated("the token has expired")
        return visitor

    def check_message(self, message: Any, caller: Caller) -> None:
        """Each one of a stream, which may outlive its token. Raises InvalidArgument, Refused."""
        _check_whole(message)
        if caller.expired() or (self._tokens is not None and not self._tokens.holds(caller)):
            raise _unauthenticated("the token has expired or was revoked")

    def _denied(self, need: Need | None, caller: Caller, method: str) -> Refused:
        log.warning("denied", rpc=method, caller=caller.name)
        wanted = "no permission covers" if need is None else f"{need.permission} permission is needed for"
        return Refused(grpc.StatusCode.PERMISSION_DENIED, f"{wanted} {method}; this token may {caller.scope()}")

    def _denial(self, method: str, refused: Refused) -> Any:
        """A handler that answers without reading the message."""
        code, message, trailing = status_errors.status_of(refused, "")
        self._metrics.refused(method if method in self._rpcs else "unknown", code.name)

        async def deny(messages: Any, context: Any) -> None:
            await context.abort(code, message, trailing)

        return grpc.stream_stream_rpc_method_handler(deny)

    async def _handler(self, visitor: Visitor, method: str, continuation: Any, details: Any) -> Any:
        if method not in self._rpcs:
            found = await continuation(details)
            if found is None:
                raise _unknown(method)
            return self._watched(found)
        descriptor, behaviour, parse, pack = self._rpcs[method]
        if descriptor.client_streaming:
            return grpc.stream_stream_rpc_method_handler(self._call(visitor, method, behaviour, False), parse, pack)
        make = grpc.unary_stream_rpc_method_handler if descriptor.server_streaming else _unary_unary
        return make(self._call(visitor, method, behaviour, True), parse, pack)

    def _watched(self, handler: Any) -> Any:
        """A streaming handler of others whose calls end when the server drains."""
        if handler is None or not handler.response_streaming:
            return handler
        inner = handler.stream_stream or handler.unary_stream

        async def watch(request: Any, context: Any) -> None:
            task = asyncio.current_task()
            assert task is not None
            self._watching.add(task)
            try:
                answers = inner(request, context)
                if hasattr(answers, "__aiter__"):
                    async for answer in answers:
                        await context.write(answer)
                else:
                    await answers
            except asyncio.CancelledError:
                if not self._ending:
                    raise
                task.uncancel()  # gRPC would leave the caller without an answer
                await context.abort(grpc.StatusCode.UNAVAILABLE, "the server is shutting down")
            finally:
                self._watching.discard(task)

        make = (
            grpc.stream_stream_rpc_method_handler if handler.request_streaming else grpc.unary_stream_rpc_method_handler
        )
        return make(watch, handler.request_deserializer, handler.response_serializer)

    # -- inside --------------------------------------------------------------------------------------

    def _call(
        self, visitor: Visitor, method: str, behaviour: Behaviour, unary: bool
    ) -> Callable[[Any, Any], Awaitable[Any]]:
        """What gRPC calls for each call of one rpc by one caller. unary : it gets one message, else a stream."""
        admission, account, caller = self._admission, visitor.account, visitor.caller
        counted = self._metrics.series(method)

        async def call(request: Any, context: Any) -> Any:
            started = time.perf_counter()
            code, size_bytes = "OK", 0
            try:
                if unary:
                    if isinstance(request, bytes):
                        size_bytes = len(request)
                    else:
                        _check_whole(request)
                        size_bytes = request.ByteSize()
                if account is not None:
                    admission.enter(account, size_bytes)
                    context.add_done_callback(lambda _: admission.leave(account, size_bytes))
                answer = behaviour(request, caller, context)
                return answer if isinstance(answer, bytes) else await answer
            except asyncio.CancelledError:
                code = "CANCELLED"
                raise
            except Exception as error:
                code = await self._fail(context, error, method, caller)
            finally:
                counted.count(code, time.perf_counter() - started)

        return call

    async def _fail(self, context: Any, error: Exception, method: str, caller: Caller) -> str:
        """Ends the call with the error's status. Returns the name of its code."""
        if isinstance(error, grpc.aio.AbortError):
            raise error
        left_s = context.time_remaining()
        if isinstance(error, Unavailable) and left_s is not None and left_s <= 0:
            error = Refused(grpc.StatusCode.DEADLINE_EXCEEDED, str(error))
        sent = next((str(v) for k, v in context.invocation_metadata() if k == "x-request-id"), "")
        request_id = sent if _ID.fullmatch(sent) else secrets.token_hex(8)
        code, message, trailing = status_errors.status_of(error, request_id, self._hidden)
        if code in (grpc.StatusCode.INTERNAL, grpc.StatusCode.DATA_LOSS):
            log.error("failed", rpc=method, caller=caller.name, request=request_id, exc_info=error)
        else:
            log.debug("refused", rpc=method, caller=caller.name, request=request_id, code=code.name, message=message)
        with contextlib.suppress(Exception):  # AbortError; or the caller is gone
            await context.abort(code, message, trailing)
        return str(code.name)


class Broken:
    """Stands for bytes that are no message: gRPC would answer a parser's exception by itself, with its text."""


def _check_whole(message: Any) -> None:
    """Raises InvalidArgument where what came was no message."""
    if isinstance(message, Broken):
        raise status_errors.no_message()


def _parser(message_class: Any) -> Callable[[bytes], Any]:
    parse = message_class.FromString

    def parsed(data: bytes) -> Any:
        try:
            return parse(data)
        except Exception:
            return Broken()

    return parsed


def _packed(answer: Any) -> bytes:
    found: bytes = answer if isinstance(answer, bytes) else answer.SerializeToString()
    return found


def _unauthenticated(message: str) -> Refused:
    return Refused(grpc.StatusCode.UNAUTHENTICATED, message)


def _unknown(method: str) -> Refused:
    return Refused(grpc.StatusCode.UNIMPLEMENTED, "there is no such rpc")
