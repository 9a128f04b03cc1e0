"""A collection in a Chroma directory, read by chromadb 1.x.

    chroma.sqlite3    tenants > databases > collections > records: id, metadata, document; read here to learn names
    <uuid>/           the vectors, which only chromadb reads

A record's metadata are its fields, its document the field "document" ("document_text" where its metadata has that name
already), its URI "uri". Records of a tenant other than Chroma's default belong to that tenant: they have it as their
owner, as ids of Chroma's tenants are apart, too.

Whoever opens a Chroma directory with chromadb, as this does, lets it finish what it had put off: it may write there.
No telemetry is sent, and no embedding function is made.
"""

from __future__ import annotations

import contextlib
import json
import os
import pathlib
import sqlite3
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from vecdb import Corruption, InvalidArgument

from ..optional import optional_module
from ..source import Array
from ..tables.columns import Choice
from ..tables.table import Window
from .rows import CollectionSource, choose

default_tenant = "default_tenant"
default_database = "default_database"
page_rows = 4_096
_COLLECTIONS = """
    SELECT c.id, c.name, c.dimension, d.name, d.tenant_id
    FROM collections c JOIN databases d ON d.id = c.database_id ORDER BY d.tenant_id, d.name, c.name
"""
_KEYS = """
    SELECT DISTINCT m.key FROM embedding_metadata m JOIN embeddings e ON e.id = m.id
    JOIN segments s ON s.id = e.segment_id WHERE s.collection = ?
"""
_NEWEST = """
    SELECT s.id, hex(m.seq_id) FROM max_seq_id m JOIN segments s ON s.id = m.segment_id
    WHERE s.collection = ? ORDER BY s.id
"""


@dataclass(frozen=True, slots=True)
class ChromaCollection:
    """A collection in the directory. path_name : database/name, or tenant/database/name, where they are not Chroma's
    defaults.
    """

    id: str
    name: str
    dim: int | None
    database: str
    tenant: str

    @property
    def path_name(self) -> str:
        if self.tenant != default_tenant:
            return f"{self.tenant}/{self.database}/{self.name}"
        return self.name if self.database == default_database else f"{self.database}/{self.name}"


class ChromaSource(CollectionSource):
    """key : the collection, as `ChromaCollection.path_name` has it; None: the only one."""

    vector_column = "embedding"
    tells_access = False

    def __init__(self, path: str, check_finite: bool, key: str | None, choice: Choice) -> None:
        self._client: Any = None
        with _catalog(path) as catalog:
            there = {one.path_name: one for one in _collections(catalog)}
            one = there[choose(path, "collection", key, list(there))]
            names = {row[0] for row in catalog.execute(_KEYS, (one.id,))}
        if one.dim is None:
            raise InvalidArgument(f"{path}: collection {one.path_name!r} has no records, and no dim")
        names = {name for name in names if not name.startswith("chroma:")}
        self._document = "document" if "document" not in names else "document_text"
        self._uri = "uri" if "uri" not in names else "document_uri"
        chroma = optional_module("chromadb", f"{path} is a Chroma directory: reading it", "chroma")
        settings = optional_module("chromadb.config", "reading Chroma", "chroma").Settings(anonymized_telemetry=False)
        self.path, self.losses = path, {}
        try:
            self._open(chroma, settings, one, one.dim, names, check_finite, choice)
        except BaseException:
            self.close()
            raise

    def _open(
        self,
        chroma: Any,
        settings: Any,
        one: ChromaCollection,
        dim: int,
        names: set[str],
        check_finite: bool,
        choice: Choice,
    ) -> None:
        path = self.path
        try:
            self._client = chroma.PersistentClient(path, settings, one.tenant, one.database)
            self._docs = self._client.get_collection(one.name, embedding_function=None)
            count = self._docs.count()
        except Exception as error:
            raise self._damaged("", error) from error
        self._owner = one.tenant if one.tenant != default_tenant else ""
        self.tells_access = bool(self._owner)
        space = ((self._docs.configuration or {}).get("hnsw") or {}).get("space") or "l2"
        self.metric = {"l2": "l2", "cosine": "cosine", "ip": "ip"}.get(space)
        if self._docs.metadata:
            self.losses["metadata of the collection"] = f"{json.dumps(self._docs.metadata, default=str)[:200]}"
        kept = [name for name in (self._document, self._uri) if name not in names]
        self.field_columns = choice.field_columns(path, [*sorted(names), *kept])
        self._settle(path, "chroma", (count, dim), check_finite, choice)
        with _catalog(path) as catalog:
            self.stamp = [one.id, count, [list(row) for row in catalog.execute(_NEWEST, (one.id,))]]

    def _parse(self, start: int, stop: int) -> Window:
        ids: list[str] = []
        vectors: list[Array] = []
        fields: list[dict[str, Any]] = []
        for first in range(start, stop, page_rows):
            count = min(page_rows, stop - first)
            try:
                page = self._docs.get(
                    limit=count, offset=first, include=["embeddings", "documents", "metadatas", "uris"]
                )
            except Exception as error:
                raise self._damaged(f": rows {first} to {first + count}", error) from error
            if len(page["ids"]) != count:
                raise Corruption(
                    f"{self.path}: rows {first} to {first + count}: found {len(page['ids'])}; if somebody writes "
                    "there, close Chroma and import again"
                )
            ids += page["ids"]
            vectors.append(np.asarray(page["embeddings"], np.float32))
            fields += [self._fields_of(*of) for of in zip(page["metadatas"], page["documents"], page["uris"])]
        return self._made(start, ids, np.concatenate(vectors), fields, {}, self._owner)

    def _fields_of(self, metadata: Any, document: str | None, uri: str | None) -> dict[str, Any]:
        row = dict(metadata or {})
        for name, value in row.items():
            if hasattr(value, "indices") and hasattr(value, "values"):
                row[name] = {"indices": list(value.indices), "values": list(value.values)}
                self.losses.setdefault("sparse vectors", f"field {name!r} holds their numbers, and no search uses them")
        if document is not None:
            row[self._document] = document
        if uri is not None:
            row[self._uri] = uri
        return row

    def _damaged(self, where: str, error: Exception) -> Corruption:
        return Corruption(f"{self.path}{where}: chromadb cannot read it ({type(error).__name__}: {error})")

    def close(self) -> None:
        super().close()
        self._docs = None
        closing = getattr(self._client, "close", None)
        self._client = None
        if closing is not None:
            with contextlib.suppress(Exception):  # what was read stays right
                closing()


@contextlib.contextmanager
def _catalog(path: str) -> Iterator[sqlite3.Connection]:
    """The tables of names, for reading alone."""
    uri = pathlib.Path(os.path.abspath(path), "chroma.sqlite3").as_uri()
    try:
        with contextlib.closing(sqlite3.connect(f"{uri}?mode=ro", uri=True)) as found:
            yield found
    except sqlite3.Error as error:
        raise Corruption(f"{path}: its chroma.sqlite3 cannot be read ({error})") from error


def _collections(catalog: sqlite3.Connection) -> list[ChromaCollection]:
    return [ChromaCollection(*row) for row in catalog.execute(_COLLECTIONS)]
