"""The backups of a database in a bucket: which there are, what they hold, and how pieces that no backup needs go.

    backups/manifests/<database>/<time>-<sequence>-<nonce>   one backup; written last: no manifest, no backup
            pieces/<database>/<sha256>-<nonce>               part of a file, whichever file that is
            intents/<database>/<nonce>                       the manifest of a backup that is about to be whole
            condemned/<database>/<nonce>                     the pieces that somebody is about to remove

    manifest := sha256 of the rest in hex, newline, JSON of BackupManifest

database is the uuid of the directory's manifest. Objects are created, never changed. A piece is known by what it holds,
so whoever has one to send looks whether it is there; its nonce is drawn when it is sent.

Pieces go without leases and clocks, while others back up:

    who backs up    pieces -> intent -> read condemned -> list pieces -> manifest -> intent goes
    who removes     condemned -> read manifests and intents -> delete what none of them names -> condemned goes

Either the second sees the first's intent, and leaves what it names, or the intent came later than the condemned list:
then the first finds the list, or finds what was on it gone, and takes other pieces. A list is acted upon by its writer
alone, who may have stood still for any time; while it is there nobody relies on what is on it. One whose writer has
died goes when nothing of it is left. Since names are never used twice, a late deletion hits nothing.

Unnamed pieces of an interrupted backup are what the next one need not send, so they are left for a day, by the clock of
the store, and so are intents.
"""

from __future__ import annotations

import hashlib
import re
import secrets
from collections.abc import Iterable
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from typing import Any, NamedTuple

import msgspec

from vecdb.errors import AlreadyExists, Corruption, PermissionDenied, Unavailable
from vecdb.replication.objects import Bucket
from vecdb.storage.kv.history import History

FORMAT = 1
PIECE_BYTES_MAX = 8 << 20
_MANIFEST_BYTES_MAX = 1 << 30
_LEFT_S = 86_400.0
_UUID = r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}"
_KEY = re.compile(rf"backups/manifests/({_UUID})/([0-9]{{8}}T[0-9]{{6}}\.[0-9]{{6}})Z-([0-9]{{16,20}})-[0-9a-f]{{8}}")
_PIECE = re.compile(r"([0-9a-f]{64})-[0-9a-f]{16}")
_TIME = "%Y%m%dT%H%M%S.%f"

Pieces = dict[str, int]  # name -> bytes


class BackedUpFile(msgspec.Struct, frozen=True):
    """pieces : (name, bytes), one behind the other.   witness : what the file was known by where it was copied."""

    bytes: int
    pieces: tuple[tuple[str, int], ...]
    witness: str = ""


class BackupManifest(msgspec.Struct, frozen=True):
    """sequence : the newest commit that is in it.   manifest : that of the directory.   files : by path in it."""

    format: int
    database: str
    sequence: int
    time: str
    history: History
    manifest: dict[str, Any]
    files: dict[str, BackedUpFile]

    def pieces(self) -> Pieces:
        return {name: size for file in self.files.values() for name, size in file.pieces}

    @property
    def bytes(self) -> int:
        """Of the database as it would be restored."""
        return sum(file.bytes for file in self.files.values())


class BackupKey(NamedTuple):
    """A backup as its key tells of it. In the order of time."""

    time: datetime
    sequence: int
    key: str
    bytes: int  # of the manifest

    @property
    def database(self) -> str:
        return self.key.split("/")[2]

    def __str__(self) -> str:
        return f"commit {self.sequence} ({self.time.isoformat(timespec='seconds')})"


def all_backups(bucket: Bucket) -> list[BackupKey]:
    """Of all databases, the oldest first."""
    return _backups(bucket, "backups/manifests")


def read_manifest(bucket: Bucket, backup: BackupKey) -> BackupManifest | None:
    """None where it has been removed. Raises Corruption, Unavailable where its format is newer."""
    where = f"{bucket.url}: {backup.key}"
    if backup.bytes > _MANIFEST_BYTES_MAX:
        raise Corruption(f"{where}: {backup.bytes:,} bytes, a manifest has at most {_MANIFEST_BYTES_MAX:,}")
    raw = bucket.get(backup.key)
    if raw is None:
        return None
    found = _decoded(raw, where)
    if (found.database, found.sequence) != (backup.database, backup.sequence):
        raise Corruption(f"{where}: it is of another backup: of {found.database}, commit {found.sequence}")
    return found


