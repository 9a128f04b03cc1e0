"""An error as a gRPC status: code, message, google.rpc.Status with ErrorInfo, RetryInfo where waiting helps."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import grpc
from google.protobuf import any_pb2, duration_pb2
from google.protobuf.message import DecodeError
from google.rpc import error_details_pb2, status_pb2

from vecdb import InvalidArgument, VecdbError
from vecdb.wire.error_codes import DOMAIN, STATUS

_MESSAGE_CHARS_MAX = 1_000  # twice in the trailers, which clients take up to 8 KiB of


class Refused(Exception):
    """A call that the server itself turns away. retry_s : after how long it may be worth another try."""

    def __init__(self, code: grpc.StatusCode, message: str, retry_s: float | None = None) -> None:
        super().__init__(message)
        self.code = code
        self.retry_s = retry_s


def no_message() -> InvalidArgument:
    return InvalidArgument("the bytes that came are no message of this rpc's type")


def whole(parse: Callable[[bytes], Any], data: bytes) -> Any:
    """The message. Raises InvalidArgument where it is none."""
    try:
        return parse(data)
    except DecodeError:
        raise no_message() from None


def exhausted(message: str, retry_s: float) -> Refused:
    return Refused(grpc.StatusCode.RESOURCE_EXHAUSTED, message, retry_s)


def status_of(error: Exception, request_id: str, hidden: str = "") -> tuple[grpc.StatusCode, str, Any]:
    """(code, message, trailing metadata) of any exception.

    hidden : text that no message shall show (the path of the database). What is no error of vecdb's says the request's
    id and nothing else: the text is for the log.
    """
    reason, retry_s = "", None
    if isinstance(error, Refused):
        code, message, retry_s = error.code, str(error), error.retry_s
        reason = "UNAVAILABLE" if code is grpc.StatusCode.RESOURCE_EXHAUSTED else ""
        if code in (grpc.StatusCode.UNAUTHENTICATED, grpc.StatusCode.PERMISSION_DENIED):
            reason = "PERMISSION_DENIED"
    elif isinstance(error, VecdbError) and error.code != "INTERNAL":
        code, message, reason = grpc.StatusCode[STATUS[error.code]], str(error), error.code
    else:
        code, message, reason = grpc.StatusCode.INTERNAL, f"internal error, request {request_id}", "INTERNAL"
    if hidden:
        message = message.replace(hidden, "the database")
    message = message[:_MESSAGE_CHARS_MAX]
    status = status_pb2.Status(code=code.value[0], message=message)
    if reason:
        _add(status, error_details_pb2.ErrorInfo(reason=reason, domain=DOMAIN))
    if retry_s is not None:
        delay = duration_pb2.Duration()
        delay.FromNanoseconds(int(retry_s * 1e9))
        _add(status, error_details_pb2.RetryInfo(retry_delay=delay))
    return code, message, (("grpc-status-details-bin", status.SerializeToString()),)


def _add(status: Any, detail: Any) -> None:
    packed = any_pb2.Any()
    packed.Pack(detail)
    status.details.append(packed)
