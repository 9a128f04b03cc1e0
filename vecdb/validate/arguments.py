"""Names, configurations and the scalar arguments of calls."""

from __future__ import annotations

import contextlib
import os
from dataclasses import fields, replace
from typing import Any

import numpy as np

from vecdb import limits
from vecdb.errors import InvalidArgument, LimitExceeded
from vecdb.schema import (
    BIT_METRICS,
    BITS,
    DTYPES,
    METRICS,
    ZERO_VECTORS,
    CollectionConfig,
    Curator,
    Flat,
    Hnsw,
    IndexConfig,
    SearchParams,
    Spann,
)
from vecdb.validate.common import integer, plain_str, short_repr, utf8
from vecdb.validate.metadata import metadata


def collection_name(name: object) -> str:
    """1 to 128 UTF-8 bytes, printable, without slashes, not "." or "..", no space at either end."""
    if not isinstance(name, str):
        raise InvalidArgument(f"a collection name must be a string, got {short_repr(name)}")
    if not name:
        raise InvalidArgument("a collection name must not be empty")
    utf8(name, "a collection name", limits.name_bytes_max)
    if not name.isprintable() or "/" in name or "\\" in name or name in (".", "..") or name != name.strip():
        raise InvalidArgument(
            f"collection name {short_repr(name)} is not allowed: use printable characters without '/' or '\\', "
            "no space at either end, and not '.' or '..'"
        )
    return plain_str(name)


def index_config(index: object, dtype: str) -> IndexConfig | None:
    """None, or a `Flat`, `Hnsw`, `Spann` or `Curator` whose every parameter is within its bound. dtype : of the
    collection.
    """
    if dtype == BITS and isinstance(index, (Spann, Curator)):
        raise InvalidArgument(f"dtype {BITS!r} takes vecdb.Flat() or vecdb.Hnsw(...), got {short_repr(index)}")
    if index is None or isinstance(index, Flat):
        return index
    if isinstance(index, Spann):
        return _spann(index)
    if isinstance(index, Curator):
        return _curator(index)
    if not isinstance(index, Hnsw):
        raise InvalidArgument(
            "index must be None, vecdb.Flat(), vecdb.Hnsw(...), vecdb.Spann(...) or vecdb.Curator(...), "
            f"got {short_repr(index)}"
        )
    if index.quantization not in (None, "sq8"):
        raise InvalidArgument(f'Hnsw quantization must be "sq8" or None, got {short_repr(index.quantization)}')
    return Hnsw(
        m=integer(index.m, "Hnsw m", limits.m_min, limits.m_max),
        ef_construction=integer(index.ef_construction, "Hnsw ef_construction", 1, limits.ef_construction_max),
        ef=None if index.ef is None else integer(index.ef, "Hnsw ef", 1, limits.ef_max),
        quantization=index.quantization,
    )


def _spann(index: Spann) -> Spann:
    if integer(index.bits, "Spann bits", 1, max(limits.bits_choices)) not in limits.bits_choices:
        raise InvalidArgument(f"Spann bits must be one of {limits.bits_choices}, got {short_repr(index.bits)}")
    ratio = index.head_ratio
    if isinstance(ratio, bool) or not isinstance(ratio, (int, float, np.integer, np.floating)):
        raise InvalidArgument(f"Spann head_ratio must be a number, got {short_repr(ratio)}")
    if not limits.head_ratio_min <= ratio <= limits.head_ratio_max:
        raise InvalidArgument(
            f"Spann head_ratio must be from {limits.head_ratio_min} to {limits.head_ratio_max} lists a row, got {ratio}"
        )

    def optional(value: object, name: str, least: int, most: int) -> int | None:
        return None if value is None else integer(value, f"Spann {name}", least, most)

    return Spann(
        bits=int(index.bits),
        replicas=optional(index.replicas, "replicas", 1, limits.replicas_max),
        head_ratio=float(ratio),
        nprobe=optional(index.nprobe, "nprobe", 1, limits.nprobe_max),
        rerank=optional(index.rerank, "rerank", 1, limits.rerank_max),
        memory_budget_bytes=optional(index.memory_budget_bytes, "memory_budget_bytes", 0, 1 << 62),
        posting_bytes_max=optional(
            index.posting_bytes_max, "posting_bytes_max", limits.posting_bytes_min, limits.posting_bytes_max
        ),
    )


