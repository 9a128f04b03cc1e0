"""The collection to import into: the one of that name if it agrees with options and file, otherwise a new one.

A new one, and a database that is not there yet, are made when the first batch is known to be good: an import that
fails at its beginning leaves nothing that the corrected command would be refused for.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import vecdb
from vecdb import validate
from vecdb.errors import InvalidArgument
from vecdb.schema import BIT_METRICS, BITS, CollectionConfig, IndexConfig

dtypes = {"float32": "float32", "float64": "float32", "float16": "float16", "int8": "int8", "uint8": "uint8"}


@dataclass(frozen=True, slots=True)
class Wanted:
    """What the options say of the collection; None where they say nothing."""

    name: str
    metric: str | None
    dtype: str | None
    index: IndexConfig | None
    index_is_told: bool
    zero_vectors: str | None = None


def new_config(wanted: Wanted, source: Any) -> CollectionConfig:
    """A new collection for a file: as the options say, otherwise as the file says, otherwise by its numbers."""
    facts = source.facts
    told = wanted.metric or (source.metric if facts is None else facts.metric)
    dtype = wanted.dtype or (facts.dtype if facts is not None else dtypes.get(str(source.dtype)))
    if told in BIT_METRICS and wanted.dtype is None:
        dtype = BITS
    if dtype is None:
        raise InvalidArgument(f"{source.path}: dtype {source.dtype} has no counterpart; name one with --dtype")
    metric = told or ("cosine" if dtype.startswith("float") else "hamming" if dtype == BITS else "l2")
    index = wanted.index if wanted.index_is_told or facts is None else facts.index
    zero_vectors = wanted.zero_vectors or (facts.zero_vectors if facts is not None else "refuse")
    return validate.collection_config(
        wanted.name, _dim_of(source, dtype) or None, metric, index, dtype, zero_vectors=zero_vectors
    )


def agreed(docs: vecdb.Collection, wanted: Wanted, source: Any) -> CollectionConfig:
    """The configuration of a collection that is there. Raises InvalidArgument where options or file disagree."""
    for option, said, actual in (
        ("--metric", wanted.metric, docs.metric),
        ("--dtype", wanted.dtype, docs.dtype),
        ("--zero-vectors", wanted.zero_vectors, docs.config.zero_vectors),
    ):
        if said is not None and said != actual:
            raise InvalidArgument(
                f"collection {docs.name!r} is there and has {option[2:]} {actual}, not {said}: leave {option} out, or "
                "import into a collection of another name"
            )
    told = source.metric if source.facts is None else source.facts.metric
    if wanted.metric is None and told is not None and told != docs.metric:
        raise InvalidArgument(
            f"collection {docs.name!r} has metric {docs.metric}, {source.path} says {told}: "
            f"give --metric {docs.metric} to import into it all the same"
        )
    dim = _dim_of(source, docs.dtype)
    if dim and docs.dim not in (0, dim):
        raise InvalidArgument(f"collection {docs.name!r} has dim {docs.dim}, got {dim} from {source.path}")
    return replace(docs.config, dim=dim or docs.dim)  # it may have none yet


def _dim_of(source: Any, dtype: str) -> int:
    """0 where the file is of a collection that has none, as no record of it has a vector. dtype : of the collection;
    bytes of a file hold eight bits each.
    """
    dim = int(source.dim) if source.facts is None or source.facts.has_dim else 0
    return 8 * dim if dtype == BITS and str(source.dtype) == "uint8" else dim


def first_new_id(docs: vecdb.Collection, rows: int) -> int:
    """The first of `rows` ids that no record has: ids go on after those that are there.

    The number of records is the first guess, right where all ids were made so; otherwise all records are looked at.
    """
    count = docs.count()
    if count == 0:
        return 0
    if docs.config.id_kind == "str":
        raise InvalidArgument(
            f"the file has no ids, and those of collection {docs.name!r} are strings: name a column with --id-column"
        )
    step = 65_536
    if all(
        one is None
        for start in range(count, count + rows, step)
        for one in docs.get(range(start, min(start + step, count + rows)))
    ):
        return count
    return 1 + max(int(record.id) for batch in docs.iter(batch=step) for record in batch)
