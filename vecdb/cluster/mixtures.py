"""search_mixture over shards. A shard knows the vectors of its own records, and has cells of its own; so the vectors of
a user's records are fetched, and the cells are clusters of these vectors themselves. What follows is as embedded
(query/mixture.py): a search around the mean of each component, and the answers dealt out by the components' shares.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vecdb import limits
from vecdb.api.hits import Hits
from vecdb.errors import InvalidArgument, NotFound
from vecdb.schema import CollectionConfig
from vecdb.validate import IdBatch, MixtureQuery

_ROUNDS = 8  # of Lloyd's iteration

Find = Callable[[NDArray[np.float32], int], Hits]  # (means, limit) -> hits of a batch


def users_of(
    get: Callable[..., Any], query: MixtureQuery, owner: bytes, tenants: tuple[str, ...], name: str
) -> list[NDArray[np.float32]]:
    """The vectors of each user's records. get : of ClusterCollection.   name : its name. Raises NotFound where a record
    is not there or is not for the tenants to see, InvalidArgument where one has no vector.
    """
    found = [get(ids, owner, include_vectors=True, tenants=tenants, node=None) for ids in query.users]
    records = [one if isinstance(one, list) else [one] for one in found]
    ids = [one for some in query.users for one in _plain(some)]
    every = [record for some in records for record in some]
    absent = [one for one, record in zip(ids, every, strict=True) if record is None]
    if absent:
        raise NotFound(
            f"collection {name!r} has no record {absent[0]!r}"
            + (f" and {len(absent) - 1} more of these ids" if len(absent) > 1 else "")
            + (" that the tenant may see" if tenants else ""),
            "record",
        )
    bare = [record.id for record in every if record.vector is None]
    if bare:
        raise InvalidArgument(
            f"collection {name!r}: record {bare[0]!r}"
            + (f" and {len(bare) - 1} more of these have" if len(bare) > 1 else " has")
            + " no vector, so nothing is near: leave such records out, or write their vectors"
        )
    return [np.stack([record.vector for record in some]).astype(np.float32) for some in records]


def find_mixture(
    find: Find,
    users: list[NDArray[np.float32]],
    query: MixtureQuery,
    limit: int,
    owner: bytes,
    config: CollectionConfig,
) -> Hits:
    from vecdb.query import mixture  # here: it brings the compiler, which other calls of a client need not wait for

    centres = _centres(np.concatenate(users), query.components)
    made = mixture.fit(users, centres, config.metric, query.components, query.smoothing, query.neighbours)
    own = query.users[0]
    depth = min(limit + own.n, limits.limit_max)
    found = find(made.means, depth)
    numbers, is_own = _numbered(found, own, owner.decode())
    kept = [np.flatnonzero(~is_own[c, :count])[:limit] for c, count in enumerate(found.counts.tolist())]
    quotas = mixture.quotas_of(made.weights, limit)
    chosen = mixture.choose([numbers[c][at] for c, at in enumerate(kept)], quotas, limit)
    at = np.array([kept[c][place] for c, place in zip(*chosen, strict=True)], np.int64)
    hits = _taken(found, chosen.components, at, config)
    if found.explain is not None:
        sizes = np.bincount(chosen.components, minlength=len(quotas))
        hits.explain = found.explain | {
            "cells": made.cells.tolist(),
            "weights": made.weights.tolist(),
            "quotas": quotas.tolist(),
            "sizes": sizes.tolist(),
        }
    return hits


def _taken(found: Hits, which: NDArray[np.int64], at: NDArray[np.int64], config: CollectionConfig) -> Hits:
    """Hits at some places of a batch, as those of one query. which, at : query and place of each."""
    packed = found.packed
    fields = None if packed is None else [packed[q][i] for q, i in zip(which.tolist(), at.tolist(), strict=True)]
    hits = Hits(
        found.ids[which, at],
        found.distances[which, at],
        None,
        found.sequence,
        config.metric,
        True,
        fields,
        None if found.vectors is None else found.vectors[which, at],
        None,
        found._select,
        which,
        None if found.owners is None else found.owners[which, at],
    )
    hits.missing = found.missing
    return hits


def _numbered(found: Hits, own: IdBatch, owner: str) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
    """(int64[nq, limit], a number of each record; bool[nq, limit], whether it is one of the owner's `own`)."""
    names = found.ids.ravel().tolist()
    owners = [""] * len(names) if found.owners is None else found.owners.ravel().tolist()
    known: dict[tuple[Any, str], int] = {}
    numbers = [known.setdefault(one, len(known)) for one in zip(names, owners, strict=True)]
    mine = {(one, owner) for one in _plain(own)}
    is_own = [one in mine for one in zip(names, owners, strict=True)]
    return np.array(numbers, np.int64).reshape(found.ids.shape), np.array(is_own, bool).reshape(found.ids.shape)


def _plain(ids: IdBatch) -> list[Any]:
    return ids.ints.tolist() if ids.ints is not None else [key.decode() for key in ids.keys]


def _centres(items: NDArray[np.float32], count: int) -> NDArray[np.float32]:
    """float32[count or fewer, dim]: k-means, begun with items as far from one another as can be, the first first."""
    centres = [items[0]]
    far = ((items - items[0]) ** 2).sum(axis=1)
    while len(centres) < min(count, len(items)) and far.max() > 0:
        centres.append(items[int(far.argmax())])
        far = np.minimum(far, ((items - centres[-1]) ** 2).sum(axis=1))
    made = np.stack(centres).astype(np.float32)
    for _ in range(_ROUNDS):
        cell = np.argmin((made**2).sum(axis=1) - 2.0 * (items @ made.T), axis=1)
        made = np.stack([items[cell == c].mean(axis=0) if (cell == c).any() else made[c] for c in range(len(made))])
    return made.astype(np.float32)
