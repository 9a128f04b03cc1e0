"""CollectionFacts: what an exported file says of the collection that it came from, as one JSON object.

    {"format": 1, "dim": 384, "metric": "l2", "dtype": "float32", "index": {"kind": "hnsw", "m": 16, ...} | null,
     "columns": {"id": "id", "vector": "vector", "owner": "_owner", "tenants": "_tenants", "fields": "_fields"},
     "tenants": {"acme": 1000, "beta": null}, "metadata": {"made_by": "somebody"}, "zero_vectors": "refuse",
     "has_dim": true}

columns : names of what is no field. A field that shares one of them, or that the file cannot hold as it is, stands in
    the column "fields" as tagged JSON (tagged.py).
tenants : those that records do not tell: with a quota, or without records. None: no tenants are in this file.
metadata : what users noted about the collection.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any

import msgspec

from vecdb import Corruption, Curator, Flat, Hnsw, Spann, Unavailable

FORMAT = 1
KEY = "vecdb"  # of the head line, and of Parquet's metadata
TENANTS_KEY = "vecdb_tenants"  # of lines after the head line
META_SUFFIX = ".meta.json"  # beside files that cannot hold facts
IDS_SUFFIX = ".ids.jsonl"  # beside files that hold vectors only

Index = Flat | Hnsw | Spann | Curator
_INDEXES: dict[str, type[Index]] = {kind.kind: kind for kind in (Flat, Hnsw, Spann, Curator)}


@dataclass(frozen=True, slots=True)
class Columns:
    """Names of the columns that are no fields."""

    id: str = "id"
    vector: str = "vector"
    owner: str = "_owner"
    tenants: str = "_tenants"
    fields: str = "_fields"

    def names(self) -> frozenset[str]:
        return frozenset((self.id, self.vector, self.owner, self.tenants, self.fields))


@dataclass(frozen=True, slots=True)
class CollectionFacts:
    """What is the same for all records of a collection. has_dim : False where no record has a vector yet: then `dim` is
    the width of a column without values.
    """

    dim: int
    metric: str
    dtype: str
    index: Index | None = None
    columns: Columns = Columns()
    tenants: dict[str, int | None] | None = field(default=None)
    metadata: dict[str, Any] = field(default_factory=dict)
    zero_vectors: str = "refuse"
    has_dim: bool = True

    def to_json(self) -> dict[str, Any]:
        index = None if self.index is None else {"kind": self.index.kind} | asdict(self.index)
        return {
            "format": FORMAT,
            "dim": self.dim,
            "metric": self.metric,
            "dtype": self.dtype,
            "index": index,
            "columns": asdict(self.columns),
            "tenants": self.tenants,
            "metadata": self.metadata,
            "zero_vectors": self.zero_vectors,
            "has_dim": self.has_dim,
        }

    def encode(self) -> bytes:
        return msgspec.json.encode(self.to_json())


class _Stored(msgspec.Struct):
    format: int
    dim: int
    metric: str
    dtype: str
    index: dict[str, Any] | None = None
    columns: Columns = Columns()
    tenants: dict[str, int | None] | None = None
    metadata: dict[str, Any] = {}
    zero_vectors: str = "refuse"
    has_dim: bool = True


def decode_facts(raw: bytes, path: str) -> CollectionFacts:
    """The facts in a file. Raises Corruption where they are not what an export writes, Unavailable where they are of
    a newer vecdb.
    """
    try:
        found = msgspec.json.decode(raw, type=_Stored)
        if found.format > FORMAT:
            raise Unavailable(f"{path}: an export of format {found.format}, this vecdb reads {FORMAT}: upgrade vecdb")
        index = None
        if found.index is not None:
            options = dict(found.index)
            index = _INDEXES[options.pop("kind")](**options)
    except (msgspec.DecodeError, UnicodeDecodeError, KeyError, TypeError) as error:
        raise Corruption(f"{path}: what it says of its collection is damaged ({error})") from error
    return CollectionFacts(
        found.dim, found.metric, found.dtype, index, found.columns, found.tenants, found.metadata, found.zero_vectors,
        found.has_dim,
    )  # fmt: skip
