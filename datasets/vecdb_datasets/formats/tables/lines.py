"""Lines of a UTF-8 text. One pass at opening counts the rows and notes every 1,024th row's place; reads seek there."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from vecdb import Corruption, InvalidArgument, VecdbError

from ..inputs import InputFile
from .table import TableSource, Window

mark_rows = 1_024
line_bytes_max = 16 << 20

Place = tuple[int, int]  # byte offset, lines before it


class Lines:
    """The lines of a UTF-8 file from a place on; `place` is where the next line starts."""

    def __init__(self, file: InputFile, place: Place) -> None:
        self.name = file.name
        self.place = place
        self._handle = open(file.path, "rb")  # noqa: SIM115 - closed by close(), or at the end
        self._handle.seek(place[0])

    def __iter__(self) -> Lines:
        return self

    def __next__(self) -> str:
        raw = self._handle.readline(line_bytes_max + 1)
        if not raw:
            self._handle.close()
            raise StopIteration
        offset, line = self.place
        if len(raw) > line_bytes_max:
            raise InvalidArgument(f"{self.name}: line {line + 1} is longer than {line_bytes_max:,} bytes")
        self.place = (offset + len(raw), line + 1)
        try:
            return raw.decode("utf-8-sig" if offset == 0 else "utf-8")
        except UnicodeDecodeError as error:
            raise Corruption(
                f"{self.name}: line {line + 1} (byte {offset + error.start}) is not UTF-8: say what it is "
                "with encoding=, such as latin-1"
            ) from error

    def close(self) -> None:
        self._handle.close()


class TextSource(TableSource):
    """What texts share: marks, and rows parsed from a mark on."""

    file: InputFile
    _marks: list[Place]
    _numbered = True  # whether the lines are those of the caller's file

    def _records(self, lines: Lines) -> Iterator[tuple[Place, Any]]:
        """Yield (place of the record, record, or the VecdbError of one that cannot be read)."""
        raise NotImplementedError

    def _parse(self, start: int, stop: int) -> Window:
        lines = Lines(self.file, self._marks[start // mark_rows])
        try:
            places, records, row = [], [], start - start % mark_rows
            for place, record in self._records(lines):
                if row >= start:
                    places.append(place[1] + 1)
                    records.append(record)
                row += 1
                if row == stop:
                    break
        finally:
            lines.close()
        if len(records) != stop - start:
            raise Corruption(f"{self.path}: expected {stop - start} rows from row {start} on, found {len(records)}")
        bad = {start + at: one for at, one in enumerate(records) if isinstance(one, VecdbError)}
        return self._convert(start, places, records, bad)

    def _convert(self, start: int, places: list[int], records: list[Any], bad: dict[int, VecdbError]) -> Window:
        """Records of rows [start, ...) as a window. places : their lines.   bad : those that are errors, and why."""
        raise NotImplementedError

    def _line(self, places: list[int], at: int) -> int | None:
        return places[at] if self._numbered else None

    def line_of(self, row: int) -> str:
        if not self._numbered or not 0 <= row < len(self):
            return ""
        lines = Lines(self.file, self._marks[row // mark_rows])
        try:
            for at, (place, _) in enumerate(self._records(lines)):
                if at == row % mark_rows:
                    return f"line {place[1] + 1}: "
        finally:
            lines.close()
        return ""

    def close(self) -> None:
        self.file.close()
