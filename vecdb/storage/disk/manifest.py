"""`manifest.json`: the format of a database directory. Written when the database is made, replaced when it is raised.

    {"format_version": 2, "lmdb_format": "0.9", "uuid": "...", "created": "2026-01-31T12:00:00+00:00",
     "engine": "0.1.0"}

Format 1 is converted when somebody says so (`vecdb.upgrade`). A directory of a format that this code does not know is
refused, and nothing is written into it.

    2   adds the journal of access lists; format 1 has none, and needs no other conversion
    3   a record's fields may have changed since its block was written. A new database has format 2; the first such
        change raises it, before it is committed, so that code that would not see changes refuses them. The manifest
        is read at open: a process of such code that reads at that moment goes on, and does not see them
    4   a record may have no vector. The first such record raises the format, in the same way
    5   a collection may have vectors of bits. The first such collection raises the format, in the same way
"""

from __future__ import annotations

from pathlib import Path

import msgspec

from vecdb.errors import Corruption, Unavailable
from vecdb.storage.disk import filesystem

FORMAT_VERSION = 2  # of a new database, and of one that was upgraded
FIELD_CHANGES = 3
BARE_RECORDS = 4
BIT_VECTORS = 5
NEWEST_VERSION = 5
NAME = "manifest.json"
_BYTES_MAX = 1 << 16


class Manifest(msgspec.Struct, frozen=True, forbid_unknown_fields=False):
    format_version: int
    lmdb_format: str
    uuid: str
    created: str


def write(folder: Path, manifest: Manifest, *, sync: bool = True) -> None:
    filesystem.write_atomic(folder / NAME, [msgspec.json.format(msgspec.json.encode(manifest)) + b"\n"], sync=sync)


def upgrade(folder: Path, found: Manifest) -> Manifest:
    """Make a directory of format 1 one of format 2, once it holds all that this needs."""
    return raise_to(folder, FORMAT_VERSION, found)


def raise_to(folder: Path, version: int, found: Manifest | None = None, *, sync: bool = True) -> Manifest:
    """Give the directory at least that format. found : its manifest, read where it is None. Raises OSError."""
    found = found or _decoded(folder)
    if found.format_version < version:
        found = msgspec.structs.replace(found, format_version=version)
        write(folder, found, sync=sync)
    return found


def read(folder: Path, lmdb_format: str, *, upgrading: bool = False) -> Manifest:
    """Read and check. Raises `Corruption` on a damaged manifest and `Unavailable` on any format but those that this
    version reads, or with `upgrading` the one before.
    """
    manifest = _decoded(folder)
    if manifest.format_version > NEWEST_VERSION:
        raise Unavailable(
            f"{folder} has format {manifest.format_version}, this vecdb reads up to {NEWEST_VERSION}; upgrade vecdb"
        )
    if manifest.format_version < FORMAT_VERSION - 1:
        raise Unavailable(
            f"{folder} has format {manifest.format_version}, this vecdb upgrades from {FORMAT_VERSION - 1}; upgrade it "
            "with the vecdb releases in between"
        )
    if manifest.format_version < FORMAT_VERSION and not upgrading:
        raise Unavailable(
            f"{folder} has format {manifest.format_version}, this vecdb reads {FORMAT_VERSION}; upgrade it by "
            "vecdb.upgrade(path) or `vecdb upgrade`, after which older versions cannot open it"
        )
    if manifest.lmdb_format != lmdb_format:
        raise Unavailable(
            f"{folder} was written with LMDB format {manifest.lmdb_format}, this vecdb uses {lmdb_format}"
        )
    return manifest


def _decoded(folder: Path) -> Manifest:
    path = folder / NAME
    raw = filesystem.read_bytes(path, _BYTES_MAX)
    try:
        return msgspec.json.decode(raw, type=Manifest)
    except (msgspec.DecodeError, msgspec.ValidationError, UnicodeDecodeError, RecursionError) as error:
        raise Corruption(f"{path}: not a vecdb manifest ({error}); restore it from a backup") from None
