"""Goal: a directory of a newer or unknown format is refused and left as it is; a damaged manifest is named."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

import vecdb
from vecdb.errors import Corruption, Unavailable
from vecdb.storage.disk import manifest
from vecdb.storage.disk.manifest import Manifest
from vecdb.storage.kv.store import LMDB_FORMAT

GOOD = Manifest(manifest.FORMAT_VERSION, LMDB_FORMAT, "u", "2026-01-01T00:00:00+00:00")


def changed(folder: Path, **changes: Any) -> None:
    path = folder / manifest.NAME
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def test_a_manifest_is_read_back_as_written(tmp_path: Path) -> None:
    manifest.write(tmp_path, GOOD)
    assert manifest.read(tmp_path, LMDB_FORMAT) == GOOD
    changed(tmp_path, added_by_a_later_release=1)
    assert manifest.read(tmp_path, LMDB_FORMAT) == GOOD


def test_a_newer_version_is_refused_by_number(tmp_path: Path) -> None:
    manifest.write(tmp_path, GOOD)
    for version in range(manifest.FORMAT_VERSION, manifest.NEWEST_VERSION + 1):
        changed(tmp_path, format_version=version)
        assert manifest.read(tmp_path, LMDB_FORMAT).format_version == version
    changed(tmp_path, format_version=manifest.NEWEST_VERSION + 1)
    with pytest.raises(Unavailable, match=f"has format {manifest.NEWEST_VERSION + 1}.*upgrade vecdb"):
        manifest.read(tmp_path, LMDB_FORMAT)


def test_a_version_is_raised_and_never_lowered(tmp_path: Path) -> None:
    manifest.write(tmp_path, GOOD)
    for version in (manifest.FIELD_CHANGES, manifest.FORMAT_VERSION, manifest.FIELD_CHANGES):
        manifest.raise_to(tmp_path, version)
        found = manifest.read(tmp_path, LMDB_FORMAT)
        assert found == Manifest(manifest.FIELD_CHANGES, LMDB_FORMAT, GOOD.uuid, GOOD.created)
        assert manifest.upgrade(tmp_path, found) == found


def test_older_ones_are_refused_and_the_one_before_is_unless_it_is_upgraded(tmp_path: Path) -> None:
    manifest.write(tmp_path, GOOD)
    changed(tmp_path, format_version=manifest.FORMAT_VERSION - 1)
    with pytest.raises(Unavailable, match="vecdb upgrade"):
        manifest.read(tmp_path, LMDB_FORMAT)
    assert manifest.upgrade(tmp_path, manifest.read(tmp_path, LMDB_FORMAT, upgrading=True)) == GOOD
    assert manifest.read(tmp_path, LMDB_FORMAT) == GOOD
    changed(tmp_path, format_version=manifest.FORMAT_VERSION - 2)
    with pytest.raises(Unavailable, match="in between"):
        manifest.read(tmp_path, LMDB_FORMAT, upgrading=True)


def test_there_is_nothing_to_upgrade_where_there_is_no_database(tmp_path: Path) -> None:
    with pytest.raises(vecdb.NotFound):
        vecdb.upgrade(tmp_path / "none")
    assert not (tmp_path / "none").exists()
    for bad in ("", 3, None, "a\0b"):
        with pytest.raises(vecdb.InvalidArgument):
            vecdb.upgrade(bad)  # type: ignore[arg-type]


def test_another_lmdb_format_is_refused(tmp_path: Path) -> None:
    manifest.write(tmp_path, GOOD)
    changed(tmp_path, lmdb_format="1.0")
    with pytest.raises(Unavailable, match=r"LMDB format 1\.0"):
        manifest.read(tmp_path, LMDB_FORMAT)


@pytest.mark.parametrize("raw", [b"", b"{", b"[]", b"{}", b"\xff\xfe", b'{"format_version": "1"}', b"null"], ids=repr)
def test_a_damaged_manifest_is_corruption_and_named(tmp_path: Path, raw: bytes) -> None:
    (tmp_path / manifest.NAME).write_bytes(raw)
    with pytest.raises(Corruption, match=r"manifest\.json"):
        manifest.read(tmp_path, LMDB_FORMAT)


def test_opening_a_newer_database_writes_nothing_into_it(tmp_path: Path) -> None:
    path = tmp_path / "db"
    vecdb.open(path).close()
    changed(path, format_version=99)

    def contents() -> dict[str, bytes]:
        return {
            str(file): file.read_bytes() for file in sorted(path.rglob("*")) if file.is_file() and file.name != "LOCK"
        }

    before = contents()
    for read_only in (False, True):
        with pytest.raises(Unavailable, match="format 99"):
            vecdb.open(path, read_only=read_only)
    assert contents() == before
    changed(path, format_version=manifest.FORMAT_VERSION)
    vecdb.open(path).close()  # the refusals let go of the lock
