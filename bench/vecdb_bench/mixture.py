"""mixture: `search_mixture` beside one search by the mean: are its answers more diverse, and as good?

    user = rows that share `tags` tags, some of each; half of them are its positives, half are held out

    diversity  1 - mean pairwise cosine of what was returned        recall  share of the held-out rows that was returned

The same users search in three ways: by the mean of the positives, by `search_mixture`, and by `search_mixture` that is
smoothed with the other users' positives as histories. Figures are means over users, of the first few hits and of all.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any, NamedTuple

import numpy as np

import vecdb
from vecdb_bench.reporting import machine
from vecdb_datasets import load

Say = Callable[[str], None]
indexes: dict[str, Callable[[], Any]] = {
    "flat": vecdb.Flat,
    "hnsw": vecdb.Hnsw,
    "spann": vecdb.Spann,
    "curator": vecdb.Curator,
}


class User(NamedTuple):
    """Row numbers, int64 each; they are also the ids in the collection."""

    positives: Any
    held_out: Any


@dataclass(frozen=True, slots=True)
class Plan:
    """What to measure. rows, tags : of a user, before half of its rows are held out."""

    dataset: str = "summaries"
    folder: str | None = None
    index: str = "hnsw"
    users: int = 200
    rows: int = 20
    tags: int = 3
    limit: int = 100
    components: int = 8
    smoothing: float = 0.3
    seed: int = 0


def run(plan: Plan, say: Say = lambda text: None) -> dict[str, Any]:
    """Measure."""
    if plan.index not in indexes:
        raise vecdb.InvalidArgument(f"index {plan.index!r}: expected one of {', '.join(indexes)}")
    data = load(plan.dataset, plan.folder)
    if "tags_indptr" not in data.extras:
        raise vecdb.InvalidArgument(f"data set {plan.dataset!r} has no tags: users are made of rows that share some")
    tags = data.extras["tags_indptr"], data.extras["tags_indices"]
    users = draw_users(*tags, plan.users, plan.rows, plan.tags, plan.seed)
    with vecdb.open(":memory:") as db:
        docs = db.create_collection(
            "bench", dim=data.dim, metric=data.metric, dtype=str(data.base.dtype), index=indexes[plan.index]()
        )
        say(f"building {plan.index} over {len(data.base):,} rows")
        docs.upsert(np.arange(len(data.base)), data.base)
        docs.optimize()
        found = compare(docs, np.asarray(data.base), users, plan.limit, plan.components, plan.smoothing, say)
    title = (
        f"{plan.users} users of {plan.rows} rows in {plan.tags} tags, half held out, limit {plan.limit}, {plan.index}"
    )
    return {
        "benchmark": "mixture",
        "plan": {name: value for name, value in asdict(plan).items() if name != "folder"},
        "machine": machine.facts(),
        "answers": found,
        "tables": {title: found},
    }


def draw_users(indptr: Any, indices: Any, users: int, rows: int, tags: int, seed: int) -> list[User]:
    """Users of `rows` rows, equally many from each of `tags` tags that have enough. indptr, indices : the tags of each
    row, in CSR form.
    """
    rng = np.random.default_rng(seed)
    tagged = np.repeat(np.arange(len(indptr) - 1), np.diff(indptr))[np.argsort(indices, kind="stable")]
    sizes = np.bincount(indices)
    each = -(-rows // tags)
    ends, usable = np.cumsum(sizes), np.flatnonzero(sizes >= each)
    drawn = []
    for _ in range(users):
        chosen = rng.choice(usable, tags, replace=False)
        parts = [rng.choice(tagged[ends[tag] - sizes[tag] : ends[tag]], each, replace=False) for tag in chosen]
        history = rng.permutation(np.unique(np.concatenate(parts)))[:rows]
        drawn.append(User(history[: len(history) // 2], history[len(history) // 2 :]))
    return drawn


def compare(
    docs: vecdb.Collection,
    vectors: Any,
    users: Sequence[User],
    limit: int,
    components: int,
    smoothing: float,
    say: Say = lambda text: None,
) -> list[dict[str, Any]]:
    """A row of figures for each way to search. vectors : [n, dim], the vector of id i at i."""

    def plain(user: User) -> Any:
        mean = _unit(vectors[user.positives]).mean(axis=0)
        ids = docs.search(mean, limit + len(user.positives)).ids
        return ids[~np.isin(ids, user.positives)][:limit]

    def mixed(user: User) -> Any:
        return docs.search_mixture(user.positives, limit, components=components).ids

    def smoothed(user: User) -> Any:
        others = [other.positives for other in users if other is not user]
        return docs.search_mixture(
            user.positives, limit, components=components, histories=others, smoothing=smoothing
        ).ids

    few = max(1, limit // 5)
    searches = {"by the mean": plain, "mixture": mixed, "smoothed": smoothed}
    found = []
    for name, search in searches.items():
        say(name)
        search(users[0])
        started = time.perf_counter()
        answers = [search(user) for user in users]
        took = time.perf_counter() - started
        line: dict[str, Any] = {"way": name}
        for k in (few, limit):
            line[f"diversity@{k}"] = float(np.mean([diversity(vectors[ids[:k]]) for ids in answers]))
            shares = [np.isin(user.held_out, ids[:k]).mean() for user, ids in zip(users, answers, strict=True)]
            line[f"held-out recall@{k}"] = float(np.mean(shares))
        found.append(line | {"ms": 1e3 * took / len(users)})
    return found


def diversity(vectors: Any) -> float:
    """1 - mean cosine of all pairs; 0 where there is no pair."""
    k = len(vectors)
    total = _unit(vectors).sum(axis=0)
    return float(1.0 - (total @ total - k) / (k * (k - 1))) if k > 1 else 0.0


def _unit(vectors: Any) -> Any:
    wide = np.asarray(vectors, np.float64)
    return wide / np.linalg.norm(wide, axis=1, keepdims=True)
