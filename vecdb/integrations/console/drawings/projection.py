"""Vectors in two dimensions, by their first two principal components, and a colour for each by a field.

Pure functions of arrays and records; `drawn` walks a collection, and is called off the event loop.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

import vecdb
from vecdb.errors import InvalidArgument
from vecdb.integrations.console.figures import is_number, short

SAMPLE_MAX = 5_000
_BATCH = 1_000
_ROUNDS = 24  # of subspace iteration
COLOURS = 7  # values that have one; others are drawn in grey
_STEPS = 6  # of a field of numbers

Floats = NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Projection:
    """A sample of a collection. points : float32[n, 2], within -1 and 1. share : of the variance that the two axes
    show. walked : records of `total` that it is a sample of. sequence : the commit that it was drawn at.
    """

    points: Floats
    records: list[vecdb.Record]
    share: float
    walked: int
    total: int
    sequence: int


def drawn(
    docs: vecdb.Collection,
    *,
    tenant: str | None = None,
    sample_max: int = SAMPLE_MAX,
    progress: Callable[[int, int], None] | None = None,
    stop: Callable[[], bool] | None = None,
    sequence: int = 0,
) -> Projection:
    """Walk the records, keep up to `sample_max` that are spread evenly and have a vector, and project those; of those
    that were walked where it is stopped."""
    total = docs.count(tenant=tenant)
    wanted = min(sample_max, total)
    kept: list[vecdb.Record] = []
    seen = 0
    for page in docs.iter(_BATCH, include_vectors=True, tenant=tenant, limit=max(1, total)):
        places = range(seen, seen + len(page))
        chosen = [record for at, record in zip(places, page) if (at + 1) * wanted // total > at * wanted // total]
        kept += [record for record in chosen if record.vector is not None]
        seen += len(page)
        if progress is not None:
            progress(min(seen, total), total)
        if stop is not None and stop():
            break
    if not kept:
        raise InvalidArgument("no record that was looked at has a vector: there is nothing to draw")
    stored = np.stack([record.vector for record in kept if record.vector is not None])
    vectors = (np.unpackbits(stored, axis=1) if docs.dtype == "bits" else stored).astype(np.float32)
    for record in kept:
        record.vector = None
    points, part = principal(vectors)
    return Projection(points, kept, part, seen, max(seen, total), sequence)


def principal(vectors: NDArray[Any]) -> tuple[Floats, float]:
    """The first two principal components of float[n, dim]: float32[n, 2] scaled into [-1, 1], and the share of the
    variance that they have. By subspace iteration, which needs no matrix of dim by dim.
    """
    n, dim = vectors.shape
    centred = np.ascontiguousarray(vectors, np.float32)
    centred = centred - centred.mean(axis=0)
    variance = float((centred.astype(np.float64) ** 2).sum())
    out = np.zeros((n, 2), np.float32)
    if n < 2 or variance == 0:
        return out, 1.0
    basis = np.linalg.qr(np.random.default_rng(0).standard_normal((dim, min(6, dim))))[0].astype(np.float32)
    for _ in range(_ROUNDS):
        basis = np.linalg.qr(centred.T @ (centred @ basis))[0].astype(np.float32)
    images = centred @ basis
    _, strengths, rotation = np.linalg.svd(images, full_matrices=False)
    axes = images @ rotation.T[:, :2]
    axes *= np.where(np.abs(axes.min(axis=0)) > axes.max(axis=0), -1, 1)  # the same way round each time
    out[:, : axes.shape[1]] = axes
    part = float((strengths[:2].astype(np.float64) ** 2).sum() / variance)
    return out / max(float(np.abs(out).max()), 1e-30), min(1.0, part)


def colour_fields(records: list[vecdb.Record]) -> list[str]:
    """Fields of the sample by which points can be told apart, by name."""
    seen = Counter(name for record in records for name, value in record.fields.items() if _plain(value))
    return sorted(seen)


def colours(records: list[vecdb.Record], field: str) -> tuple[list[int], list[str], str]:
    """A colour of each record, an index into the legend's lines, -1 without one; the lines; and "values" of a field
    with few values, "steps" of one of many numbers, which are cut into steps of as many records.
    """
    values = [record.fields.get(field) if field else None for record in records]
    known = [value for value in values if _plain(value)]
    if not known:
        return [-1] * len(records), [], "values"
    if len(set(map(_key, known))) > COLOURS and all(is_number(value) for value in known):
        return _steps(values)
    frequent = [key for key, _ in Counter(map(_key, known)).most_common(COLOURS)]
    at = {key: number for number, key in enumerate(frequent)}
    codes = [at.get(_key(value), -1) if _plain(value) else -1 for value in values]
    return codes, [short(value) for _, value in frequent], "values"


def _steps(values: list[Any]) -> tuple[list[int], list[str], str]:
    numbers = np.array([float(value) for value in values if is_number(value)])
    numbers = numbers[np.isfinite(numbers)]
    if not len(numbers):
        return [-1] * len(values), [], "steps"
    edges = np.unique(np.quantile(numbers, np.linspace(0, 1, _STEPS + 1)))
    if len(edges) < 2:
        edges = np.array([edges[0], edges[0]])
    lines = [f"{low:.6g} to {high:.6g}" for low, high in pairwise(edges)]
    inner = edges[1:-1]
    codes = [
        int(np.searchsorted(inner, float(value), side="right")) if is_number(value) and np.isfinite(value) else -1
        for value in values
    ]
    return codes, lines, "steps"


def _plain(value: Any) -> bool:
    return isinstance(value, (str, int, float, bool)) or (value is not None and not isinstance(value, (list, dict)))


def _key(value: Any) -> tuple[str, Any]:
    return type(value).__name__, value
