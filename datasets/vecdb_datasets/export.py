"""The HDF5 files of ann-benchmarks (Aumueller et al.) and of VIBE, written and read.

    train float32[n, dim]   test float32[nq, dim]   neighbors int32[nq, k]   distances float32[nq, k]
    attributes: distance, dimension, point_type "float", and ann-benchmarks' type "dense"

    distance      is                    of ann-benchmarks    of VIBE
    euclidean     the root of l2        l2                   l2
    angular       1 - cosine            cosine; ip of unit norm
    cosine        1 - cosine                                 cosine
    normalized    1 - inner product                          cosine and ip of unit norm
    ip            minus inner product                        ip otherwise

Unit norm is that of rows and of queries: an ip set with queries of other norms has the same neighbours under angular,
at other distances. ann-benchmarks has no inner product, so any other ip set is refused.
"""

from __future__ import annotations

import os
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vecdb import Corruption, InvalidArgument, Metric

from .dataset import Dataset, zero_vectors_of
from .formats.arrays.hdf5 import open_hdf5_file
from .formats.optional import optional_module
from .formats.records.target import Target
from .truth import Truth

chunk_rows = 16_384
unit_tolerance = 1e-3
METRICS: dict[str, Metric] = {
    "euclidean": "l2", "angular": "cosine", "cosine": "cosine", "normalized": "cosine", "ip": "ip",
}  # fmt: skip


def shuffled(dataset: Dataset, seed: int) -> Dataset:
    """The same data set with its queries, and what belongs to them, in another order: some sets have the easy ones
    first, so that a part of them says little of all. The order of a seed never changes.
    """
    order = np.random.RandomState(seed).permutation(len(dataset.queries))
    truth = dataset.truth
    extras = dict(dataset.extras)
    if "query_tags_indptr" in extras:
        indptr, indices = extras["query_tags_indptr"], extras["query_tags_indices"]
        lines = [indices[indptr[i] : indptr[i + 1]] for i in order]
        extras["query_tags_indptr"] = np.concatenate([[0], np.cumsum([len(line) for line in lines])])
        extras["query_tags_indices"] = np.concatenate(lines)
    if "query_rows" in extras:
        extras["query_rows"] = extras["query_rows"][order]
    return replace(
        dataset,
        queries=dataset.queries[order],
        truth=None if truth is None else Truth(truth.ids[order], truth.distances[order]),
        extras=extras,
    )


def export_ann_benchmarks(dataset: Dataset, path: str | os.PathLike[str], k: int = 100) -> None:
    """Write a data set as an ann-benchmarks file. Its truth is computed where it has none of width k.

    Parameters
    ----------
    dataset : Dataset
    path : the file to write; replaced as a whole, and only when everything is written.
    k : neighbours per query, at most n.

    Raises
    ------
    InvalidArgument
        k out of range, or an ip set whose rows or queries are not of unit norm.
    Unavailable
        h5py is not installed.
    """
    if dataset.metric == "ip":
        for what, vectors in (("row", dataset.base), ("query", dataset.queries)):
            at = _first_without_unit_norm(vectors)
            if at is not None:
                raise InvalidArgument(
                    f"{dataset.name}: ann-benchmarks has no inner product, and {what} {at} is not of unit norm; "
                    "normalise the vectors"
                )
    distance = "euclidean" if dataset.metric == "l2" else "angular"
    _write(dataset, path, k, distance, {"type": "dense", "distance": distance, "point_type": "float"})


def export_vibe(dataset: Dataset, path: str | os.PathLike[str], k: int = 100) -> None:
    """Write a data set as a file of VIBE, which is to be called NAME-DIM-DISTANCE.hdf5. As `export_ann_benchmarks`, but
    any ip set can be written.
    """
    distance: str = "euclidean" if dataset.metric == "l2" else dataset.metric
    if distance != "euclidean" and all(
        _first_without_unit_norm(vectors) is None for vectors in (dataset.base, dataset.queries)
    ):
        distance = "normalized"
    _write(dataset, path, k, distance, {"distance": distance, "point_type": "float"})


def _write(dataset: Dataset, path: str | os.PathLike[str], k: int, distance: str, attributes: dict[str, Any]) -> None:
    dataset.check_k(k)
    h5py = optional_module("h5py", "writing HDF5")
    truth = dataset.truth_for(k)
    if distance == "euclidean":
        distances = np.sqrt(truth.distances)
    else:  # minus the inner product becomes 1 minus it, unless that is what the file holds
        distances = truth.distances + np.float32(dataset.metric == "ip" and distance != "ip")
    target = Target(os.fspath(path))
    try:
        with h5py.File(target.part, "w") as file:
            file.attrs.update(attributes | {"dimension": dataset.dim})
            for name, vectors in (("train", dataset.base), ("test", dataset.queries)):
                stored = file.create_dataset(name, vectors.shape, "f4")
                for start in range(0, len(vectors), chunk_rows):
                    stored[start : start + chunk_rows] = vectors[start : start + chunk_rows]
            file.create_dataset("neighbors", data=truth.ids.astype(np.int32))
            file.create_dataset("distances", data=distances.astype(np.float32))
        target.put_in_place()
    finally:
        target.discard()


def load_ann_benchmarks(path: str | os.PathLike[str]) -> Dataset:
    """Read a file of ann-benchmarks or of VIBE as a Dataset named after it, its distances turned into vecdb's.

    Raises
    ------
    Corruption
        A part is missing or of the wrong shape.
    InvalidArgument
        A distance that vecdb does not have.
    """
    name = os.fspath(path)
    with open_hdf5_file(name) as file:
        missing = {"train", "test", "neighbors", "distances"} - set(file.keys())
        if missing:
            raise Corruption(f"{name}: no {', '.join(sorted(missing))}; expected the layout of ann-benchmarks or VIBE")
        distance = file.attrs.get("distance", "")
        distance = distance.decode() if isinstance(distance, bytes) else str(distance)
        if distance not in METRICS:
            raise InvalidArgument(f"{name}: distance {distance!r} is not one of {', '.join(METRICS)}")
        parts: dict[str, NDArray[Any]] = {
            key: np.asarray(file[key]) for key in ("train", "test", "neighbors", "distances")
        }
    train, test, neighbors, distances = parts.values()
    shapes = ", ".join(f"{key} {part.shape}" for key, part in parts.items())
    if (
        train.ndim != 2
        or test.shape[1:] != train.shape[1:]
        or neighbors.shape != distances.shape
        or len(neighbors) != len(test)
    ):
        raise Corruption(f"{name}: shapes do not agree: {shapes}")
    metric = METRICS[distance]
    ours = distances.astype(np.float32) ** 2 if metric == "l2" else distances.astype(np.float32)
    title = os.path.splitext(os.path.basename(name))[0]
    truth = Truth(neighbors.astype(np.int64), ours)
    return Dataset(title, train, test, metric, truth, zero_vectors=zero_vectors_of(metric, train, test))


def _first_without_unit_norm(vectors: NDArray[Any]) -> int | None:
    for start in range(0, len(vectors), chunk_rows):
        block = vectors[start : start + chunk_rows].astype(np.float32)
        away = np.abs(np.einsum("ij,ij->i", block, block) - 1)
        if (away > unit_tolerance).any():
            return start + int((away > unit_tolerance).argmax())
    return None
