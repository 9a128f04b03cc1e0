"""A collection in a directory of qdrant-client's local mode, QdrantClient(path=...), read without that package.

    meta.json                          collections, their vectors and distances
    collection/NAME/storage.sqlite     points(id TEXT, point BLOB); a point is a pickled PointStruct

qdrant-client unpickles the points, which runs whatever a foreign file says, holds all of them in memory, and changes
the files. Here they are read for their plain values alone (plain_pickle.py), batch after batch, and stay as they are.

Payload is fields. Ids are whole numbers or UUIDs; where a collection has both, all become text. A record of vecdb has
one vector: of several named ones `vector_column` says which.
"""

from __future__ import annotations

import base64
import contextlib
import json
import os
import pathlib
import sqlite3
import uuid
from typing import Any

import numpy as np

from vecdb import Corruption, InvalidArgument, NotFound

from ..tables.columns import Choice
from ..tables.table import Window
from .plain_pickle import ClassName, PlainObject, PlainPickle
from .rows import CollectionSource, choose

mark_rows = 1_024
sampled_rows = 100
_METRICS = {"Cosine": "cosine", "Euclid": "l2", "Dot": "ip"}
_CLASSES = frozenset(("PointStruct", "SparseVector"))
_PLAIN_INTS = ("gARL", "gARN", "gARK")  # how the base64 of a pickled int begins, if it is below 2**31
_QDRANT = "qdrant_client."


