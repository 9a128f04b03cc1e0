"""Objects of the log: commits as values, and the beginning and end of a writer's part of it.

    log/<epoch>/<sequence>           commits: the first of them has this number; or the beginning or end of an epoch
    file/<epoch>/<sequence>.<n>      bytes of files that are too many for an entry, or that a snapshot needs
    snapshot/<epoch>/<sequence>/...  snapshot.py
    trimmed                          where the log begins by now

    object := magic "VLOG" | version u16 | kind u16 | body bytes u64 | crc32 u32 of the body | body, msgpack
                                                                                          numbers little-endian

An epoch is one run of one writer: commits without a gap. It begins with `EpochBegin` at the number of the last commit
before, and ends with `EpochEnd` at the number that its next commit would have. Whoever takes over creates that object:
of two writers one is told that it is there already.

A commit is what it changes in LMDB, in order, and which bytes of files it counts that the commit before did not.
Applied to an equal directory it makes an equal directory.
"""

from __future__ import annotations

import re
import struct
import zlib
from typing import Any, NamedTuple, TypeVar

import msgspec

from vecdb.errors import Corruption, Unavailable

PUT, DELETE, DELETE_PAIR = 0, 1, 2  # what an operation does: to pairs, to keys with all they have, to pairs
LOG, FILES, SNAPSHOTS, TRIMMED = "log", "file", "snapshot", "trimmed"
MANIFEST = "manifest"  # of a snapshot
_HEAD = struct.Struct("<4sHHQI")
_MAGIC, _VERSION = b"VLOG", 1
_PATH = re.compile(r"collections/[0-9a-f]{8}/[A-Za-z0-9_][A-Za-z0-9_.+-]*")
_KEY = re.compile(r"file/[0-9]{8}/[0-9]{16}\.[0-9a-z]+")

T = TypeVar("T", bound=msgspec.Struct)

# which of PUT, DELETE and DELETE_PAIR, in which database, by its place in `databases`; keys, or keys and values in turn
Operation = tuple[int, int, list[bytes]]


class FileRange(msgspec.Struct, array_like=True, frozen=True):
    """Bytes of a file of the database, here (data) or in an object of their own (key). crc : CRC-32 of them."""

    path: str
    offset: int
    length: int
    crc: int
    data: bytes = b""
    key: str = ""


class Commit(msgspec.Struct, array_like=True, frozen=True):
    """One commit. format_version : that the directory has at least by then (manifest.json)."""

    sequence: int
    time_ns: int
    format_version: int
    operations: list[Operation]
    ranges: tuple[FileRange, ...] = ()


class Commits(msgspec.Struct, array_like=True, frozen=True):
    """Commits that follow each other. database : its uuid.   databases : names of LMDB's.   writer : as in the
    beginning of the epoch.
    """

    database: str
    epoch: int
    databases: tuple[str, ...]
    commits: tuple[Commit, ...]
    writer: str = ""


class EpochBegin(msgspec.Struct, array_like=True, frozen=True):
    """A writer begins. after : number of the last commit before.   fingerprint : of what is committed then."""

    database: str
    epoch: int
    after: int
    time_ns: int
    writer: str
    fingerprint: int


class EpochEnd(msgspec.Struct, array_like=True, frozen=True):
    """Another epoch goes on, after the commit `after`. continues : whoever has this epoch whole has what that one
    begins with; otherwise a snapshot of it is needed.
    """

    database: str
    epoch: int
    next_epoch: int
    after: int
    continues: bool
    writer: str


class SnapshotPart(msgspec.Struct, array_like=True, frozen=True):
    """Entries of LMDB, in order."""

    database: str
    databases: tuple[str, ...]
    operations: list[Operation]


class Position(NamedTuple):
    """A place in the log: the commit `sequence` of an epoch, which lies in the object of the number `object`."""

    epoch: int
    sequence: int
    object: int

    @property
    def key(self) -> str:
        return log_key(self.epoch, self.object)

    @property
    def next_key(self) -> str:
        return log_key(self.epoch, self.sequence + 1)


_KINDS: dict[int, type[msgspec.Struct]] = {1: Commits, 2: EpochBegin, 3: EpochEnd, 4: SnapshotPart}
_KIND_OF = {kind: number for number, kind in _KINDS.items()}
_encoder = msgspec.msgpack.Encoder()
_decoders = {number: msgspec.msgpack.Decoder(kind) for number, kind in _KINDS.items()}


def log_key(epoch: int, sequence: int) -> str:
    return f"{LOG}/{epoch:08d}/{sequence:016d}"


def file_key(epoch: int, sequence: int, name: str) -> str:
    return f"{FILES}/{epoch:08d}/{sequence:016d}.{name}"


def split_key(key: str) -> tuple[int, int]:
    """(epoch, sequence) of a key that `log_key` or `file_key` made. Raises Corruption."""
    words = key.split("/")
    try:
        return int(words[1]), int(words[2].partition(".")[0])
    except (IndexError, ValueError):
        raise Corruption(f"the log has an object {key[:100]!r}, which is none of its own; remove it") from None


def encode(value: msgspec.Struct) -> bytes:
    body = _encoder.encode(value)
    return _HEAD.pack(_MAGIC, _VERSION, _KIND_OF[type(value)], len(body), zlib.crc32(body)) + body


def decode(raw: bytes, where: str) -> Any:
    """The object. where : for messages. Raises Corruption where it is damaged, Unavailable where it is newer."""
    if len(raw) < _HEAD.size or not raw.startswith(_MAGIC):
        raise Corruption(f"{where}: no object of a log of vecdb, or its beginning is damaged")
    _, version, kind, length, crc = _HEAD.unpack_from(raw)
    if version != _VERSION or kind not in _KINDS:
        raise Unavailable(f"{where}: format {version}, kind {kind}, which this vecdb does not know; upgrade vecdb")
    body = memoryview(raw)[_HEAD.size :]
    if len(body) != length or zlib.crc32(body) != crc:
        raise Corruption(f"{where}: damaged: {len(body)} bytes of {length}, crc {zlib.crc32(body):08x}, not {crc:08x}")
    try:
        return _decoders[kind].decode(body)
    except msgspec.MsgspecError as error:
        raise Corruption(f"{where}: damaged ({error})") from None


def decode_as(raw: bytes, kind: type[T], where: str) -> T:
    found = decode(raw, where)
    if not isinstance(found, kind):
        raise Corruption(f"{where}: holds {type(found).__name__}, expected {kind.__name__}")
    return found


def check_range(found: FileRange, where: str) -> None:
    """Raise Corruption for a range that names what no log names: it may come from anybody."""
    if not _PATH.fullmatch(found.path) or (found.key and not _KEY.fullmatch(found.key)):
        raise Corruption(f"{where}: names {found.path[:100]!r} in {found.key[:100]!r}, which is no file of a database")
    if found.offset < 0 or found.length < 0 or (not found.key and len(found.data) != found.length):
        raise Corruption(f"{where}: {found.path}: {len(found.data)} bytes, expected {found.length} at {found.offset}")
