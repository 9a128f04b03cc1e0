"""What a bucket is: keys and bytes, written whole, found by everybody at once.

    create   only where nothing has the key           what makes one of two writers lose
    replace  only where the version is the known one  compare-and-swap
    put      whatever is there
    get, read_range, size, list, delete

Object stores promise that a write that returned is seen by every later read and list (S3, GCS and Azure do since 2020),
and an object appears whole or not at all. bucket.py keeps this on top of obstore, folder_bucket.py in a folder.

A request that is repeated because its answer was lost may find its own object: who creates, and is told
`AlreadyExists`, looks whether what lies there is his own.

Threads: every method from any thread. After a fork the child must open its own.
"""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator
from typing import NamedTuple

from vecdb.errors import AlreadyExists, InvalidArgument, Unavailable

PROBE = "vecdb-probe"  # the object on which conditional writes are tried; it stays
_PROBED = b"This object is there so that vecdb can see whether the store refuses to write it a second time.\n"
_KEY = re.compile(r"(?:[A-Za-z0-9_+=][A-Za-z0-9._+=-]*)(?:/[A-Za-z0-9_+=][A-Za-z0-9._+=-]*)*")
_KEY_BYTES_MAX = 900  # S3 takes 1,024 with the prefix


class Conflict(Unavailable):
    """`replace` found another version than it was given: somebody else was faster."""


class StoredObject(NamedTuple):
    """modified : seconds since 1970 by the clock of the store."""

    key: str
    size: int
    modified: float


class Bucket(ABC):
    """A folder of a bucket. url : as it was opened."""

    def __init__(self, url: str) -> None:
        self.url = url

    @abstractmethod
    def create(self, key: str, data: bytes) -> str:
        """Write an object that is not there, and return its version. Raises AlreadyExists where it is: perhaps this
        call's own, see above.
        """

    @abstractmethod
    def replace(self, key: str, data: bytes, version: str | None) -> str:
        """Write over that version of the object (None: over nothing), and return the new one. Raises Conflict."""

    @abstractmethod
    def put(self, key: str, data: bytes | memoryview) -> None:
        """Write an object, over one that may be there. data : which nobody changes until this returns."""

    @abstractmethod
    def upload(self, key: str, fd: int, offset: int, length: int) -> None:
        """`put` with part of an open file, which may be larger than memory."""

    @abstractmethod
    def get_versioned(self, key: str) -> tuple[bytes, str] | None:
        """An object and its version; None where there is none."""

    @abstractmethod
    def read_range(self, key: str, offset: int, length: int) -> bytes:
        """That part of an object, less where it ends before. Raises NotFound where there is none."""

    @abstractmethod
    def size(self, key: str) -> int | None:
        """How many bytes an object has; None where there is none."""

    @abstractmethod
    def entries(self, prefix: str = "", after: str | None = None) -> Iterator[StoredObject]:
        """The objects in a folder and in those below it ("" for all), in the order of their keys' bytes. after : only
        those behind this key.
        """

    @abstractmethod
    def delete(self, keys: Iterable[str]) -> None:
        """Remove objects, which need not be there."""

    def get(self, key: str) -> bytes | None:
        """An object; None where there is none."""
        found = self.get_versioned(key)
        return None if found is None else found[0]

    def list(self, prefix: str = "", after: str | None = None) -> Iterator[tuple[str, int]]:
        """Keys and sizes: see `entries`."""
        return ((one.key, one.size) for one in self.entries(prefix, after))

    def require_conditional_writes(self) -> None:
        """Raise Unavailable where the store takes a second `create`, or a `replace` of a version that is not there: a
        store that does not know conditions ignores them.
        """
        try:
            self.create(PROBE, _PROBED)
            self.create(PROBE, _PROBED)
            raise self.without_conditions("a second object of one key")
        except AlreadyExists:
            pass
        try:
            self.replace(PROBE, _PROBED, '"00000000000000000000000000000000"')
            raise self.without_conditions("a change of a version that is not there")
        except Conflict:
            pass

    def without_conditions(self, taken: str) -> Unavailable:
        """The error where a store has taken what it must refuse."""
        return Unavailable(
            f"{self.url}: this store knows no conditional writes (it took {taken}): two writers could not be told "
            "apart; use one that keeps If-None-Match and If-Match, such as S3, GCS, Azure, R2 or a newer MinIO"
        )


def check_key(key: str) -> str:
    """Raise InvalidArgument for a key that some store would not take, or not keep as it is."""
    if not _KEY.fullmatch(key) or len(key) > _KEY_BYTES_MAX:
        raise InvalidArgument(
            f"{key[:100]!r} is no key: letters, digits and . _ + = - in parts between /, none of which begins with a "
            f"dot or a dash, at most {_KEY_BYTES_MAX} in all"
        )
    return key
