"""Every call passes here: the token is checked, then the permission, the rate and the room; the outcome is counted.

    headers -> token -> permission -> rate -> (message is read) -> room -> service -> answer, or a status

A call that is refused by its headers is answered before its message is read. Handlers are made once for each rpc and
caller, so that a call costs two look-ups, a hash of its token and two counts. Calls of services that are not vecdb's
(reflection) pass the same checks, and gRPC finds their handlers.

Threads: event loop only.
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
from vecdb_server.logs import RefusalLog, log
from vecdb_server.metrics import Metrics
from vecdb_server.security.admission import Account, Admission
from vecdb_server.security.auth import ANONYMOUS, NEEDS, Caller, Need
from vecdb_server.security.tokens import Tokens
from vecdb_server.status_errors import Refused

Behaviour = Callable[[Any, Caller, Any], Any]
_unary_unary = grpc.unary_unary_rpc_method_handler
_ID = re.compile(r"[\x21-\x7e]{1,64}")


class CallerSession:
    """A caller with its admission account and the handlers made for it, one for each rpc."""

    __slots__ = ("account", "caller", "handlers")

    def __init__(self, caller: Caller, account: Account | None) -> None:
        self.caller = caller
        self.account = account
        self.handlers: dict[str, Any] = {}


class CallInterceptor(grpc.aio.ServerInterceptor):  # type: ignore[misc]
    """tokens : None where nobody needs one.   hidden : text that no error message may show."""

    def __init__(self, tokens: Tokens | None, admission: Admission, metrics: Metrics, hidden: str = "") -> None:
        self._tokens = tokens
        self._admission = admission
        self._metrics = metrics
        self._hidden = hidden
        self._refusals = RefusalLog()
        self._rpcs: dict[str, tuple[Any, Behaviour, Any, Any]] = {}  # path -> (descriptor, behaviour, parse, pack)
        self._sessions: dict[bytes, CallerSession] = {}
        self._version = 0  # of the tokens that the sessions were made for
        self._anonymous_session = CallerSession(ANONYMOUS, admission.account(ANONYMOUS))
        self._open_session = CallerSession(ANONYMOUS, None)  # for open rpcs: neither checked nor counted
        self._watches: set[asyncio.Task[Any]] = set()
        self._ending = False

    def add(self, service: Any, behaviours: Any) -> None:
        """Serve the rpcs of a service's descriptor. behaviours : has an async method for each rpc, of the same name,
        `(message or messages, Caller, context)`; one that streams answers writes them to the context. The rpcs in its
        `raw` take and return bytes and need not be async; `raw[name]` packs what they return.
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
        """End the streams of services that are not vecdb's: they would last until their callers end them."""
        self._ending = True
        for task in self._watches:
            task.cancel()

    # -- before the message is read ------------------------------------------------------------------

    async def intercept_service(self, continuation: Any, details: Any) -> Any:
        method = details.method
        try:
            need = NEEDS.get(method)
            checked = need is None or not need.open
            session = self._session(details.invocation_metadata) if checked else self._open_session
            handler = session.handlers.get(method)
            if need is None or (handler is None and not session.caller.may(need)):
                found = method in self._rpcs or await continuation(details) is not None
                raise self._denied(need, session.caller, method) if found else _unknown(method)
            if session.account is not None:
                self._admission.check(session.account)
            if handler is None:
                handler = await self._handler(session, method, continuation, details)
                session.handlers[method] = handler
            return handler
        except Refused as refused:
            return self._denial(method, refused)

    def _session(self, metadata: Any) -> CallerSession:
        if self._tokens is None:
            return self._anonymous_session
        header = next((value for key, value in metadata if key == "authorization"), "")
        kind, _, secret = header.partition(" ")
        if kind.lower() != "bearer":
            raise _unauthenticated("this server wants a token: send it as `authorization: Bearer TOKEN`")
        digest = hashlib.sha256(secret.encode()).digest()
        if self._version != self._tokens.version:
            self._sessions.clear()
            self._version = self._tokens.version
        session = self._sessions.get(digest)
        if session is None:
            caller = self._tokens.find(digest)
            if caller is None:
                raise _unauthenticated("the token is not known to this server")
            session = CallerSession(caller, self._admission.account(caller))
            self._sessions[digest] = session  # at most one for each token: unknown tokens are refused above
        if session.caller.expired():
            raise _unauthenticated("the token has expired", session.caller)
        return session

    def check_message(self, message: Any, caller: Caller) -> None:
        """Checks each message of a stream, which may outlive its token. Raises InvalidArgument, Refused."""
        _check_parsed(message)
        if caller.expired() or (self._tokens is not None and not self._tokens.holds(caller)):
            raise _unauthenticated("the token has expired or was revoked", caller)

    def _denied(self, need: Need | None, caller: Caller, method: str) -> Refused:
        wanted = "no permission covers" if need is None else f"{need.permission} permission is needed for"
        message = f"{wanted} {method}; this token may {caller.scope()}"
        return Refused(grpc.StatusCode.PERMISSION_DENIED, message, caller=caller.name)

    def _denial(self, method: str, refused: Refused) -> Any:
        """A handler that answers without reading the message."""
        code, message, trailing = status_errors.status_of(refused, "")
        known = method if method in self._rpcs else "unknown"
        self._metrics.refused(known, code.name)

        async def deny(messages: Any, context: Any) -> None:
            self._note(context, code, known, refused.caller, message)
            await context.abort(code, message, trailing)

        return grpc.stream_stream_rpc_method_handler(deny)

    def _note(self, context: Any, code: Any, method: str, caller: str, message: str) -> bool:
        """Log a call that was not authenticated, or was denied. Returns whether it was."""
        events = {grpc.StatusCode.UNAUTHENTICATED: "not authenticated", grpc.StatusCode.PERMISSION_DENIED: "denied"}
        if code not in events:
            return False
        self._refusals.add(events[code], context.peer(), rpc=method, caller=caller or None, reason=message)
        return True

    async def _handler(self, session: CallerSession, method: str, continuation: Any, details: Any) -> Any:
        if method not in self._rpcs:
            found = await continuation(details)
            if found is None:
                raise _unknown(method)
            return self._watched(found)
        descriptor, behaviour, parse, pack = self._rpcs[method]
        if descriptor.client_streaming:
            return grpc.stream_stream_rpc_method_handler(self._call(session, method, behaviour, False), parse, pack)
        make = grpc.unary_stream_rpc_method_handler if descriptor.server_streaming else _unary_unary
        return make(self._call(session, method, behaviour, True), parse, pack)

    def _watched(self, handler: Any) -> Any:
        """A streaming handler of a service that is not vecdb's; its calls end when the server drains."""
        if handler is None or not handler.response_streaming:
            return handler
        inner = handler.stream_stream or handler.unary_stream

        async def watch(request: Any, context: Any) -> None:
            task = asyncio.current_task()
            assert task is not None
            self._watches.add(task)
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
                task.uncancel()  # otherwise gRPC would leave the caller without an answer
                await context.abort(grpc.StatusCode.UNAVAILABLE, "the server is shutting down")
            finally:
                self._watches.discard(task)

        make = (
            grpc.stream_stream_rpc_method_handler if handler.request_streaming else grpc.unary_stream_rpc_method_handler
        )
        return make(watch, handler.request_deserializer, handler.response_serializer)

    # -- the call itself -----------------------------------------------------------------------------

    def _call(
        self, session: CallerSession, method: str, behaviour: Behaviour, unary: bool
    ) -> Callable[[Any, Any], Awaitable[Any]]:
        """The handler of one rpc for one caller. unary : it gets one message, not a stream."""
        admission, account, caller = self._admission, session.account, session.caller
        series = self._metrics.series(method)

        async def call(request: Any, context: Any) -> Any:
            started = time.perf_counter()
            code, size_bytes = "OK", 0
            try:
                if unary:
                    if isinstance(request, bytes):
                        size_bytes = len(request)
                    else:
                        _check_parsed(request)
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
                series.count(code, time.perf_counter() - started)

        return call

    async def _fail(self, context: Any, error: Exception, method: str, caller: Caller) -> str:
        """End the call with the error's status. Returns the name of its code."""
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
        elif not self._note(context, code, method, caller.name, message):
            log.debug("refused", rpc=method, caller=caller.name, request=request_id, code=code.name, message=message)
        with contextlib.suppress(Exception):  # AbortError, or the caller is gone
            await context.abort(code, message, trailing)
        return str(code.name)


class BrokenMessage:
    """Stands for bytes that are no message. If the parser raised, gRPC itself would answer, with the error's text."""


def _check_parsed(message: Any) -> None:
    """Raises InvalidArgument where the bytes that came were no message."""
    if isinstance(message, BrokenMessage):
        raise status_errors.not_a_message()


def _parser(message_class: Any) -> Callable[[bytes], Any]:
    parse = message_class.FromString

    def parsed(data: bytes) -> Any:
        try:
            return parse(data)
        except Exception:
            return BrokenMessage()

    return parsed


def _packed(answer: Any) -> bytes:
    found: bytes = answer if isinstance(answer, bytes) else answer.SerializeToString()
    return found


def _unauthenticated(message: str, caller: Caller | None = None) -> Refused:
    return Refused(grpc.StatusCode.UNAUTHENTICATED, message, caller="" if caller is None else caller.name)


def _unknown(method: str) -> Refused:
    return Refused(grpc.StatusCode.UNIMPLEMENTED, "there is no such rpc")
