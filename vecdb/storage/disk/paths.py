"""Names of a collection's folder and row files.

<database>/collections/<uid, 8 hex digits>/rows.<generation>
"""

from __future__ import annotations

from pathlib import Path


def collection_folder(database: Path, uid: int) -> Path:
    return database / "collections" / f"{uid:08x}"


def row_file_name(generation: int) -> str:
    return f"rows.{generation}"
