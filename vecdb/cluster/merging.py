"""What several shards found, as what one collection finds. Pure functions; shards come in the order of their numbers.

Hits are in the order of their distances, ties by shard, then as the shard has them. Of the same distances and records
the answer is the same.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vecdb import limits
from vecdb.api.hits import Hits
from vecdb.errors import InvalidArgument, LimitExceeded
from vecdb.filters.evaluate import TYPES
from vecdb.query.listing.order import group_and_value, sort_key
from vecdb.schema import CollectionConfig, Facets, Metric
from vecdb.validate import short_repr

_FIRST = ("name", "dim", "metric", "dtype", "index", "durability", "tenant", "records_max", "collections")
_NESTED = ("open", "commit_times", "columns")  # dicts whose values are put together in their turn
_LARGEST = ("bytes_ram_peak", "build_seconds", "tuned_ef", "dim")


def merge_hits(
    found: Mapping[int, Hits],
    limit: int,
    metric: Metric,
    select: tuple[str, ...] | None,
    *,
    queries: int,
    single: bool,
    missing: tuple[int, ...] = (),
) -> Hits:
    """The `limit` nearest of each query among what shards found. found : by shard, at least one, each with `limit`
    places a query.   missing : shards that were not asked.
    """
    parts = list(found.values())
    sequence = {shard: hits.sequence for shard, hits in found.items()}
    if single:
        made = _merged_one(parts, limit, sequence, metric, select)
    else:
        made = _merged_batch(parts, limit, queries, sequence, metric, select)
    if parts[0].explain is not None:
        made.explain = merge_explained({shard: hits.explain or {} for shard, hits in found.items()})
    made.missing = missing
    return made


def _merged_one(
    parts: Sequence[Hits], limit: int, sequence: dict[int, int], metric: Metric, select: tuple[str, ...] | None
) -> Hits:
    distances = np.concatenate([one.distances for one in parts])
    order = np.argsort(distances, kind="stable")[:limit]
    ids = _joined([one.ids for one in parts])[order]
    fields = vectors = owners = None
    if any(one.packed is not None for one in parts):
        packed = [some for one in parts for some in one.packed or [b""] * len(one.ids)]
        fields = [packed[at] for at in order.tolist()]
    if any(one.vectors is not None for one in parts):
        known = [one.vectors for one in parts if one.vectors is not None and len(one.vectors)]
        vectors = (
            np.concatenate(known)[order] if known else next(one.vectors for one in parts if one.vectors is not None)
        )
    if any(one.owners is not None for one in parts):
        names = [np.full(len(one.ids), "", object) if one.owners is None else one.owners for one in parts]
        owners = np.concatenate(names)[order]
    return Hits(ids, distances[order], None, sequence, metric, True, fields, vectors, None, select, None, owners)


def _merged_batch(
    parts: Sequence[Hits],
    limit: int,
    queries: int,
    sequence: dict[int, int],
    metric: Metric,
    select: tuple[str, ...] | None,
) -> Hits:
    counts = np.minimum(np.sum([one.counts for one in parts], axis=0), limit).astype(np.int64)
    far = [np.where(np.arange(limit) < one.counts[:, None], one.distances, np.float32(np.nan)) for one in parts]
    distances = np.concatenate(far, axis=1)  # NaN sorts behind all numbers
    order = np.argsort(distances, axis=1, kind="stable")[:, :limit]
    real = np.arange(limit) < counts[:, None]

    def taken(values: NDArray[Any], padding: Any) -> NDArray[Any]:
        made = np.take_along_axis(values, order.reshape(*order.shape, *(1,) * (values.ndim - 2)), axis=1)
        made[~real] = padding
        return made

    ids = _joined([one.ids for one in parts], axis=1)
    fields = vectors = owners = None
    if any(one.packed is not None for one in parts):
        fields = []
        for query, places in enumerate(order.tolist()):
            some = [one.packed[query] if one.packed is not None else () for one in parts]
            fields.append([some[at // limit][at % limit] for at in places[: counts[query]]])
    if any(one.vectors is not None for one in parts):
        dim = max(one.vectors.shape[2] for one in parts if one.vectors is not None)
        each = [np.zeros((queries, limit, dim), np.float32) if _is_bare(one) else one.vectors for one in parts]
        vectors = taken(np.concatenate([one for one in each if one is not None], axis=1), 0)
    if any(one.owners is not None for one in parts):
        names = [np.full((queries, limit), "", object) if one.owners is None else one.owners for one in parts]
        owners = taken(np.concatenate(names, axis=1), "")
    padding = None if ids.dtype == object else -1
    return Hits(
        taken(ids, padding), taken(distances, np.inf), counts, sequence, metric, False, fields, vectors, None, select,
        None, owners,
    )  # fmt: skip


def _is_bare(one: Hits) -> bool:
    return one.vectors is None or not one.counts.any()


def _joined(parts: Sequence[NDArray[Any]], axis: int = 0) -> NDArray[Any]:
    """Ids of several shards; of one that has none it is not known whether they are ints or texts."""
    texts = [one.dtype == object for one in parts]
    if any(texts) and not all(texts):
        parts = [one if text else np.full(one.shape, None, object) for one, text in zip(parts, texts, strict=True)]
    return np.concatenate(parts, axis=axis)


def merge_explained(parts: Mapping[int, dict[str, Any]]) -> dict[str, Any]:
    """What all shards say alike, the longest times, and `shards`, what each says."""
    made: dict[str, Any] = {}
    for name in next(iter(parts.values())):
        values = [part.get(name) for part in parts.values()]
        if name == "filters":  # one of each query
            made[name] = [merge_explained(dict(zip(parts, each, strict=True))) for each in zip(*values, strict=True)]
        elif name.endswith("_ms"):
            made[name] = max((value for value in values if value is not None), default=None)
        else:
            made[name] = values[0] if all(value == values[0] for value in values) else values
    made["shards"] = {str(shard): part for shard, part in parts.items()}
    return made


# -- fields ---------------------------------------------------------------------------------------------


def merge_facets(parts: Sequence[Facets], limit: int) -> Facets:
    """parts : of all values that each shard has."""
    counts: Counter[tuple[type, Any]] = Counter()
    for part in parts:
        if len(part) >= limits.facets_max:
            raise LimitExceeded(
                f"a shard has {limits.facets_max:,} values of this field or more, and which are the most frequent of "
                "all cannot be told: give a filter"
            )
        for value, count in part.items():
            counts[type(value), value] += count
    ordered = sorted(counts.items(), key=lambda one: (-one[1], *sort_key(one[0][1])))
    return Facets((value, count) for (_, value), count in ordered[:limit])


def merge_distinct(parts: Sequence[Sequence[Any]]) -> list[Any]:
    known = {(type(value), value): value for part in parts for value in part if value == value}
    nans = [value for part in parts for value in part if value != value][:1]
    return sorted([*known.values(), *nans], key=sort_key)


def merge_extremes(field: str, values: Sequence[Any], *, largest: bool) -> Any:
    some = [value for value in values if value is not None]
    if len({group_and_value(value)[0] for value in some}) > 1:
        types = sorted({type(value).__name__ for value in some})
        raise InvalidArgument(
            f"field {short_repr(field)} holds {' and '.join(types)}, which have no order with one another: give a "
            "filter, such as an order with a value of the type that is meant"
        )
    choose: Callable[..., Any] = max if largest else min
    return choose(some, key=sort_key, default=None)


def merge_fields(parts: Sequence[dict[str, dict[str, Any]]]) -> dict[str, dict[str, Any]]:
    made: dict[str, dict[str, Any]] = {}
    for path in sorted({path for part in parts for path in part}):
        known = [part[path] for part in parts if path in part]
        types = {name for one in known for name in one["types"]}
        made[path] = {
            "types": [name for name in TYPES if name in types],
            "count": sum(one["count"] for one in known),
        }
    return made


# -- facts ----------------------------------------------------------------------------------------------


def merge_config(name: str, parts: Sequence[CollectionConfig]) -> CollectionConfig:
    """Of one collection at its shards. name : for the message. A shard that has no records yet knows fewer facts."""
    first = parts[0]
    kinds = {one.id_kind for one in parts} - {None}
    dims = {one.dim for one in parts} - {0}
    if len(kinds) > 1 or len(dims) > 1:
        raise InvalidArgument(
            f"shards of collection '{name}' disagree: they have {sorted(map(str, kinds))} ids and vectors of dim "
            f"{sorted(dims)}; two clients wrote its first records at once. Drop the collection and write it again"
        )
    return CollectionConfig(
        first.name, max(dims, default=0), first.metric, first.dtype, first.index, next(iter(kinds), None),
        first.metadata, first.zero_vectors,
    )  # fmt: skip


def merge_stats(parts: Mapping[int, dict[str, Any]]) -> dict[str, Any]:
    """Numbers added up, `shards` with those of each. What is of the whole, as the first shard says it; what cannot be
    added, where all say the same, and else a dict by shard.
    """
    made: dict[str, Any] = {}
    for name in dict.fromkeys(name for part in parts.values() for name in part):
        values = {shard: part[name] for shard, part in parts.items() if name in part}
        made[name] = _merged_fact(name, values)
    made["shards"] = {str(shard): part for shard, part in parts.items()}
    return made


def _merged_fact(name: str, values: dict[int, Any], *, nested: bool = False) -> Any:
    known = [value for value in values.values() if value is not None]
    if not known:
        return None
    if name in _NESTED or (nested and all(isinstance(value, dict) for value in known)):
        inner = dict.fromkeys(one for value in known for one in value)
        some = {one: {at: value[one] for at, value in values.items() if value and one in value} for one in inner}
        return {one: _merged_fact(one, facts, nested=True) for one, facts in some.items()}
    if name == "counts":
        return [sum(each) for each in zip(*known, strict=True)]
    if name == "processes":
        return [one for value in known for one in value]
    if name == "recall":
        return _least_recall(known)
    if name in _LARGEST:
        return max(known)
    if name in _FIRST:
        return known[0]
    if name in ("sequence", "generation"):
        return values
    if all(isinstance(value, (int, float)) and not isinstance(value, bool) for value in known):
        return sum(known)
    return known[0] if all(value == known[0] for value in known) else values


def _least_recall(known: list[dict[str, Any]]) -> dict[str, Any]:
    """What was measured of a collection at the shard that finds least; or of each collection of a database."""
    if all("measured" in one for one in known):
        return min(known, key=lambda one: float(one["measured"]))
    names = dict.fromkeys(name for one in known for name in one)
    return {name: min(one[name] for one in known if name in one) for name in names}


def merge_curves(curves: Sequence[list[dict[str, float]]]) -> list[dict[str, float]]:
    """Of widths that all shards measured: the least recall, and the least queries a second."""
    known = [{point["ef"]: point for point in curve} for curve in curves if curve]
    widths = sorted(set.intersection(*map(set, known))) if known else []
    return [
        {
            "ef": width,
            "recall": min(curve[width]["recall"] for curve in known),
            "queries_per_second": min(curve[width]["queries_per_second"] for curve in known),
        }
        for width in widths
    ]
