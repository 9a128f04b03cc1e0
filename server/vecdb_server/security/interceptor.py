"""Every call passes here: the token is checked, then the permission, the rate and the room; the outcome is counted.

    headers -> token -> permission -> rate -> (message is read) -> size -> room -> service -> answer, or a status

An answer that comes late, or is one of several, waits for another look at the token, which may have been revoked
meanwhile.

A call that is refused by its headers is answered before its message is read. Handlers are made once for each rpc and
caller, so that a call costs two look-ups, a hash of its token and two counts. Calls of services that are not vecdb's
(reflection) pass the same checks, and gRPC finds their handlers.

Threads: event loop only.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import hmac
import re
import secrets
import time
from collections.abc import Awaitable, Callable, Iterable
from typing import Any

import grpc
from grpc_reflection.v1alpha import reflection_pb2

from vecdb import Unavailable
from vecdb_server import status_errors
from vecdb_server.config import Config
from vecdb_server.logs import RefusalLog, log
from vecdb_server.metrics import Metrics
from vecdb_server.security.admission import Account, Admission
from vecdb_server.security.auth import ANONYMOUS, NEEDS, Caller, Need
from vecdb_server.security.bounds import MessageCheck, raise_fault
from vecdb_server.security.open_calls import unread
from vecdb_server.security.slow_messages import SlowMessages
from vecdb_server.security.tokens import Tokens
from vecdb_server.status_errors import Refused

Behaviour = Callable[[Any, Caller, Any], Any]
_REFLECTION = reflection_pb2.ServerReflectionRequest.DESCRIPTOR
_unary_unary = grpc.unary_unary_rpc_method_handler
SECRET, PEER = "vecdb-secret", "vecdb-peer"  # what a process of the server says to another
_LATE_S = 0.5  # a call that took longer is answered only if its token still counts
_ID = re.compile(r"[\x21-\x7e]{1,64}")


class CallerSession:
    """A caller with its admission account and the handlers made for it, one for each rpc."""

    __slots__ = ("account", "caller", "handlers")

    def __init__(self, caller: Caller, account: Account | None) -> None:
        self.caller = caller
        self.account = account
        self.handlers: dict[str, Any] = {}


class CallInterceptor(grpc.aio.ServerInterceptor):  # type: ignore[misc]
    """tokens : None where nobody needs one.   hidden : text that no error message may show.   secret : of the other
    processes of this server, where they alone call: they have counted their calls already.
    """

    def __init__(
        self, config: Config, tokens: Tokens | None, admission: Admission, metrics: Metrics, hidden: str = "",
        secret: str | None = None,
    ) -> None:  # fmt: skip
        self._secret = secret
        self._config = config
        self._tokens = tokens
        self._admission = admission
        self._metrics = metrics
        self._hidden = hidden
        self._refusals = RefusalLog()
        self._rpcs: dict[str, tuple[Any, Behaviour, MessageCheck, bool, Any]] = {}  # by path; see `add`
        self._open_handlers: dict[tuple[str, bool], Any] = {}  # by path, and whether messages are read
        self.slow_messages = SlowMessages(admission, config.message_s)
        self._sessions: dict[bytes, CallerSession] = {}
        self._version = 0  # of the tokens that the sessions were made for
        self._anonymous_session = CallerSession(ANONYMOUS, admission.account(ANONYMOUS))
        self._open_session = CallerSession(ANONYMOUS, None)  # for open rpcs: nobody is refused
        self._watches: set[asyncio.Task[Any]] = set()
        self._ending = False

    def add(self, service: Any, behaviours: Any) -> None:
        """Serve the rpcs of a service's descriptor. behaviours : has an async method for each rpc, of the same name,
        `(message or messages, Caller, context)`; one that streams answers writes them to the context. The rpcs in its
        `raw` take and return bytes and need not be async; `raw[name]` packs what they return. Raises KeyError for an
        rpc without a row in BOUNDS.
        """
        raw = getattr(behaviours, "raw", {})
        for method in service.methods:
            name = method.name
            path = f"/{service.full_name}/{name}"
            check = MessageCheck(path, method.input_type, self._config)
            self._rpcs[path] = method, getattr(behaviours, name), check, name in raw, raw.get(name, _packed)

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
            if need is not None and need.open:
                return self._open_handler(method, details.invocation_metadata)
            if self._secret is not None:
                _check_secret(self._secret, details.invocation_metadata)
            session = self._session(details.invocation_metadata)
            handler = session.handlers.get(method)
            if need is None or (handler is None and not session.caller.may(need)):
                found = method in self._rpcs or await continuation(details) is not None
                raise self._denied(need, session.caller, method) if found else _unknown(method)
            if self._secret is None and session.account is not None:
                rpc = self._rpcs.get(method)
                self._admission.check(session.account, room=rpc is None or not rpc[0].client_streaming)
            if handler is None:
                handler = await self._handler(session, method, continuation, details)
                session.handlers[method] = handler
            if session.account is not None and handler.request_streaming is False:
                self.slow_messages.began(session.account)
            return handler
        except Refused as refused:
            return self._denial(method, refused)

    def _open_handler(self, method: str, metadata: Any) -> Any:
        """The handler of an rpc that is open to all. Raises Refused where this server has no such rpc."""
        if method not in self._rpcs:
            raise _unknown(method)
        try:
            account = self._session(metadata).account
        except Refused:
            account = None
        found = self._open_handlers.get((method, account is not None))
        if found is None:
            descriptor, behaviour, check, _, pack = self._rpcs[method]
            call = self._call(self._open_session, method, behaviour, descriptor)
            if account is None:
                found = unread(check.parse(b""), call, pack)
            else:
                make = grpc.unary_stream_rpc_method_handler if descriptor.server_streaming else _unary_unary
                found = make(call, check.parse, pack)
            self._open_handlers[method, account is not None] = found
        if account is not None:
            self.slow_messages.began(account)
        return found

    def _session(self, metadata: Any) -> CallerSession:
        if self._tokens is None:
            return self._anonymous_session
        self._tokens.look()
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
        raise_fault(message)
        self.check_caller(caller)

    def check_caller(self, caller: Caller) -> None:
        """Checks that the token of a call that goes on still counts. Raises Refused."""
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
        self._refusals.add(
            events[code], peer_of(context, self._secret), rpc=method, caller=caller or None, reason=message
        )
        return True

    async def _handler(self, session: CallerSession, method: str, continuation: Any, details: Any) -> Any:
        if method not in self._rpcs:
            found = await continuation(details)
            if found is None:
                raise _unknown(method)
            return self._watched(found, session.account, MessageCheck(method, _REFLECTION, self._config))
        descriptor, behaviour, check, raw, pack = self._rpcs[method]
        parse = check.raw if raw else check.parse
        if descriptor.client_streaming:
            make = grpc.stream_stream_rpc_method_handler
        else:
            make = grpc.unary_stream_rpc_method_handler if descriptor.server_streaming else _unary_unary
        return make(self._call(session, method, behaviour, descriptor), parse, pack)

    def _watched(self, handler: Any, account: Account | None, check: MessageCheck) -> Any:
        """A streaming handler of a service that is not vecdb's; its calls end when the server drains. A request over
        its bounds is taken for an empty one.
        """
        if handler is None or not handler.response_streaming:
            return handler
        inner = handler.stream_stream or handler.unary_stream
        parse, empty = handler.request_deserializer, handler.request_deserializer(b"")

        async def watch(request: Any, context: Any) -> None:
            task = asyncio.current_task()
            assert task is not None
            if account is not None:
                await self._open_stream(account, context)
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
        return make(watch, lambda data: empty if check.fault(data) else parse(data), handler.response_serializer)

    async def _open_stream(self, account: Account, context: Any) -> None:
        """Counts a stream until it has ended for its caller, too."""
        try:
            self._admission.open_stream(account)
        except Refused as refused:
            code, message, trailing = status_errors.status_of(refused, "")
            await context.abort(code, message, trailing)
        context.add_done_callback(lambda _: self._admission.close_stream(account))

    # -- the call itself -----------------------------------------------------------------------------

    def _call(
        self, session: CallerSession, method: str, behaviour: Behaviour, rpc: Any
    ) -> Callable[[Any, Any], Awaitable[Any]]:
        """The handler of one rpc for one caller. rpc : its descriptor."""
        admission, account, caller, slow = self._admission, session.account, session.caller, self.slow_messages
        series = self._metrics.series(method)
        unary, streams = not rpc.client_streaming, rpc.client_streaming or rpc.server_streaming
        counted = account is not None and self._secret is None

        async def call(request: Any, context: Any) -> Any:
            started = time.perf_counter()
            code = "OK"
            seat: Seat | None = None
            try:
                if counted:
                    assert account is not None
                    if streams:
                        admission.open_stream(account)
                        context.add_done_callback(lambda _: admission.close_stream(account))
                    if unary:  # each message of a stream has a seat of its own: ServerContext.serve_stream
                        slow.ended()
                        seat = Seat(admission, account, size_of(request))
                        context.add_done_callback(seat.leave)
                elif unary:
                    slow.ended()
                    raise_fault(request)
                answer = behaviour(request, caller, context)
                if not isinstance(answer, bytes):
                    answer = await answer
                if account is not None and time.perf_counter() - started > _LATE_S:
                    self.check_caller(caller)
                return answer
            except asyncio.CancelledError:
                code = "CANCELLED"
                raise
            except Exception as error:
                if seat is not None:
                    seat.leave()  # the status waits until the caller reads it
                code = await self._fail(context, error, method, caller)
            finally:
                series.count(code, time.perf_counter() - started)

        return call

    async def _fail(self, context: Any, error: Exception, method: str, caller: Caller) -> str:
        """End the call with the error's status. Returns the name of its code."""
        if isinstance(error, grpc.aio.AbortError):
            raise error
        if isinstance(error, (grpc.aio.InternalError, grpc.aio.UsageError)):
            return "CANCELLED"  # the caller went away while an answer was sent: nothing to tell, and nothing to log
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


