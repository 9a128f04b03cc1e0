"""What this directory is: `manifest.json`, written once when the database is created, replaced only by an upgrade.

    {"format_version": 1, "lmdb_format": "0.9", "uuid": "...", "created": "2026-01-31T12:00:00+00:00", "engine":
    "0.1.0"}

Version n opens n - 1 by an explicit upgrade, refuses n + 1, and writes nothing into a directory that it does not
understand.
"""

from __future__ import annotations

from pathlib import Path

import msgspec

from vecdb.errors import Corruption, Unavailable
from vecdb.storage import files

FORMAT_VERSION = 1
NAME = "manifest.json"


class Manifest(msgspec.Struct, frozen=True, forbid_unknown_fields=False):
    format_version: int
    lmdb_format: str
    uuid: str
    created: str


def write(folder: Path, manifest: Manifest) -> None:
    files.write_atomic(folder / NAME, [msgspec.json.format(msgspec.json.encode(manifest)) + b"\n"])


def read(folder: Path, lmdb_format: str) -> Manifest:
    """Read and check. Raises `Corruption` on a damaged manifest and `Unavailable` on a format this version cannot
    open.
    """
    path = folder / NAME
    raw = files.read_bytes(path)
    try:
        manifest = msgspec.json.decode(raw, type=Manifest)
    except (msgspec.DecodeError, msgspec.ValidationError, UnicodeDecodeError) as error:
        raise Corruption(f"{path}: not a vecdb manifest ({error}); restore it from a backup") from None
    if manifest.format_version > FORMAT_VERSION:
        raise Unavailable(
            f"{folder} has format {manifest.format_version}, this vecdb reads up to {FORMAT_VERSION}; upgrade vecdb"
        )
    if manifest.lmdb_format != lmdb_format:
        raise Unavailable(
            f"{folder} was written with LMDB format {manifest.lmdb_format}, this vecdb uses {lmdb_format}"
        )
    return manifest