class QdrantSource(CollectionSource):
    """key : the collection; None: the only one."""

    def __init__(self, path: str, check_finite: bool, key: str | None, choice: Choice) -> None:
        self._base: Any = None
        self._marks: list[int]
        self.losses = {}
        config = _config(path)
        name = choose(path, "collection", key, sorted(config))
        folder = os.path.normpath(os.path.join(path, "collection", name))
        if os.path.dirname(folder) != os.path.normpath(os.path.join(path, "collection")):
            raise InvalidArgument(f"{path}: {name!r} is no name of a collection: it leads elsewhere")
        self.path = path
        dim = self._settle_vector(choice.vector, config[name])
        file = os.path.join(folder, "storage.sqlite")
        if not os.path.isfile(file):
            raise NotFound(f"{path}: collection {name!r} has no storage.sqlite")
        uri = pathlib.Path(os.path.abspath(file)).as_uri()
        try:
            self._base = sqlite3.connect(f"{uri}?mode=ro", uri=True)
            self._marks, count = [], 0
            for (row,) in self._base.execute("SELECT rowid FROM points ORDER BY rowid"):
                if count % mark_rows == 0:
                    self._marks.append(row)
                count += 1
            self._settle_ids()
            self.field_columns = self._fields_there(choice)
        except sqlite3.Error as error:
            self.close()
            raise Corruption(f"{file}: it cannot be read ({error})") from error
        except BaseException:
            self.close()
            raise
        facts = os.stat(file)
        self.stamp = [name, facts.st_size, facts.st_mtime_ns]
        self._settle(path, "qdrant", (count, dim), check_finite, choice)

    def _settle_vector(self, asked: str | None, config: dict[str, Any]) -> int:
        """Choose the vector; its dim."""
        vectors = config.get("vectors") or {}
        only = "size" in vectors
        names = [""] if only else sorted(vectors)
        self._name = (
            "" if only and asked in (None, "", "vector") else choose(self.path, "vector", asked, names, "vector_column")
        )
        self.vector_column = self._name or "vector"
        chosen = vectors if only else vectors[self._name]
        others = [f"vector {one!r}" for one in names if one != self._name]
        others += [f"sparse vector {one!r}" for one in sorted(config.get("sparse_vectors") or {})]
        for one in others:
            self.losses[one] = "a record of vecdb has one vector"
        if chosen.get("multivector_config"):
            raise InvalidArgument(
                f"{self.path}: vector {self.vector_column!r} is many vectors a point; vecdb stores one"
            )
        distance = chosen.get("distance")
        self.metric = _METRICS.get(str(distance))
        if self.metric is None:
            self.metric = "l2"
            self.losses[f"distance {distance}"] = "vecdb has l2, cosine and ip; l2 where none is named"
        try:
            return int(chosen["size"])
        except (KeyError, TypeError, ValueError):
            raise Corruption(f"{self.path}: meta.json does not say the size of vector {self.vector_column!r}") from None

    def _settle_ids(self) -> None:
        """Whether ids are of both kinds."""
        self._ids_as_text = False
        begins = dict(self._base.execute("SELECT substr(id, 1, 4), count(*) FROM points GROUP BY 1"))
        ints = any(begins.pop(one, 0) for one in _PLAIN_INTS)
        texts = False
        if begins:
            for (encoded,) in self._base.execute(
                "SELECT id FROM points WHERE substr(id, 1, 4) NOT IN (?, ?, ?)", _PLAIN_INTS
            ):
                with contextlib.suppress(ValueError, TypeError):
                    is_text = isinstance(PlainPickle(base64.b64decode(encoded), lambda _: False).value(), str)
                    ints, texts = ints or not is_text, texts or is_text
                if ints and texts:
                    break
        if ints and texts:
            self._ids_as_text = True
            self.losses["ids as whole numbers"] = "the collection has UUIDs, too: all are text"

    def _fields_there(self, choice: Choice) -> list[str]:
        """Names in the payload of the first points, and those that the caller names: payload has no schema."""
        names: dict[str, None] = {}
        for (raw,) in self._base.execute("SELECT point FROM points ORDER BY rowid LIMIT ?", (sampled_rows,)):
            with contextlib.suppress(ValueError):
                payload = _point(raw).get("payload")
                names.update(dict.fromkeys(payload if isinstance(payload, dict) else ()))
        return list(choice.fields) if choice.fields is not None else list(names)

    def _parse(self, start: int, stop: int) -> Window:
        mark = self._marks[start // mark_rows]
        try:
            found = self._base.execute(
                "SELECT point FROM points WHERE rowid >= ? ORDER BY rowid LIMIT ? OFFSET ?",
                (mark, stop - start, start % mark_rows),
            ).fetchall()
        except sqlite3.Error as error:
            raise Corruption(f"{self.path}: rows {start} to {stop} cannot be read ({error})") from error
        if len(found) != stop - start:
            raise Corruption(f"{self.path}: expected {stop - start} rows from row {start} on, found {len(found)}")
        points: list[dict[str, Any]] = []
        wrong: dict[int, str] = {}
        for at, (raw,) in enumerate(found):
            try:
                points.append(_point(raw))
            except ValueError as error:
                points.append({})
                wrong[at] = f": its point holds {error}"
        return self._of_points(start, points, wrong)

    def _of_points(self, start: int, points: list[dict[str, Any]], wrong: dict[int, str]) -> Window:
        """Points, each with id, vector and payload, as a window. wrong : those that are none, and why."""
        ids: list[Any] = []
        vectors: list[Any] = []
        fields: list[dict[str, Any]] = []
        for at, point in enumerate(points):
            vector = point.get("vector")
            if self._name and isinstance(vector, dict):
                vector = vector.get(self._name)
            if vector is None and at not in wrong:
                wrong[at] = f" has no vector {self.vector_column!r}"
            try:
                ids.append(self._id_of(point.get("id")))
            except ValueError as error:  # a number of thousands of digits
                ids.append(None)
                wrong[at] = f": its id is none ({error})"
            vectors.append(np.zeros(self.dim) if vector is None else vector)
            payload = point.get("payload")
            fields.append(payload if isinstance(payload, dict) else {})
        return self._made(start, ids, vectors, fields, wrong)

    def _id_of(self, id: Any) -> Any:
        if isinstance(id, str):
            with contextlib.suppress(ValueError):
                return str(uuid.UUID(id))  # one spelling, as qdrant has it
        return str(id) if self._ids_as_text and isinstance(id, int) else id

    def close(self) -> None:
        super().close()
        if self._base is not None:
            self._base.close()
            self._base = None


def _config(path: str) -> dict[str, Any]:
    """Collections and their configurations."""
    try:
        with open(os.path.join(path, "meta.json"), encoding="utf-8") as handle:
            found = json.load(handle)["collections"]
        if not isinstance(found, dict) or not all(isinstance(one, dict) for one in found.values()):
            raise ValueError("collections")
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise Corruption(f"{path}: its meta.json is damaged ({type(error).__name__}: {error})") from error
    return found


def _of_qdrant(found: ClassName) -> bool:
    return found.module.startswith(_QDRANT) and found.name in _CLASSES


def _point(raw: Any) -> dict[str, Any]:
    """The attributes of a pickled point. Raises ValueError for what is no point."""
    if not isinstance(raw, bytes):
        raise ValueError("no bytes")
    found = PlainPickle(raw, _of_qdrant).value()
    if not isinstance(found, PlainObject) or found.kind != "PointStruct":
        raise ValueError("no point")
    return found.values
