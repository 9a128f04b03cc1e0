"""A failed call as a vecdb error.

    the server raised it          -> the same class, code and message as embedded    (google.rpc.Status with ErrorInfo)
    no connection came about      -> Unavailable, with what to do about it           (gRPC's text, below)
    gRPC itself ended the call    -> Unavailable, LimitExceeded or VecdbError, by its status

gRPC's text where no connection came about:

    failed to connect to all addresses; last error: STATUS: ipv4:127.0.0.1:7711: what went wrong

A name may have several addresses; gRPC names the last one that it tried.
"""

from __future__ import annotations

import re
from typing import Any
from urllib.parse import unquote

import grpc
from google.rpc import error_details_pb2, status_pb2

from vecdb.errors import LimitExceeded, Unavailable, VecdbError
from vecdb.wire.error_codes import DOMAIN, error_of

_DETAILS = "grpc-status-details-bin"

_LAST = re.compile(r"last error: [A-Z_]+: (?:ipv[46]:(\S+): )?(?:Failed to connect to remote host: )?(.*)")
_REASON = re.compile(r"OPENSSL_internal:([A-Z0-9_]+)(?:: ([^:]+))?")

# a part of gRPC's text -> what it means. After one of these another try would fail, too
_FINAL = {
    "certificate has expired": "its certificate has expired: it needs a new one",
    "certificate is not yet valid": "its certificate is not valid yet: compare the clocks of both machines",
    "Hostname Verification Check failed": "its certificate is made out to other names: connect by one of those, or "
    "give it one for this name",
    "CERTIFICATE_VERIFY_FAILED": "its certificate is not trusted here ({reason}): give the certificate of the "
    "authority that signed it, tls='ca.pem'",
    "WRONG_VERSION_NUMBER": "it does not speak TLS: use grpc://, without `tls`",
    "Tls handshake failed": "the TLS handshake failed ({reason})",
}
_PASSING = {
    "Connection refused": "nothing listens at {address}: is the server running, and is it this port?",
    "lookup failed": "there is no host of that name",
}
_CLOSED = ("Socket closed", "Connection reset", "Broken pipe")
_WANTS_TLS = "TLS, use grpcs:// or `tls`"
_WANTS_CERTIFICATE = "a certificate of its clients, or another one, give tls=(CA, certificate, key)"


def error_from(failed: Any, rpc: str, where: str, timeout_s: float | None) -> VecdbError:
    """failed : grpc.RpcError of either kind of channel.   where : name of the server."""
    code, text = failed.code(), failed.details() or ""
    info, retry_s = _details(failed)
    if retry_s is not None:
        text = f"{text} (try again in {retry_s:g} s)"
    if info is not None:
        error = error_of(code.name, info.reason, text, info.metadata)
        error.retry_after = retry_s
        return error
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
    """The status that a stream ended with, for `RetryPolicy`: UNAUTHENTICATED where the handshake cannot succeed.

    Where a batch was being sent to a server that had ended, grpc.aio hides the reason behind a status of its own. The
    next attempt gets the reason, because its first batch goes alone.
    """
    code, text = failed.code(), failed.details() or ""
    if is_final(text):
        return "UNAUTHENTICATED"
    hidden = code is grpc.StatusCode.INTERNAL and text == "Internal error from Core"
    return "UNAVAILABLE" if hidden else str(code.name)


def retry_after(failed: Any) -> float | None:
    """Seconds after which the server expects that it has room, where it refused the call for want of it; else None."""
    return _details(failed)[1] if failed.code() is grpc.StatusCode.RESOURCE_EXHAUSTED else None


def _details(failed: Any) -> tuple[Any, float | None]:
    """(vecdb's ErrorInfo, seconds of RetryInfo), None for what is not there."""
    raw = next((value for key, value in failed.trailing_metadata() or () if key == _DETAILS), None)
    found, retry_s = None, None
    for detail in status_pb2.Status.FromString(raw).details if raw is not None else ():
        info, retry = error_details_pb2.ErrorInfo(), error_details_pb2.RetryInfo()
        if detail.Unpack(info) and info.domain == DOMAIN:
            found = info
        elif detail.Unpack(retry):
            retry_s = retry.retry_delay.ToTimedelta().total_seconds()
    return found, retry_s


def is_final(text: str) -> bool:
    """Whether the connection failed for a reason that stays. text : details of an UNAVAILABLE."""
    return any(sign in text for sign in _FINAL)


def unreachable(text: str, *, secure: bool) -> str:
    """Why there is no connection, and what to do. text : as for is_final.   secure : whether TLS was tried."""
    last = _LAST.search(text)
    address = unquote(last[1]) if last is not None and last[1] else "this address"
    for sign, words in (_FINAL | _PASSING).items():
        if sign in text:
            return words.format(reason=_reason(text), address=address)
    if last is None:
        return text
    if last[2].startswith(_CLOSED):
        wanted = _WANTS_CERTIFICATE if secure else _WANTS_TLS
        return f"it closed the connection at once: it may have as many as it takes; where it wants {wanted}"
    return last[2]


def _reason(text: str) -> str:
    found = _REASON.search(text)
    return "no reason was given" if found is None else (found[2] or found[1].replace("_", " ").lower())
