"""A bucket of an object store, by its URL. The only module that knows obstore.

    s3://bucket/prefix    gs://bucket/prefix    az://container/prefix    file:///folder    memory://name, for tests

Who asks, and where, comes from the environment or from the machine, as for every tool of these stores
(AWS_ACCESS_KEY_ID, AWS_ENDPOINT, AWS_REGION, AWS_ALLOW_HTTP ...; GOOGLE_..., AZURE_...). A URL with a password or a
token in it is refused, and what obstore says of a request is not shown, since it may contain one. Requests are repeated
by obstore.

A network that is cut says nothing: a request on a connection that was open before is lost without a word, and only its
own time ends it. So one of few bytes may take no longer than a request is repeated. One of many bytes may take as long
as they take, and begins on a new connection, which is refused soon where there is no network.

A store that knows no conditional writes is refused for what needs them (`open_bucket(url, conditional=True)`).
"""

from __future__ import annotations

import importlib
import os
import re
from collections.abc import Callable, Iterable, Iterator
from datetime import timedelta
from functools import cache
from pathlib import Path
from typing import Any, TypeVar

from vecdb.errors import AlreadyExists, InvalidArgument, NotFound, PermissionDenied, Unavailable, VecdbError
from vecdb.replication.folder_bucket import FolderBucket, parts_of
from vecdb.replication.objects import Bucket as Bucket
from vecdb.replication.objects import Conflict as Conflict
from vecdb.replication.objects import StoredObject, check_key
from vecdb.storage.disk import filesystem

T = TypeVar("T")

SCHEMES = ("s3", "gs", "az", "file", "memory")
_PATIENCE_S = 60.0  # in which a request that fails is repeated
_CONNECT_S = 5.0  # at most, for a connection
_SHORT_BYTES = 256 << 10  # a request or an answer of no more may take no longer than the patience, at most _SHORT_S
_SHORT_S = 30.0
_LONG_S = 120.0  # the same of any other, of which none is longer than _WHOLE_BYTES but for one commit, or one object
_WHOLE_BYTES = 8 << 20  # more than this is sent in parts
_PARTS_AT_ONCE = 2
_LISTED_AT_ONCE = 1000
# what the environment may say of connections, each behind AWS_, GOOGLE_ or AZURE_: obstore reads none of it where it is
# given any
_OF_CONNECTIONS = (
    "allow_http", "allow_invalid_certificates", "connect_timeout", "default_content_type", "http1_only",
    "http2_keep_alive_interval", "http2_keep_alive_timeout", "http2_keep_alive_while_idle", "http2_max_frame_size",
    "http2_only", "pool_idle_timeout", "pool_max_idle_per_host", "proxy_ca_certificate", "proxy_excludes", "proxy_url",
    "randomize_addresses", "read_timeout", "timeout", "user_agent",
)  # fmt: skip
_PREFIXES = {"s3": "AWS_", "gs": "GOOGLE_", "az": "AZURE_"}
_URL = re.compile(r"(?P<scheme>[A-Za-z0-9]+)://(?P<bucket>[^/?#]*)(?P<path>[^?#]*)(?P<rest>.*)", re.DOTALL)
_BUCKET = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
_ESCAPE = re.compile(rb"%([0-9A-Fa-f]{2})")
_STATUS = re.compile(r"status code: (\d{3} [A-Za-z ]+)")
_CODE = re.compile(r"<Code>(\w{1,60})</Code>")


def is_url(value: object) -> bool:
    """Whether a place is meant that `open_bucket` takes, and not a directory."""
    return isinstance(value, str) and value.partition("://")[0] in SCHEMES and "://" in value


def open_bucket(url: str, *, conditional: bool = False, patience_s: float = _PATIENCE_S) -> Bucket:
    """The folder of a bucket that a URL names; nothing is made until something is written.

    conditional : what is to be written needs `create` and `replace`: a store that lacks them is refused.
    patience_s : how long a request that fails is repeated.

    Raises InvalidArgument for what is no such URL; Unavailable where the store does not answer or lacks conditions;
    NotFound where there is no such bucket, PermissionDenied; VecdbError where obstore is not installed.
    """
    scheme, name, path = _parts(url)
    bucket: Bucket
    if scheme == "file":
        bucket = FolderBucket(url, Path("/", path))
    elif scheme == "memory":
        bucket = ObjectBucket(url, _memory(name), _memory(name), path)
    else:
        connect = {"connect_timeout": _in_ms(min(patience_s, _CONNECT_S))}
        short = connect | {"timeout": _in_ms(min(patience_s, _SHORT_S))}
        long = connect | {"timeout": _in_ms(_LONG_S), "pool_max_idle_per_host": "0"}
        bucket = ObjectBucket(url, _store(url, patience_s, short), _store(url, patience_s, long), "")
    if conditional:
        bucket.require_conditional_writes()
    return bucket


