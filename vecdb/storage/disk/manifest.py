"""`manifest.json`: the format of a database directory. Written when the database is created, replaced by an upgrade.

    {"format_version": 2, "lmdb_format": "0.9", "uuid": "...", "created": "2026-01-31T12:00:00+00:00",
     "engine": "0.1.0"}

Code of format n converts format n - 1 when it is told to (`vecdb.upgrade`), refuses every other format, and writes
nothing into a directory whose format it does not know.

    2   adds the journal of access lists; format 1 has none, and needs no other conversion
"""

from __future__ import annotations

from pathlib import Path

import msgspec

from vecdb.errors import Corruption, Unavailable
from vecdb.storage.disk import filesystem

FORMAT_VERSION = 2
NAME = "manifest.json"
_BYTES_MAX = 1 << 16


class Manifest(msgspec.Struct, frozen=True, forbid_unknown_fields=False):
    format_version: int
    lmdb_format: str
    uuid: str
    created: str


def write(folder: Path, manifest: Manifest) -> None:
    filesystem.write_atomic(folder / NAME, [msgspec.json.format(msgspec.json.encode(manifest)) + b"\n"])


def upgrade(folder: Path, found: Manifest) -> Manifest:
    """Write this version into the manifest, once the directory holds all that this version needs."""
    if found.format_version < FORMAT_VERSION:
        found = msgspec.structs.replace(found, format_version=FORMAT_VERSION)
        write(folder, found)
    return found


def read(folder: Path, lmdb_format: str, *, upgrading: bool = False) -> Manifest:
    """Read and check. Raises `Corruption` on a damaged manifest and `Unavailable` on any format but this version's, or
    with `upgrading` the one before.
    """
    path = folder / NAME
    raw = filesystem.read_bytes(path, _BYTES_MAX)
    try:
        manifest = msgspec.json.decode(raw, type=Manifest)
    except (msgspec.DecodeError, msgspec.ValidationError, UnicodeDecodeError, RecursionError) as error:
        raise Corruption(f"{path}: not a vecdb manifest ({error}); restore it from a backup") from None
    if manifest.format_version > FORMAT_VERSION:
        raise Unavailable(
            f"{folder} has format {manifest.format_version}, this vecdb reads up to {FORMAT_VERSION}; upgrade vecdb"
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
