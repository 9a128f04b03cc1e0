"""The tokens file: which tokens the server accepts. The file holds the SHA-256 of each secret, never the secret.

    {"tokens": [{"name": "search-1", "sha256": "...", "permission": "read", "collection": "*", "tenant": null,
                 "share": false, "rate": null, "created": 1760000000, "expires": null}, ...]}

`vecdb token` changes it, under a lock, by a rename; the file keeps its owner, its permissions and its access list, so
that a server of another user can go on reading it. A running server looks at it before each call, and reads it again
when it has changed: a token that was revoked is refused from then on, in every process of the server.

    the file is deleted, the server may not read it,     nobody is let in: which tokens were revoked cannot be known
    or it has no name any more, since it was mounted
    by itself and another has taken its place
    it is no tokens file                                 the tokens that were known stay valid until it is mended

Either is logged at once and again each minute, and the file is tried again each second.

Threads: `Tokens` is read and refreshed on the event loop.
"""

from __future__ import annotations

import errno
import fcntl
import hashlib
import hmac
import json
import math
import os
import re
import secrets
import stat
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from vecdb import AlreadyExists, InvalidArgument, NotFound, PermissionDenied, Unavailable
from vecdb_server.logs import log
from vecdb_server.security.auth import PERMISSIONS, Caller

PREFIX = "vdb_"
_FILE_BYTES_MAX = 64 << 20
_OF_OTHERS = 0o037  # permissions that a secret should give nobody: to change it its group, to read it all others
_ACCESS_LIST = "system.posix_acl_access"
_REMIND_S = 60.0  # a file that cannot be read is logged so often
_NAME = re.compile(r"[A-Za-z0-9._-]{1,64}")
_FIELDS = ("name", "permission", "collection", "tenant", "share", "rate", "expires")


