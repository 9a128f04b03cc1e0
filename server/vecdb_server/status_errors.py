"""An error as a gRPC status: code, message, google.rpc.Status with ErrorInfo, and RetryInfo where waiting helps."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import grpc
from google.protobuf import any_pb2, duration_pb2
from google.protobuf.message import DecodeError
from google.rpc import error_details_pb2, status_pb2

from vecdb import InvalidArgument, VecdbError
from vecdb.wire.error_codes import DOMAIN, STATUS, metadata_of

_MESSAGE_CHARS_MAX = 1_000  # it is sent twice in the trailers, of which clients accept 8 KiB


class Refused(Exception):
    """A call that the server itself refuses. retry_s : after how long it may be worth another try.   caller : the name
    of its token, where that is known.   trailing : of a status that another process has made: it goes on as it is.
    """

    def __init__(
        self, code: grpc.StatusCode, message: str, retry_s: float | None = None, caller: str = "", trailing: Any = None
    ) -> None:
        super().__init__(message)
        self.trailing = trailing
        self.code = code
        self.retry_s = retry_s
        self.caller = caller


def not_a_message() -> InvalidArgument:
    return InvalidArgument("the bytes that came are no message of this rpc's type")


def parse_message(parse: Callable[[bytes], Any], data: bytes) -> Any:
    """The message. Raises InvalidArgument where the bytes are none."""
    try:
        return parse(data)
    except DecodeError:
        raise not_a_message() from None


def exhausted(message: str, retry_s: float) -> Refused:
    return Refused(grpc.StatusCode.RESOURCE_EXHAUSTED, message, retry_s)


def status_of(error: Exception, request_id: str, hidden: str = "") -> tuple[grpc.StatusCode, str, Any]:
    """(code, message, trailing metadata) of any exception.

    hidden : text that no message may show (the path of the database). The message of an error that is not vecdb's own
    is only the request's id; its text goes to the log.
    """
    reason, retry_s = "", None
    if isinstance(error, Refused) and error.trailing is not None:
        return error.code, str(error), error.trailing
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
        _add_detail(status, error_details_pb2.ErrorInfo(reason=reason, domain=DOMAIN, metadata=metadata_of(error)))
    if retry_s is not None:
        delay = duration_pb2.Duration()
        delay.FromNanoseconds(int(retry_s * 1e9))
        _add_detail(status, error_details_pb2.RetryInfo(retry_delay=delay))
    return code, message, (("grpc-status-details-bin", status.SerializeToString()),)


def _add_detail(status: Any, detail: Any) -> None:
    packed = any_pb2.Any()
    packed.Pack(detail)
    status.details.append(packed)