def _parts(url: str) -> tuple[str, str, str]:
    """(scheme, bucket, path) of a URL."""
    shown = re.split(r"[?#]", str(url), maxsplit=1)[0].rpartition("@")[2][:200]  # what cannot be a secret
    match = _URL.fullmatch(url)
    if match is None or match["scheme"] not in SCHEMES:
        raise InvalidArgument(f"{shown!r} is no bucket: give s3://bucket/prefix, gs://, az:// or file:///folder")
    scheme, bucket, path = match["scheme"], match["bucket"], match["path"].strip("/")
    if match["rest"] or "@" in bucket:
        raise InvalidArgument(
            f"the URL that ends in {shown!r} contains more than a bucket and a prefix; keys and tokens belong into the "
            "environment (AWS_ACCESS_KEY_ID and the like)"
        )
    if scheme == "file":
        if bucket or not path:
            raise InvalidArgument(f"{shown!r} names no folder of this machine: give file:///folder, with three /")
        return scheme, "", _ESCAPE.sub(lambda found: bytes.fromhex(found[1].decode()), path.encode()).decode()
    if not _BUCKET.fullmatch(bucket):
        raise InvalidArgument(f"{shown!r} names no bucket: give {scheme}://bucket/prefix")
    return scheme, bucket, check_key(path) if path else ""


def _obstore(name: str = "obstore") -> Any:
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise VecdbError(f"object storage needs {error.name}: pip install 'vecdb-engine[remote]'") from None


def _store(url: str, patience_s: float, connections: dict[str, str]) -> Any:
    """connections : what obstore is told of them where the environment says nothing."""
    stores = _obstore("obstore.store")
    retries = {"retry_timeout": timedelta(seconds=patience_s)}
    try:
        return stores.from_url(url, retry_config=retries, client_options=connections | _environment_of(url))
    except (_obstore("obstore.exceptions").BaseError, ValueError) as error:
        raise InvalidArgument(f"{url!r} cannot be used: {_reason(error)}") from None


def _environment_of(url: str) -> dict[str, str]:
    prefix = _PREFIXES[url.partition("://")[0]]
    said = {name: os.environ.get(prefix + name.upper()) for name in _OF_CONNECTIONS}
    return {name: value for name, value in said.items() if value is not None}


def _in_ms(seconds: float) -> str:
    return f"{max(1, round(1e3 * seconds))}ms"


@cache
def _memory(name: str) -> Any:
    """One store for each name, as long as the process lives."""
    return _obstore("obstore.store").MemoryStore()


