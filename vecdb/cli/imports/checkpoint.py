"""ImportCheckpoint: the file that says how far an import is.

    {"source": {path, size, mtime_ns or stamp, columns}, "rows": rows written, "last_id": id of the last of them,
     "owner": its owner, "first_id": of ids that vecdb made, the first}

It is DB.import-COLLECTION.json, beside the database and not within it (if the database is a server: beside FILE, with
the address in the name). The next run of the same command continues from there if the file is the same and that last
record exists. A batch that was written but not noted is written again, which changes nothing. Where it cannot be
written the import goes on without it.
"""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import vecdb
from vecdb.errors import InvalidArgument
from vecdb.wire.addresses import is_remote


class ImportCheckpoint:
    """files : a path or several; None, or a pipe among them: nothing is noted, for nothing can be read again.

    columns : of the options, those that change which rows there are.   stamp : equal as long as the data are the same,
    where they say so themselves, as directories of other databases do; None: files' sizes and times say it.
    """

    def __init__(
        self,
        db: str,
        collection: str,
        files: Path | Sequence[Path] | None,
        columns: Sequence[str | None],
        stamp: list[Any] | None = None,
    ) -> None:
        paths = [files] if isinstance(files, Path) else list(files or ())
        self.path: Path | None = None
        self.source: dict[str, Any] = {}
        if not paths or not all(path.is_file() or (stamp is not None and path.is_dir()) for path in paths):
            return
        beside = paths[0].with_name(f"{paths[0].name}.{_safe(db)}") if is_remote(db) else Path(os.path.abspath(db))
        self.path = beside.with_name(f"{beside.name}.import-{_safe(collection)}.json")
        facts = [path.stat() for path in paths]
        many = len(paths) > 1
        self.source = {
            "collection": collection,
            "path": [str(path.resolve()) for path in paths] if many else str(paths[0].resolve()),
            "columns": list(columns),
        }
        if stamp is not None:
            self.source["stamp"] = json.loads(json.dumps(stamp))  # as it will be read again
            return
        self.source |= {
            "size": [one.st_size for one in facts] if many else facts[0].st_size,
            "mtime_ns": [one.st_mtime_ns for one in facts] if many else facts[0].st_mtime_ns,
        }

    def resume_at(self, docs: vecdb.Collection) -> tuple[int, int | None]:
        """(rows that an earlier run of the same import has written, the first of the ids that it made).

        A file that has changed since is imported from the start, under the same ids: what the run that did not end had
        written of it is replaced.
        """
        if self.path is None:
            return 0, None
        try:
            saved = json.loads(self.path.read_text(encoding="utf-8"))
            first_id = int(saved.get("first_id") or 0)
            if saved["source"] == self.source:
                rows = int(saved["rows"])
                if rows == 0 or docs.get([saved["last_id"]], owner=saved.get("owner", ""))[0] is not None:
                    return rows, first_id
            elif saved["source"]["path"] == self.source["path"]:
                return 0, first_id
        except (OSError, ValueError, KeyError, TypeError, AttributeError, InvalidArgument):
            pass
        return 0, None

    def write(self, rows: int, last_id: int | str | None, first_id: int | None = None, owner: str = "") -> bool:
        """Replace the file as a whole. It need not be synced: with an older one some batches are only written again.

        Returns whether that went well; once it did not, nothing more is noted.
        """
        if self.path is None:
            return True
        fresh = self.path.with_name(self.path.name + ".tmp")
        note = {"source": self.source, "rows": rows, "last_id": last_id, "first_id": first_id, "owner": owner}
        try:
            fresh.write_text(json.dumps(note), encoding="utf-8")
            os.replace(fresh, self.path)
        except OSError:
            self.path = None
            return False
        return True

    def done(self) -> None:
        if self.path is not None:
            self.path.unlink(missing_ok=True)


def _safe(name: str) -> str:
    """The name with every character replaced that file names may not have."""
    return "".join(c if c.isalnum() or c in "-_." else "_" for c in name)