class Tokens:
    """The file as it was last read."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._name = str(path)
        self.version = 0  # goes up with each reading of the file
        self._seen: tuple[int, ...] | None = None
        self._by_digest: dict[bytes, Caller] = {}
        self._callers: set[Caller] = set()
        self._failed = False  # the last reading
        self._linked = False  # whether the file had a name when it was read
        self._reminds_at = 0.0  # by the monotonic clock
        if not path.exists():
            raise NotFound(f"no tokens file at {path}; make a token with: vecdb token create NAME --tokens {path}")
        self._read()

    def find(self, digest: bytes) -> Caller | None:
        """The caller whose secret has this SHA-256."""
        found = None
        for (
            known,
            caller,
        ) in self._by_digest.items():  # compares with all of them, each in constant time, so that timing tells nothing
            if hmac.compare_digest(known, digest):
                found = caller
        return found

    def holds(self, caller: Caller) -> bool:
        """Whether the file has the token now."""
        self.look()
        return caller in self._callers

    def look(self) -> None:
        """Before each call: no token counts that was revoked before it came."""
        if _stamp(self._name) != self._seen:
            self.refresh()

    def refresh(self) -> bool:
        """Read the file again if it has changed, or could not be read before. True if there are other tokens now."""
        stamp = _stamp(self.path)
        if stamp == self._seen and not self._failed:
            return False
        try:
            self._read()
        except PermissionError as error:
            return self._shut(stamp, error)
        except Exception as error:  # whatever it is: if nobody read the file again, revoked tokens would stay valid
            self._complain(stamp, "tokens file unreadable, keeping the tokens that were known", error)
            return False
        self._failed = False
        log.info("tokens read", count=len(self._by_digest))
        return True

    def _shut(self, stamp: tuple[int, ...] | None, error: PermissionError) -> bool:
        """Let nobody in. True if somebody was let in before."""
        self._complain(stamp, "tokens file out of reach, nobody is let in", error)
        known, self._by_digest, self._callers = bool(self._by_digest), {}, set()
        self.version += known
        return known

    def _complain(self, stamp: tuple[int, ...] | None, event: str, error: Exception) -> None:
        now = time.monotonic()
        if stamp != self._seen or now >= self._reminds_at:
            log.error(event, path=str(self.path), user=os.geteuid(), reason=str(error))
            self._reminds_at = now + _REMIND_S
        self._seen, self._failed = stamp, True

    def _read(self) -> None:
        stamp = _stamp(self.path)
        entries = entries_of(self.path)
        linked = stamp is not None and self.path.stat().st_nlink > 0  # some file systems never say so
        if stamp is not None and self._linked and not linked:
            raise PermissionError(f"{self.path} was replaced where it is mounted from: mount its folder, not the file")
        self._by_digest = {bytes.fromhex(entry["sha256"]): _caller(entry) for entry in entries}
        self._callers = set(self._by_digest.values())
        self._seen, self._linked = stamp, linked
        self.version += 1
        if is_exposed(self.path):
            log.warning("others than its owner may read or change the tokens file: chmod 600", path=str(self.path))


def is_exposed(path: Path) -> bool:
    """Whether a file that is secret may be changed by its group, or read by everybody. Its group may read it: that is
    how a server gets at a file of root's.
    """
    try:
        return bool(stat.S_IMODE(path.stat().st_mode) & _OF_OTHERS)
    except OSError:
        return False


def create(path: Path, caller: Caller) -> str:
    """Adds a token. Returns its secret, which is stored nowhere. Raises AlreadyExists where the name is taken."""
    _check(caller)
    secret = PREFIX + secrets.token_urlsafe(32)
    with _changing(path) as entries:
        if any(entry["name"] == caller.name for entry in entries):
            raise AlreadyExists(f"there is a token named {caller.name!r}; revoke it first, or choose another name")
        entry: dict[str, Any] = {name: getattr(caller, name) for name in _FIELDS}
        entry["sha256"] = hashlib.sha256(secret.encode()).hexdigest()
        entry["created"] = int(time.time())
        entries.append(entry)
    return secret


def revoke(path: Path, name: str) -> None:
    """Removes a token. Raises NotFound."""
    with _changing(path) as entries:
        rest = [entry for entry in entries if entry["name"] != name]
        if len(rest) == len(entries):
            raise NotFound(f"no token named {name!r} in {path}")
        entries[:] = rest


def entries_of(path: Path) -> list[dict[str, Any]]:
    """The entries of the file; none where there is no file. Raises InvalidArgument where it is no tokens file."""
    try:
        raw = _bytes_of(path)
    except FileNotFoundError:
        return []
    try:
        entries: list[dict[str, Any]] = json.loads(raw.decode())["tokens"]
        for entry in entries:
            _check(_caller(entry))
            if len(bytes.fromhex(entry["sha256"])) != 32:
                raise ValueError("sha256")
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        raise InvalidArgument(f"{path} is no tokens file: {error}") from None
    return entries


def _bytes_of(path: Path) -> bytes:
    """The bytes of a regular file of bounded size: a device has no end, and a pipe may never begin."""
    with open(os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC), "rb") as file:
        if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
            raise OSError(errno.EINVAL, "it is no regular file", str(path))
        raw = file.read(_FILE_BYTES_MAX + 1)
    if len(raw) > _FILE_BYTES_MAX:
        raise InvalidArgument(f"{path} is no tokens file: it has more than {_FILE_BYTES_MAX:,} bytes")
    return raw


def _caller(entry: dict[str, Any]) -> Caller:
    return Caller(**{name: entry[name] for name in _FIELDS if name in entry})


def _check(caller: Caller) -> None:
    if not isinstance(caller.name, str) or not _NAME.fullmatch(caller.name):
        raise InvalidArgument(
            f"the name of a token is 1 to 64 letters, digits, dots, dashes and underscores, got {caller.name!r}"
        )
    if caller.permission not in PERMISSIONS:
        raise InvalidArgument(f"permission must be one of {', '.join(PERMISSIONS)}, got {caller.permission!r}")
    if not isinstance(caller.collection, str) or not caller.collection:
        raise InvalidArgument(f"collection must be a name, or * for all, got {caller.collection!r}")
    if caller.tenant is not None and (not isinstance(caller.tenant, str) or not caller.tenant):
        raise InvalidArgument(f"tenant must be a name, got {caller.tenant!r}")
    if caller.tenant is not None and len(caller.tenant.encode()) > 128:
        raise InvalidArgument("the tenant of a token owns what it writes: its name has at most 128 bytes")
    if caller.tenant is not None and caller.permission == "admin":
        raise InvalidArgument("a token of a tenant cannot administrate: permission must be read or write")
    if caller.share is not False and (caller.share is not True or caller.tenant is None):
        raise InvalidArgument("share is for tokens of a tenant: whether it may let other tenants see its records")
    for what, number in (("rate", caller.rate), ("expires", caller.expires)):
        if number is not None and not (type(number) in (int, float) and 0 < number < math.inf):
            raise InvalidArgument(f"{what} must be a positive number, got {number!r}")


@contextmanager
def _changing(path: Path) -> Iterator[list[dict[str, Any]]]:
    """The entries, to be changed in place; they are written to the file when the block ends without an error. A link
    stays a link: what it leads to is changed.
    """
    path = path.resolve()
    directory = os.open(path.parent, os.O_RDONLY)
    try:
        fcntl.flock(directory, fcntl.LOCK_EX)  # locks the folder, because the file itself is replaced
        entries = entries_of(path)
        yield entries
        fresh = path.with_name(f"{path.name}.tmp")
        fresh.unlink(missing_ok=True)
        try:
            with open(os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w", encoding="utf-8") as file:
                json.dump({"tokens": entries}, file, indent=1, ensure_ascii=False)
                file.flush()
                _keep_access(path, file.fileno())
                os.fsync(file.fileno())
            os.replace(fresh, path)
        finally:
            fresh.unlink(missing_ok=True)
        os.fsync(directory)
    except OSError as error:
        raise Unavailable(f"{path} cannot be changed: {error.strerror}; it is as it was") from error
    finally:
        os.close(directory)


def _keep_access(path: Path, fresh: int) -> None:
    """Give the file that takes the place of `path` its owner, permissions and access list. Raises PermissionDenied
    where that is not allowed: a server that could read the file could not read the new one, and would let nobody in.
    """
    try:
        old = path.stat()
    except FileNotFoundError:
        return
    new = os.fstat(fresh)
    try:
        if (old.st_uid, old.st_gid) != (new.st_uid, new.st_gid):
            os.fchown(fresh, old.st_uid, old.st_gid)
        os.fchmod(fresh, stat.S_IMODE(old.st_mode))
        for name in getattr(os, "listxattr", lambda _: [])(path):
            if name == _ACCESS_LIST:
                os.setxattr(fresh, name, os.getxattr(path, name))
    except PermissionError:
        raise PermissionDenied(
            f"{path} belongs to user {old.st_uid}, group {old.st_gid}, which would not keep it: nothing was changed. "
            "Run this as root, or as that user"
        ) from None


def _stamp(path: Path | str) -> tuple[int, ...] | None:
    """A value that changes when the file does; None where there is no file."""
    try:
        found = os.stat(path)
    except OSError:
        return None
    return found.st_ino, found.st_mtime_ns, found.st_ctime_ns, found.st_size, found.st_mode
