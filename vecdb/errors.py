"""Every error that vecdb raises on purpose.

    VecdbError                  base; `code` is stable and equal over gRPC
    +-- InvalidArgument         a value the caller can correct            (also a ValueError)
    |   +-- LimitExceeded       a bound of limits.py was passed
    +-- NotFound                no such collection, tenant, record or path, as `what` says  (also a LookupError)
    +-- AlreadyExists           the name or id is taken
    +-- PermissionDenied        the caller may not do this
    +-- Locked                  another process writes to this database
    +-- Unavailable             closed, still loading, forked, or shutting down; retrying may help
    +-- Corruption              bytes on disk are not what was written
    +-- Poisoned                a sync failed: writes are refused until the database is reopened

A message says what, which value, which limit, and what to do.
"""

from __future__ import annotations

from typing import Literal


class VecdbError(Exception):
    """Base of all vecdb errors. ``code`` is a stable upper-case word, the same embedded and over gRPC.

    ``retry_after`` : seconds after which a server expects that another try may succeed; None where it says nothing.
    """

    code = "INTERNAL"
    retry_after: float | None = None


Missing = Literal["collection", "tenant", "record", "path"]


class InvalidArgument(VecdbError, ValueError):
    code = "INVALID_ARGUMENT"


class LimitExceeded(InvalidArgument):
    code = "LIMIT_EXCEEDED"


class NotFound(VecdbError, LookupError):
    """``what`` says what is not there: "collection" (or an alias), "tenant", "record", or "path" for all else, such as
    a file or a database. It is stable, and the same over gRPC (metadata of the ErrorInfo).
    """

    code = "NOT_FOUND"

    def __init__(self, message: str = "", what: Missing = "path") -> None:
        super().__init__(message)
        self.what: Missing = what

    def __reduce__(self) -> tuple[object, ...]:
        return type(self), (str(self), self.what)


class AlreadyExists(VecdbError):
    code = "ALREADY_EXISTS"


class PermissionDenied(VecdbError):
    code = "PERMISSION_DENIED"


class Locked(VecdbError):
    code = "LOCKED"


class Unavailable(VecdbError):
    code = "UNAVAILABLE"


class DiskFull(Unavailable):
    """There is no room on the disk. Callers know it as Unavailable; the code that makes room asks for it."""


class Stale(Unavailable):
    """It lives, but has not learned for a while what others wrote, and may in a moment. Callers know it as Unavailable;
    a cluster's reads ask again.
    """


class Corruption(VecdbError):
    code = "CORRUPTION"


class Poisoned(VecdbError):
    code = "POISONED"
