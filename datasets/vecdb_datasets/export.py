"""The HDF5 files of ann-benchmarks (Aumueller et al.), written and read.

    train float32[n, dim]   test float32[nq, dim]   neighbors int32[nq, k]   distances float32[nq, k]
    attributes: type "dense", distance "euclidean" | "angular", dimension, point_type "float"

Their distances differ from vecdb's: euclidean is the root of l2; angular is 1 - cosine. They have no inner product, so
an ip set is written as angular if its vectors have unit norm (the ranking is the same) and refused otherwise.
"""

from __future__ import annotations

import os
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vecdb import Corruption, InvalidArgument, Metric

from .dataset import Dataset
from .formats.arrays.hdf5 import open_hdf5_file
from .formats.optional import optional_module
from .formats.records.target import Target
from .truth import Truth

chunk_rows = 16_384
unit_tolerance = 1e-3
_METRICS: dict[str, Metric] = {"euclidean": "l2", "angular": "cosine"}


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
        k out of range, or an ip set that is not of unit norm.
    Unavailable
        h5py is not installed.
    """
    n = len(dataset.base)
    if not 1 <= k <= n:
        raise InvalidArgument(f"k={k}: expected 1 to {n:,}, the base rows of {dataset.name}")
    h5py = optional_module("h5py", "writing HDF5")
    if dataset.metric == "ip":
        _require_unit(dataset)
    truth = dataset.truth_for(k)
    if dataset.metric == "l2":
        distances = np.sqrt(truth.distances)
    else:
        distances = truth.distances + np.float32(dataset.metric == "ip")
    target = Target(os.fspath(path))
    try:
        with h5py.File(target.part, "w") as file:
            file.attrs["type"] = "dense"
            file.attrs["distance"] = "euclidean" if dataset.metric == "l2" else "angular"
            file.attrs["dimension"] = dataset.dim
            file.attrs["point_type"] = "float"
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
    """Read an ann-benchmarks file as a Dataset named after it, its distances turned into vecdb's.

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
            raise Corruption(f"{name}: no {', '.join(sorted(missing))}; expected the layout of ann-benchmarks")
        distance = file.attrs.get("distance", "")
        distance = distance.decode() if isinstance(distance, bytes) else str(distance)
        if distance not in _METRICS:
            raise InvalidArgument(f"{name}: distance {distance!r} is not one of {', '.join(_METRICS)}")
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
    metric = _METRICS[distance]
    ours = distances.astype(np.float32) ** 2 if metric == "l2" else distances.astype(np.float32)
    title = os.path.splitext(os.path.basename(name))[0]
    return Dataset(title, train, test, metric, Truth(neighbors.astype(np.int64), ours))


def _require_unit(dataset: Dataset) -> None:
    for start in range(0, len(dataset.base), chunk_rows):
        block = dataset.base[start : start + chunk_rows].astype(np.float32)
        away = np.abs(np.einsum("ij,ij->i", block, block) - 1)
        if (away > unit_tolerance).any():
            row = start + int((away > unit_tolerance).argmax())
            raise InvalidArgument(
                f"{dataset.name}: ann-benchmarks has no inner product, "
                f"and row {row} is not of unit norm; normalise the vectors"
            )
