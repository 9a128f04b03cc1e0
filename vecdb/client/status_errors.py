"""A failed call as the error that the server raised: the same class, code and message as embedded."""

from __future__ import annotations

from typing import Any

import grpc
from google.rpc import error_details_pb2, status_pb2

from vecdb.client.connect_errors import is_final, unreachable
from vecdb.errors import LimitExceeded, Unavailable, VecdbError
from vecdb.wire.error_codes import DOMAIN, error_of

_DETAILS = "grpc-status-details-bin"


def error_from(failed: Any, rpc: str, where: str, timeout_s: float | None) -> VecdbError:
    """failed : grpc.RpcError of either kind of channel.   where : name of the server."""
    code, text = failed.code(), failed.details() or ""
    reason, retry_s = _details(failed)
    if retry_s is not None:
        text = f"{text} (try again in {retry_s:g} s)"
    if reason is not None:
        return error_of(code.name, reason, text)
    if code is grpc.StatusCode.UNAVAILABLE:
        return Unavailable(f"{where} cannot be reached: {unreachable(text, secure=where.startswith('grpcs:'))}")
    if code is grpc.StatusCode.CANCELLED:
        return Unavailable(f"the call to {where} was broken off: {text}")
    if code is grpc.StatusCode.DEADLINE_EXCEEDED:
        waited = "in time" if timeout_s is None else f"within {timeout_s:g} s"
        return Unavailable(f"{where} did not answer {waited}; a longer `timeout` can be given where it is opened")
    if code is grpc.StatusCode.RESOURCE_EXHAUSTED and "larger than max" in text:
        return LimitExceeded(f"a message is larger than one may be ({text}): ask for it, or send it, in several calls")
    if code is grpc.StatusCode.UNIMPLEMENTED:
        return VecdbError(f"{where} does not know {rpc}: is it an older version, or no vecdb server?")
    return error_of(code.name, None, text or code.name)


def status_of(failed: Any) -> str:
    """How a stream ended, as retry.py asks: a handshake that cannot succeed does not pass by waiting.

    Where a batch was on its way into one that had ended, grpc.aio hides why behind a status of its own; the next
    attempt hears it, as its first batch goes alone.
    """
    code, text = failed.code(), failed.details() or ""
    if is_final(text):
        return "UNAUTHENTICATED"
    hidden = code is grpc.StatusCode.INTERNAL and text == "Internal error from Core"
    return "UNAVAILABLE" if hidden else str(code.name)


def _details(failed: Any) -> tuple[str | None, float | None]:
    """(reason of our ErrorInfo, seconds of RetryInfo), None for what is not there."""
    raw = next((value for key, value in failed.trailing_metadata() or () if key == _DETAILS), None)
    reason, retry_s = None, None
    for detail in status_pb2.Status.FromString(raw).details if raw is not None else ():
        info, retry = error_details_pb2.ErrorInfo(), error_details_pb2.RetryInfo()
        if detail.Unpack(info) and info.domain == DOMAIN:
            reason = info.reason
        elif detail.Unpack(retry):
            retry_s = retry.retry_delay.ToTimedelta().total_seconds()
    return reason, retry_s
