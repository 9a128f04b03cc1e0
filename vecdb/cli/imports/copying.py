"""Copies rows of a file into a collection, batch after batch, and notes how far it is."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import vecdb
from vecdb.cli.imports.checkpoint import ImportCheckpoint
from vecdb.cli.imports.rows import ImportRows, RowReader
from vecdb.errors import InvalidArgument
from vecdb.schema import CollectionConfig

Report = Callable[[int, int], None]


class Copying:
    """One import. made_ids : the first id, where the file has none; else None.   note : says a word to people."""

    def __init__(
        self,
        docs: vecdb.Collection,
        reader: RowReader,
        checkpoint: ImportCheckpoint,
        made_ids: int | None,
        note: Callable[[str], None],
    ) -> None:
        self._docs, self._reader, self._checkpoint = docs, reader, checkpoint
        self._made_ids, self._note = made_ids, note
        self._config: CollectionConfig = docs.config
        self.written = 0

    def run(self, first: int, stop: int, step: int, report: Report) -> None:
        """Rows [first, stop) of the file."""
        report(first, stop)
        if first == 0 and self._made_ids is not None:
            self._say_if(not self._checkpoint.write(0, None, self._made_ids))
        for start in range(first, stop, step):
            end = min(stop, start + step)
            rows = self._reader.read(start, end, self._made_ids or 0)
            last = self._write(rows)
            if last is not None:
                owner, id = last
                noted = self._checkpoint.write(end, id if isinstance(id, str) else int(id), self._made_ids, owner)
                self._say_if(not noted)
            report(end, stop)

    def _say_if(self, failed: bool) -> None:
        if failed:
            self._note("the folder cannot be written: should this import end early, the next begins anew")

    def _write(self, rows: ImportRows) -> tuple[str, Any] | None:
        """Write records; (owner, id) of the last of them, None where none was left."""
        last = None
        for owner, part in rows.by_owner():
            last = self._write_part(part, owner) or last
        return last

    def _write_part(self, rows: ImportRows, owner: str) -> tuple[str, Any] | None:
        if not len(rows):
            return None
        more: dict[str, Any] = {"owner": owner} if owner else {}
        try:
            self._docs.upsert(rows.ids, rows.vectors, fields=rows.fields, tenants=rows.tenants, **more)
        except InvalidArgument as error:
            return self._write_less(rows, owner, error)
        self.written += len(rows)
        return owner, rows.ids[-1]

    def _write_less(self, rows: ImportRows, owner: str, error: InvalidArgument) -> tuple[str, Any] | None:
        """Write a batch that was refused without the rows that are bad, or, where it is merely too large, by halves."""
        if self._config.id_kind is None:
            self._config = self._docs.config
        try:
            good = self._reader.without_bad(rows, self._config, error)
        except InvalidArgument as found:
            if found is not error or len(rows) == 1:
                raise
            half = len(rows) // 2
            first = self._write_part(rows.take(slice(0, half)), owner)
            return self._write_part(rows.take(slice(half, None)), owner) or first
        return self._write_part(good, owner)