def _curator(index: Curator) -> Curator:
    nprobe, scan = index.nprobe, index.scan_max
    return Curator(
        leaf_rows=integer(index.leaf_rows, "Curator leaf_rows", limits.leaf_rows_min, limits.leaf_rows_max),
        shortlist_max=integer(index.shortlist_max, "Curator shortlist_max", 1, limits.rows_max),
        scan_max=None if scan is None else integer(scan, "Curator scan_max", 1, limits.rows_max),
        nprobe=None if nprobe is None else integer(nprobe, "Curator nprobe", 1, limits.nprobe_max),
    )


def collection_config(
    name: object,
    dim: object,
    metric: object,
    index: object,
    dtype: object,
    noted: object = None,
    zero_vectors: object = "refuse",
) -> CollectionConfig:
    """Check everything that `create_collection` fixes. `dtype` may be a name or anything `numpy.dtype` knows."""
    checked_name = collection_name(name)
    checked_dim = 0 if dim is None else integer(dim, "dim", 1, limits.dim_max)
    if not isinstance(metric, str) or metric not in METRICS:
        raise InvalidArgument(f"metric must be one of {', '.join(METRICS)}, got {short_repr(metric)}")
    if not isinstance(dtype, str) and dtype is not None:
        with contextlib.suppress(TypeError):
            dtype = np.dtype(dtype).name  # type: ignore[call-overload]
    if not isinstance(dtype, str) or dtype not in DTYPES:
        raise InvalidArgument(f"dtype must be one of {', '.join(DTYPES)}, got {short_repr(dtype)}")
    if not isinstance(zero_vectors, str) or zero_vectors not in ZERO_VECTORS:
        raise InvalidArgument(f"zero_vectors must be one of {', '.join(ZERO_VECTORS)}, got {short_repr(zero_vectors)}")
    _check_bits(checked_dim, metric, dtype)
    checked_index, checked_metadata = index_config(index, dtype), {} if noted is None else metadata(noted)
    return CollectionConfig(
        checked_name,
        checked_dim,
        metric,  # type: ignore[arg-type]
        dtype,  # type: ignore[arg-type]
        checked_index,
        metadata=checked_metadata,
        zero_vectors=zero_vectors,  # type: ignore[arg-type]
    )


def _check_bits(dim: int, metric: str, dtype: str) -> None:
    if (dtype == BITS) != (metric in BIT_METRICS):
        raise InvalidArgument(
            f"dtype {BITS!r} goes with metric {' or '.join(BIT_METRICS)}, and these with no other dtype; got "
            f"dtype {dtype!r}, metric {metric!r}"
        )
    if dtype == BITS and (not dim or dim % 8):
        raise InvalidArgument(
            f"dtype {BITS!r} needs a dim that is a multiple of 8, got {dim or None}: pass the number of bits, padded "
            "with zeros"
        )


def owner(owner: object) -> bytes:
    """UTF-8 of an owner name; None and "" are the owner b""."""
    if owner is None or (isinstance(owner, str) and not owner):
        return b""
    if not isinstance(owner, str):
        raise InvalidArgument(f"owner must be a string or None, got {short_repr(owner)}")
    return utf8(owner, "owner", limits.owner_bytes_max)


def request_id(value: object) -> bytes | None:
    """UTF-8 of the id of a write that may be repeated; None for one that may not."""
    if value is None:
        return None
    if not isinstance(value, str) or not value:
        raise InvalidArgument(f"request_id must be a string that is not empty, or None, got {short_repr(value)}")
    return utf8(value, "request_id", limits.request_id_bytes_max)


def flag(value: object, what: str) -> bool:
    """True or False, never a value that Python converts to one: "no" would be true."""
    if value is True or value is False:
        return value
    if isinstance(value, np.bool_):
        return bool(value)
    raise InvalidArgument(f"{what} must be True or False, got {short_repr(value)}")


