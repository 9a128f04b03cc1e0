"""Which error has which code and gRPC status, so that a client raises the same class, code and message as embedded.

Without details RESOURCE_EXHAUSTED, DEADLINE_EXCEEDED, CANCELLED and UNAVAILABLE all become Unavailable, and
UNAUTHENTICATED becomes PermissionDenied.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import get_args

from vecdb import errors
from vecdb.validate.not_found import collection_not_found, tenant_not_found

__all__ = ["DOMAIN", "NO_METADATA", "STATUS", "collection_not_found", "error_of", "metadata_of", "tenant_not_found"]

DOMAIN = "vecdb"
NO_METADATA: Mapping[str, str] = MappingProxyType({})
_WHAT, _STALE = "what", "stale"  # keys of an ErrorInfo's metadata
_MISSING = get_args(errors.Missing)

# code of the error -> name of the gRPC status
STATUS = {
    "INVALID_ARGUMENT": "INVALID_ARGUMENT",
    "LIMIT_EXCEEDED": "INVALID_ARGUMENT",
    "NOT_FOUND": "NOT_FOUND",
    "ALREADY_EXISTS": "ALREADY_EXISTS",
    "PERMISSION_DENIED": "PERMISSION_DENIED",
    "LOCKED": "FAILED_PRECONDITION",
    "UNAVAILABLE": "UNAVAILABLE",
    "CORRUPTION": "DATA_LOSS",
    "POISONED": "FAILED_PRECONDITION",
    "INTERNAL": "INTERNAL",
}

_CLASSES: dict[str, type[errors.VecdbError]] = {
    kind.code: kind
    for kind in (
        errors.InvalidArgument,
        errors.LimitExceeded,
        errors.NotFound,
        errors.AlreadyExists,
        errors.PermissionDenied,
        errors.Locked,
        errors.Unavailable,
        errors.Corruption,
        errors.Poisoned,
    )
}
_WITHOUT_DETAILS: dict[str, type[errors.VecdbError]] = {
    "INVALID_ARGUMENT": errors.InvalidArgument,
    "NOT_FOUND": errors.NotFound,
    "ALREADY_EXISTS": errors.AlreadyExists,
    "PERMISSION_DENIED": errors.PermissionDenied,
    "UNAUTHENTICATED": errors.PermissionDenied,
    "RESOURCE_EXHAUSTED": errors.Unavailable,
    "DEADLINE_EXCEEDED": errors.Unavailable,
    "CANCELLED": errors.Unavailable,
    "UNAVAILABLE": errors.Unavailable,
}


def error_of(
    status: str, reason: str | None, message: str, metadata: Mapping[str, str] = NO_METADATA
) -> errors.VecdbError:
    """The error that a status stands for. reason, metadata : of vecdb's ErrorInfo; None where there is none."""
    kind = _CLASSES.get(reason or "") or _WITHOUT_DETAILS.get(status, errors.VecdbError)
    if kind is errors.NotFound:
        what = metadata.get(_WHAT)
        return errors.NotFound(message, what if what in _MISSING else "path")  # type: ignore[arg-type]
    return errors.Stale(message) if kind is errors.Unavailable and _STALE in metadata else kind(message)


def metadata_of(error: Exception) -> dict[str, str]:
    """What an ErrorInfo says of an error beside its code: of NotFound what is not there, of Unavailable that it is
    Stale.
    """
    if isinstance(error, errors.NotFound):
        return {_WHAT: error.what}
    return {_STALE: "true"} if isinstance(error, errors.Stale) else {}
