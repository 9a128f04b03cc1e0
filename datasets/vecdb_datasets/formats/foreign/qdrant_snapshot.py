"""A snapshot of a Qdrant server, of a collection or of one shard of it, read by qdrant-edge-py.

    segments/ ...       a shard            0/segments/ ...  1/segments/ ...       a collection

It is unpacked into a temporary folder (TMPDIR), shard by shard, where Qdrant's own code opens it: none that has links,
or names that lead out of that folder. Qdrant keeps vectors of cosine at unit length: that is how they come.
"""

from __future__ import annotations

import json
import pathlib
import re
import tarfile
import tempfile
from bisect import bisect_right
from collections import deque
from collections.abc import Iterator
from typing import Any

from vecdb import Corruption

from ..inputs import InputFile
from ..optional import optional_module
from ..tables.columns import Choice
from ..tables.table import Window
from .qdrant import QdrantSource
from .rows import CollectionSource

page_rows = 1_024
_OF_A_SHARD = re.compile(r"(?:\./)?([0-9]+)/+([^/].*)")


class SnapshotSource(QdrantSource):
    """An open snapshot."""

    def __init__(self, file: InputFile, check_finite: bool, choice: Choice) -> None:
        self.path, self.losses, self._base = file.name, {}, None
        self._file = file
        self._edge = optional_module("qdrant_edge", f"{file.name} is a snapshot of Qdrant: reading it", "qdrant")
        self._unpacked: Any = tempfile.TemporaryDirectory(prefix="vecdb-snapshot-")
        self._shards: list[Any] = []
        try:
            folders = self._unpack(pathlib.Path(self._unpacked.name))
            dim = self._settle_vector(choice.vector, self._config(folders[0]))
            if self.metric == "cosine":
                self.losses["lengths of vectors"] = "Qdrant keeps those of Cosine at length 1"
            self._shards = [self._edge.EdgeShard.load(str(folder)) for folder in folders]
            count = self._find_pages()
            self.field_columns = self._fields_there(choice)
        except BaseException as error:
            self.close()
            if type(error) is Exception:  # what qdrant-edge-py raises
                raise Corruption(f"{file.name}: Qdrant cannot read it ({error})") from error
            raise
        self._settle(file.name, "snapshot", (count, dim), check_finite, choice)

    def _unpack(self, folder: pathlib.Path) -> list[pathlib.Path]:
        """The folders of shards."""
        try:
            with tarfile.open(self._file.path) as archive:
                found = (_OF_A_SHARD.fullmatch(name) for name in self._names_within(archive))
                numbers = sorted({int(one[1]) for one in found if one is not None and one[2].startswith("segments")})
            for number in numbers:
                self._part(number, folder / f"{number}.tar")
        except (tarfile.TarError, OSError, EOFError) as error:
            raise Corruption(f"{self.path}: its archive cannot be read ({error})") from error
        archives = [folder / f"{number}.tar" for number in numbers] or [pathlib.Path(self._file.path)]
        folders = []
        for at, part in enumerate(archives):
            folders.append(folder / f"shard-{at}")
            self._edge.EdgeShard.unpack_snapshot(str(part), str(folders[-1]))
            if numbers:
                part.unlink()
        return folders

    def _names_within(self, archive: tarfile.TarFile, *, of_segment: bool = False) -> Iterator[str]:
        """The names of members, which are files and folders within; those of archives of segments are checked, too."""
        for member in archive:
            path = pathlib.PurePosixPath(member.name)
            if not (member.isfile() or member.isdir()) or path.is_absolute() or ".." in path.parts:
                raise Corruption(f"{self.path}: its member {member.name[:200]!r} is a link, or leads out of it")
            yield member.name
            if member.isfile() and path.suffix == ".tar" and not of_segment:
                with tarfile.open(fileobj=archive.extractfile(member), mode="r:") as inner:
                    deque(self._names_within(inner, of_segment=True), maxlen=0)

    def _part(self, number: int, path: pathlib.Path) -> None:
        """The archive of one shard, out of that of its collection."""
        with tarfile.open(self._file.path) as archive, tarfile.open(path, "w") as sink:
            for member in archive:
                of = _OF_A_SHARD.fullmatch(member.name)
                if of is not None and int(of[1]) == number:
                    member.name = of[2]
                    sink.addfile(member, archive.extractfile(member))

    def _config(self, folder: pathlib.Path) -> dict[str, Any]:
        """The vectors of a shard, as meta.json of the local mode has them."""
        try:
            file = next(iter(sorted(folder.glob("segments/*/segment.json"))))
            config = json.loads(file.read_text(encoding="utf-8"))["config"]
            vectors, sparse = config["vector_data"], config.get("sparse_vector_data") or {}
            return {"vectors": vectors[""] if list(vectors) == [""] else vectors, "sparse_vectors": sparse}
        except (StopIteration, OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise Corruption(f"{self.path}: no segment says what its vectors are ({type(error).__name__})") from error

    def _scroll(self, shard: int, first: Any, limit: int, *, whole: bool) -> Any:
        asked = self._edge.ScrollRequest(offset=first, limit=limit, with_payload=whole, with_vector=whole)
        return self._shards[shard].scroll(asked)

    def _find_pages(self) -> int:
        """Notes where pages begin; the number of points."""
        self._pages: list[tuple[int, Any, int]] = []  # shard, id of the first, points
        self._starts: list[int] = []
        count, kinds = 0, set()
        for shard in range(len(self._shards)):
            first = None
            while True:
                points, following = self._scroll(shard, first, page_rows, whole=False)
                if points:
                    self._starts.append(count)
                    self._pages.append((shard, points[0].id, len(points)))
                    kinds |= {isinstance(point.id, int) for point in points}
                    count += len(points)
                if following is None:
                    break
                first = following
        self._ids_as_text = len(kinds) > 1
        if self._ids_as_text:
            self.losses["ids as whole numbers"] = "the collection has UUIDs, too: all are text"
        return count

    def _fields_there(self, choice: Choice) -> list[str]:
        if choice.fields is not None:
            return list(choice.fields)
        points = self._scroll(0, None, page_rows, whole=True)[0] if self._pages else []
        return list(dict.fromkeys(name for point in points for name in point.payload or {}))

    def _parse(self, start: int, stop: int) -> Window:
        points: list[dict[str, Any]] = []
        at = start
        while at < stop:
            page = bisect_right(self._starts, at) - 1
            shard, first, count = self._pages[page]
            skip = at - self._starts[page]
            take = min(stop - at, count - skip)
            found = self._scroll(shard, first, count, whole=True)[0][skip : skip + take]
            if len(found) != take:
                raise Corruption(f"{self.path}: expected {take} points from row {at} on, found {len(found)}")
            points += [
                {"id": one.id if isinstance(one.id, int) else str(one.id), "vector": one.vector, "payload": one.payload}
                for one in found
            ]
            at += take
        return self._of_points(start, points, {})

    def close(self) -> None:
        CollectionSource.close(self)
        for shard in self._shards:
            shard.close()
        self._shards = []
        if self._unpacked is not None:
            self._unpacked.cleanup()
            self._unpacked = None
        self._file.close()