class ObjectBucket(Bucket):
    """Objects below `prefix` of a store of obstore's, which may have one of its own. long : the same store, for
    requests of many bytes.
    """

    def __init__(self, url: str, store: Any, long: Any, prefix: str) -> None:
        super().__init__(url)
        self._obstore, self._errors = _obstore(), _obstore("obstore.exceptions")
        self._store, self._long = store, long
        self._before = f"{prefix}/" if prefix else ""

    def create(self, key: str, data: bytes) -> str:
        return self._put(key, data, "create")

    def replace(self, key: str, data: bytes, version: str | None) -> str:
        try:
            return self._put(key, data, "create" if version is None else {"e_tag": version})
        except AlreadyExists as error:
            raise Conflict(str(error)) from None

    def put(self, key: str, data: bytes | memoryview) -> None:
        self._put(key, data, "overwrite")

    def _put(self, key: str, data: bytes | memoryview, mode: Any) -> str:
        path, store = self._path(key), self._store_for(len(data))
        done = self._called(key, lambda: self._obstore.put(store, path, data, mode=mode, use_multipart=False))
        return str(done["e_tag"])

    def upload(self, key: str, fd: int, offset: int, length: int) -> None:
        if length <= _WHOLE_BYTES:
            data = filesystem.pread(fd, length, offset)
            if len(data) != length:
                raise OSError(f"the file ended at byte {offset + len(data)}, {length - len(data)} before it should")
            self.put(key, data)
            return
        path = self._path(key)
        sizes = {"chunk_size": _WHOLE_BYTES, "max_concurrency": _PARTS_AT_ONCE}
        self._called(
            key, lambda: self._obstore.put(self._long, path, parts_of(fd, offset, length), use_multipart=True, **sizes)
        )

    def get_versioned(self, key: str) -> tuple[bytes, str] | None:
        path = self._path(key)

        def get() -> tuple[bytes, str]:
            found = self._obstore.get(self._store, path)
            if (store := self._store_for(int(found.meta["size"]))) is not self._store:
                found = self._obstore.get(store, path)  # its bytes have not come yet
            return bytes(found.bytes()), str(found.meta["e_tag"])

        try:
            return self._called(key, get)
        except _NoObject:
            return None

    def read_range(self, key: str, offset: int, length: int) -> bytes:
        path, store = self._path(key), self._store_for(length)
        try:
            return self._called(key, lambda: bytes(self._obstore.get_range(store, path, start=offset, length=length)))
        except _NothingThere:
            return b""

    def size(self, key: str) -> int | None:
        path = self._path(key)
        try:
            return int(self._called(key, lambda: self._obstore.head(self._store, path))["size"])
        except _NoObject:
            return None

    def entries(self, prefix: str = "", after: str | None = None) -> Iterator[StoredObject]:
        folder = self._path(prefix) if prefix else self._before.rstrip("/")
        offset = None if after is None else self._path(after)
        listed = iter(
            self._called(
                prefix,
                lambda: self._obstore.list(self._store, folder or None, offset=offset, chunk_size=_LISTED_AT_ONCE),
            )
        )
        last = after or ""
        while (chunk := self._called(prefix, lambda: next(listed, None))) is not None:
            for found in chunk:
                key = str(found["path"]).removeprefix(self._before)
                if key <= last:
                    raise Unavailable(f"{self.url}: this store does not list its objects in order: {key} after {last}")
                last = key
                yield StoredObject(key, int(found["size"]), found["last_modified"].timestamp())

    def delete(self, keys: Iterable[str]) -> None:
        paths = [self._path(key) for key in keys]
        for first in range(0, len(paths), _LISTED_AT_ONCE):
            some = paths[first : first + _LISTED_AT_ONCE]
            self._called("", lambda some=some: self._obstore.delete(self._long, some))  # type: ignore[misc]

    def _store_for(self, size: int) -> Any:
        """The one for a request or an answer of so many bytes."""
        return self._store if size <= _SHORT_BYTES else self._long

    def _path(self, key: str) -> str:
        return self._before + check_key(key)

    def _called(self, key: str, call: Callable[[], T]) -> T:
        """What the call returns; errors as vecdb's, without what may contain a secret."""
        try:
            return call()
        except (self._errors.BaseError, FileNotFoundError, PermissionError, NotImplementedError) as error:
            raise self._error(key, error) from None

    def _error(self, key: str, error: Exception) -> VecdbError:
        reason, errors = _reason(error), self._errors
        at = f"{self.url}: {key}" if key else self.url
        if isinstance(error, errors.AlreadyExistsError):
            return AlreadyExists(f"{at} is there already")
        if isinstance(error, errors.PreconditionError):
            return Conflict(f"{at} has another version by now")
        if "NoSuchBucket" in reason or "ContainerNotFound" in reason:
            return NotFound(f"{self.url}: there is no such bucket ({reason})")
        if isinstance(error, FileNotFoundError):
            return _NoObject(f"{self.url}: there is no object {key}")
        refusals = (errors.PermissionDeniedError, errors.UnauthenticatedError, PermissionError)
        if isinstance(error, refusals) or reason.startswith(("401", "403")):
            return PermissionDenied(
                f"{at}: the store refuses this caller ({reason}); check the keys in the environment"
            )
        if isinstance(error, (NotImplementedError, errors.NotSupportedError)):
            return self.without_conditions("no condition at all")
        if _has_no_bytes(error):
            return _NothingThere(f"{at}: nothing there")
        if "credential" in str(error).lower():
            return PermissionDenied(f"{at}: no keys were found in the environment ({reason})")
        return Unavailable(f"{at}: the store did not do what was asked ({reason}); try again")


class _NoObject(NotFound):
    """There is a bucket, or may be, and no such object."""


class _NothingThere(Unavailable):
    """A range behind the end of an object."""


def _has_no_bytes(error: Exception) -> bool:
    text = str(error)
    return "416 " in text or "StartTooLarge" in text


def _reason(error: Exception) -> str:
    """What an error of obstore's says, as far as it cannot contain a key, a token or a signed address."""
    text = str(error)
    found = [match.group(1).strip() for pattern in (_STATUS, _CODE) for match in [pattern.search(text)] if match]
    if not found:
        found = ["no connection" if "error sending request" in text else type(error).__name__]
    return ", ".join(found)