def search_limit(limit: object, nq: int) -> int:
    """Neighbours per query: 1 to `limit_max`, and an answer of at most `search_cells_max` cells."""
    number = (
        limit if type(limit) is int and 0 < limit <= limits.limit_max else integer(limit, "limit", 1, limits.limit_max)
    )
    if number * nq > limits.search_cells_max:
        raise LimitExceeded(
            f"limit {number:,} times {nq:,} queries passes {limits.search_cells_max:,} results: search in several calls"
        )
    return number


_DEFAULT_PARAMS = SearchParams()


def _is_plain(params: SearchParams) -> bool:
    """Whether the parameters have a recall that needs no conversion, and no other width."""
    recall = params.recall
    return type(recall) is float and 0.0 < recall <= 1.0 and params.ef is None and params.nprobe is None


def _params_of(given: dict[Any, Any]) -> SearchParams:
    """SearchParams as a dict."""
    known = [field.name for field in fields(SearchParams)]
    for name in given:
        if name not in known:
            raise InvalidArgument(f"params has no {short_repr(name)}; there are {', '.join(known)}")
    return SearchParams(**given)


def search_params(params: SearchParams | dict[str, Any] | None, limit: int) -> SearchParams:
    """Checked parameters, defaults for None. An `ef` below `limit` is raised to it: a narrower beam holds too few."""
    if params is None or params is _DEFAULT_PARAMS:
        return _DEFAULT_PARAMS
    if (
        type(params) is SearchParams
        and (params.ef is None or (type(params.ef) is int and limit <= params.ef <= limits.ef_max))
        and (params.nprobe is None or (type(params.nprobe) is int and 1 <= params.nprobe <= limits.nprobe_max))
        and (params.recall is None or _is_plain(params))
        and params.exact is False
        and type(params.threads) is int
        and params.threads == 1
        and params.rerank is None
    ):
        return params  # as in a loop of single searches; the general path takes 3 us more
    if isinstance(params, dict):
        return search_params(_params_of(params), limit)
    if not isinstance(params, SearchParams):
        raise InvalidArgument(
            f"params must be vecdb.SearchParams(...), a dict of what it takes, or None, got {short_repr(params)}"
        )
    exact = flag(params.exact, "SearchParams exact")
    recall = params.recall
    if recall is not None:
        if not isinstance(recall, (int, float, np.number)) or isinstance(recall, bool) or not 0.0 < recall <= 1.0:
            raise InvalidArgument(f"SearchParams recall must be above 0 and at most 1, got {short_repr(recall)}")
        if params.ef is not None or params.nprobe is not None:
            raise InvalidArgument(
                "SearchParams recall picks ef and nprobe itself: give recall, or ef or nprobe, not both"
            )
        recall = float(recall)
    return replace(
        params,
        ef=None if params.ef is None else max(limit, integer(params.ef, "SearchParams ef", 1, limits.ef_max)),
        nprobe=None if params.nprobe is None else integer(params.nprobe, "SearchParams nprobe", 1, limits.nprobe_max),
        recall=recall,
        exact=exact,
        threads=integer(params.threads, "SearchParams threads", 1, limits.threads_max),
        rerank=None if params.rerank is None else integer(params.rerank, "SearchParams rerank", 1, limits.rerank_max),
    )


def threads(value: object) -> int:
    """A thread count from 1 to `threads_max`; None is every core this process may use."""
    if value is None:
        return min(cores(), limits.threads_max)
    return integer(value, "threads", 1, limits.threads_max)


def cores() -> int:
    """How many cores this process may use; where the system does not say, how many the machine has."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def field_selection(fields: object) -> tuple[str, ...] | None:
    """Which fields a call returns: None or True is all of them, False or [] none, else the named ones."""
    if fields is None or fields is True:
        return None
    if fields is False:
        return ()
    if isinstance(fields, str):
        return (fields,)
    if not isinstance(fields, (list, tuple, set, frozenset)) or not all(isinstance(name, str) for name in fields):
        raise InvalidArgument(
            f"fields must be None (all), [] (none) or a list of field names, got {short_repr(fields)}"
        )
    return tuple(dict.fromkeys(plain_str(name) for name in fields))