def peer_of(context: Any, secret: str | None) -> str:
    """Who calls. Of a call that another process of this server hands on, who called that one: it says so, with the
    secret. Nobody else is believed.
    """
    metadata = context.invocation_metadata()
    if secret is None or not _has(secret, metadata):
        return str(context.peer())
    return next((str(value) for key, value in metadata if key == PEER), str(context.peer()))


def _has(secret: str, metadata: Any) -> bool:
    sent = next((value for key, value in metadata if key == SECRET), "")
    return hmac.compare_digest(str(sent).encode(), secret.encode())


def _check_secret(secret: str, metadata: Any) -> None:
    if not _has(secret, metadata):
        raise _unauthenticated("this socket is for the other processes of the server: call its port")


class Seat:
    """A call's place among those in work, until it leaves."""

    __slots__ = ("_account", "_admission", "_size_bytes", "_taken")

    def __init__(self, admission: Admission, account: Account, size_bytes: int) -> None:
        """Raises Refused where there is none."""
        admission.enter(account, size_bytes)
        self._admission, self._account, self._size_bytes, self._taken = admission, account, size_bytes, True

    def leave(self, _: Any = None) -> None:
        if self._taken:
            self._taken = False
            self._admission.leave(self._account, self._size_bytes)


def size_of(message: Any) -> int:
    """The bytes of a message. Raises InvalidArgument or LimitExceeded where it is none."""
    if isinstance(message, bytes):
        return len(message)
    raise_fault(message)
    return int(message.ByteSize())


def _packed(answer: Any) -> bytes:
    found: bytes = answer if isinstance(answer, bytes) else answer.SerializeToString()
    return found


def _unauthenticated(message: str, caller: Caller | None = None) -> Refused:
    return Refused(grpc.StatusCode.UNAUTHENTICATED, message, caller="" if caller is None else caller.name)


def _unknown(method: str) -> Refused:
    return Refused(grpc.StatusCode.UNIMPLEMENTED, "there is no such rpc")