class BackupFolder:
    """What one database has in a bucket. One caller at a time; any number of them on different machines."""

    def __init__(self, bucket: Bucket, database: str) -> None:
        self.bucket = bucket
        self.database = database

    def backups(self) -> list[BackupKey]:
        """The oldest first."""
        return _backups(self.bucket, f"backups/manifests/{self.database}")

    def pieces(self) -> Pieces:
        """All that are there and may be relied on."""
        condemned = self.condemned()  # first: what is condemned later is found at the end
        return {name: size for name, size in self._pieces().items() if name not in condemned}

    def _pieces(self) -> Pieces:
        found = ((key.rpartition("/")[2], size) for key, size in self.bucket.list(f"backups/pieces/{self.database}"))
        return {name: size for name, size in found if _PIECE.fullmatch(name)}

    def condemned(self) -> set[str]:
        """Names of pieces that somebody is removing."""
        names: set[str] = set()
        for key, _ in self.bucket.list(f"backups/condemned/{self.database}"):
            names.update((self.bucket.get(key) or b"").decode("ascii", "replace").split())
        return names

    def put_piece(self, data: memoryview, sha256: str) -> str:
        """Send a piece; returns its name."""
        name = f"{sha256}-{secrets.token_hex(8)}"
        self.bucket.put(self.piece_key(name), data)
        return name

    def piece_key(self, name: str) -> str:
        return f"backups/pieces/{self.database}/{name}"

    def finish(self, made: BackupManifest) -> BackupKey | None:
        """Make it a backup. None where somebody has removed pieces of it, or is about to: they are to be sent anew."""
        raw, pieces, now = _encoded(made), made.pieces(), datetime.fromisoformat(made.time)
        intent = self._key("intents")
        self.bucket.create(intent, raw)
        try:
            there = self.pieces()
            if any(there.get(name) != size for name, size in pieces.items()):
                return None
            nonce = intent.rpartition("/")[2][:8]
            key = f"backups/manifests/{self.database}/{now.strftime(_TIME)}Z-{made.sequence:016d}-{nonce}"
            try:
                self.bucket.create(key, raw)
            except AlreadyExists:  # by a request that was repeated: the nonce is this call's
                if self.bucket.get(key) != raw:
                    raise
            return BackupKey(now, made.sequence, key, len(raw))
        finally:
            with suppress(PermissionDenied, Unavailable):  # it goes with a later backup
                self.bucket.delete([intent])

    # -- what goes ---------------------------------------------------------------------------------

    def keep_newest(self, keep: int) -> None:
        """Remove all backups but the newest, and the pieces that none of the others needs."""
        backups = self.backups()
        older = backups[:-keep]
        doomed: set[str] = set()
        for backup in older:
            with suppress(
                Corruption, Unavailable
            ):  # what cannot be read names nothing; its pieces go when they are old
                found = read_manifest(self.bucket, backup)
                doomed.update(found.pieces() if found is not None else ())
        self.bucket.delete([backup.key for backup in older])
        now = max((one.modified for one in self.bucket.entries(f"backups/manifests/{self.database}")), default=0.0)
        self._remove_old_intents(now)
        named = self._named()
        unnamed = [
            name
            for one in self.bucket.entries(f"backups/pieces/{self.database}")
            if (name := one.key.rpartition("/")[2]) not in named and (name in doomed or one.modified < now - _LEFT_S)
        ]
        self._remove_pieces(unnamed)
        self._remove_left_lists()

    def _remove_pieces(self, names: list[str]) -> None:
        if not names:
            return
        condemned = self._key("condemned")
        self.bucket.create(condemned, "\n".join(names).encode())
        named = self._named()
        self.bucket.delete([self.piece_key(name) for name in names if name not in named])
        self.bucket.delete([condemned])

    def _named(self) -> set[str]:
        """Pieces that a backup needs, or one that is about to be whole."""
        names: set[str] = set()
        for folder in ("intents", "manifests"):  # in this order: an intent goes once its manifest is there
            for key, _ in self.bucket.list(f"backups/{folder}/{self.database}"):
                raw = self.bucket.get(key)
                if raw is not None:
                    names.update(_decoded(raw, f"{self.bucket.url}: {key}").pieces())
        return names

    def _remove_old_intents(self, now: float) -> None:
        intents = self.bucket.entries(f"backups/intents/{self.database}")
        self.bucket.delete([one.key for one in intents if one.modified < now - _LEFT_S])

    def _remove_left_lists(self) -> None:
        """Lists of others who have died: they go when nothing on them is left."""
        there = self._pieces()
        for key, _ in list(self.bucket.list(f"backups/condemned/{self.database}")):
            names = (self.bucket.get(key) or b"").decode("ascii", "replace").split()
            if not any(name in there for name in names):
                self.bucket.delete([key])

    def _key(self, folder: str) -> str:
        return f"backups/{folder}/{self.database}/{secrets.token_hex(8)}"


def sha256_of(name: str) -> str | None:
    """What a piece of that name must hold; None where it is no such name."""
    match = _PIECE.fullmatch(name)
    return None if match is None else match[1]


def later_than(backups: Iterable[BackupKey]) -> datetime:
    """Now; but later than these, should their clock have been ahead."""
    now = datetime.now(UTC)
    newest = max((backup.time for backup in backups), default=now)
    return now if now > newest else newest + timedelta(milliseconds=1)


def _backups(bucket: Bucket, folder: str) -> list[BackupKey]:
    found = []
    for key, size in bucket.list(folder):
        match = _KEY.fullmatch(key)
        if match is not None:
            with suppress(ValueError):  # a time that is none
                time = datetime.strptime(match[2], _TIME).replace(tzinfo=UTC)
                found.append(BackupKey(time, int(match[3]), key, size))
    return sorted(found)


def _encoded(made: BackupManifest) -> bytes:
    body = msgspec.json.encode(made)
    return hashlib.sha256(body).hexdigest().encode() + b"\n" + body


def _decoded(raw: bytes, where: str) -> BackupManifest:
    digest, _, body = raw.partition(b"\n")
    if hashlib.sha256(body).hexdigest().encode() != digest:
        raise Corruption(f"{where}: its checksum is not that of what it holds")
    try:
        version = msgspec.json.decode(body, type=dict[str, Any]).get("format")
        if isinstance(version, int) and version > FORMAT:
            raise Unavailable(f"{where} has format {version}, this vecdb reads {FORMAT}; upgrade vecdb")
        return msgspec.json.decode(body, type=BackupManifest)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise Corruption(f"{where}: not the manifest of a backup ({error})") from None
