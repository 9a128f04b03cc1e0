"""Data sets as folders of files for big-ann-benchmarks and VectorDBBench; and big-ann's own kinds of file.

    big-ann          base.fbin (u8bin, i8bin), query.fbin, truth100.bin; with tags base.tags.spmat, query.tags.spmat
    VectorDBBench    train.parquet (id, emb), test.parquet (id, emb), neighbors.parquet (id, neighbors_id),
                     scalar_labels.parquet (id, labels); of rows with a label neighbors_labels_label_1p.parquet, of
                     those whose id is above a share of all neighbors_int_1p.parquet, and the like

    one's own        base.npy, query.npy and, where there is one, truth.npy (rows, int[nq, k]) or truth100.bin; vectors
                     in any format that open_vectors reads. The folder is called NAME-euclidean, -cosine or -ip.

    spmat            rows, columns, entries: i64; then i64[rows + 1] where each row begins, i32[entries] places,
                     f32[entries] values, which say nothing of tags
    range truth      queries, results: u32; then u32[queries] how many each has, u32[results] rows,
                     f32[results] distances

All little-endian. A folder is made as a whole: its files are written beside it and moved when they are complete.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from vecdb import AlreadyExists, Corruption, InvalidArgument, NotFound

from .dataset import Dataset, zero_vectors_of
from .export import METRICS
from .folders import check_rows, read_truth_file, write_truth_file
from .formats import open_vectors, write_vectors
from .formats.optional import optional_module
from .truth import Truth, exact_truth, pair_distances

Array = NDArray[Any]
PathLike = str | os.PathLike[str]
LABEL_SHARES = (0.01, 0.1, 0.5)  # of records with a label of VectorDBBench
CUT_SHARES = (0.01, 0.1, 0.5, 0.9, 0.99)  # of records that VectorDBBench's filter of numbers leaves out
_EXTENSIONS = {"float32": "fbin", "uint8": "u8bin", "int8": "i8bin"}
_LABEL_SEED = 7


class Csr(NamedTuple):
    """A sparse matrix. indptr : int64[rows + 1].   indices : int32[entries].   columns : how many there are."""

    indptr: NDArray[np.int64]
    indices: NDArray[np.int32]
    columns: int


class RangeTruth(NamedTuple):
    """All rows within a radius of each query. indptr : int64[nq + 1], where each query's rows and distances begin."""

    indptr: NDArray[np.int64]
    rows: NDArray[np.int64]
    distances: NDArray[np.float32]


def read_spmat(path: PathLike) -> Csr:
    """Read a sparse matrix of big-ann-benchmarks, without its values. Raises Corruption where it is not one."""
    size = os.path.getsize(path)
    head = np.fromfile(path, "<i8", 3)
    rows, columns, entries = (int(value) for value in head) if len(head) == 3 else (-1, -1, -1)
    expected = 24 + 8 * (rows + 1) + 8 * entries
    if min(rows, columns, entries) < 0 or size != expected:
        raise Corruption(f"{path}: no spmat file: its header asks for {max(expected, 24):,} bytes, it has {size:,}")
    indptr = np.fromfile(path, "<i8", rows + 1, offset=24).astype(np.int64)
    indices = np.fromfile(path, "<i4", entries, offset=24 + 8 * (rows + 1)).astype(np.int32)
    if indptr[0] != 0 or indptr[-1] != entries or (np.diff(indptr) < 0).any():
        raise Corruption(f"{path}: where its rows begin is not in order from 0 to {entries:,}")
    if entries and not 0 <= indices.min() <= indices.max() < columns:
        raise Corruption(f"{path}: a place outside its {columns:,} columns")
    return Csr(indptr, indices, columns)


def write_spmat(path: PathLike, matrix: Csr) -> None:
    """Write a sparse matrix as big-ann-benchmarks does, every value 1."""
    rows, entries = len(matrix.indptr) - 1, len(matrix.indices)
    with open(path, "wb") as handle:
        handle.write(np.array([rows, matrix.columns, entries], "<i8").tobytes())
        handle.write(np.asarray(matrix.indptr, "<i8").tobytes() + np.asarray(matrix.indices, "<i4").tobytes())
        handle.write(np.ones(entries, "<f4").tobytes())


def read_range_truth(path: PathLike) -> RangeTruth:
    """Read the truth of a range search of big-ann-benchmarks. Raises Corruption where it is not one."""
    size = os.path.getsize(path)
    head = np.fromfile(path, "<u4", 2)
    nq, results = (int(value) for value in head) if len(head) == 2 else (0, 0)
    if len(head) != 2 or size != 8 + 4 * nq + 8 * results:
        raise Corruption(f"{path}: no range truth: its header says {nq:,} queries and {results:,} results")
    counts = np.fromfile(path, "<u4", nq, offset=8).astype(np.int64)
    if counts.sum() != results:
        raise Corruption(f"{path}: its queries have {int(counts.sum()):,} results, its header says {results:,}")
    rows = np.fromfile(path, "<u4", results, offset=8 + 4 * nq).astype(np.int64)
    distances = np.fromfile(path, "<f4", results, offset=8 + 4 * nq + 4 * results).astype(np.float32)
    return RangeTruth(np.concatenate([[0], np.cumsum(counts)]), rows, distances)


def export_big_ann(dataset: Dataset, folder: PathLike, k: int = 100) -> None:
    """Write a data set as a folder of big-ann-benchmarks' files; float16 becomes float32.

    Raises
    ------
    InvalidArgument
        k out of range, or a dtype that none of its files holds.
    AlreadyExists
        The folder is there.
    """
    dataset.check_k(k)
    dtype = "float32" if dataset.base.dtype == np.float16 else str(dataset.base.dtype)
    if dtype not in _EXTENSIONS:
        raise InvalidArgument(f"{dataset.name}: big-ann-benchmarks has no file of {dtype}")
    with _NewFolder(folder) as part:
        for name, vectors in (("base", dataset.base), ("query", dataset.queries)):
            write_vectors(part / f"{name}.{_EXTENSIONS[dtype]}", np.asarray(vectors, dtype))
        write_truth_file(part / f"truth{k}.bin", dataset.truth_for(k))
        for name, prefix in (("base", "tags"), ("query", "query_tags")):
            if f"{prefix}_indptr" in dataset.extras:
                indptr, indices = dataset.extras[f"{prefix}_indptr"], dataset.extras[f"{prefix}_indices"]
                write_spmat(part / f"{name}.tags.spmat", Csr(indptr, indices, len(dataset.extras["tag_names"])))


def export_vectordbbench(
    dataset: Dataset, folder: PathLike, k: int = 100, shares: Sequence[float] = LABEL_SHARES,
    cuts: Sequence[float] = CUT_SHARES,
) -> None:  # fmt: skip
    """Write a data set as a folder that VectorDBBench takes for a custom one. Each record has a label, drawn with a
    fixed seed: label_10p for a tenth of them, and so on for all shares, label_rest for others. For each of `cuts`
    there is the truth among the records whose id is at least that share of their number.

    Raises
    ------
    InvalidArgument
        k out of range, shares that are not above 0 or come to more than 1, cuts that are not between 0 and 1.
    AlreadyExists
        The folder is there.
    Unavailable
        pyarrow is not installed.
    """
    dataset.check_k(k)
    if min(shares, default=1) <= 0 or sum(shares) > 1:
        raise InvalidArgument(f"shares {list(shares)}: expected numbers above 0 that come to 1 at most")
    if not all(0 < cut < 1 for cut in cuts):
        raise InvalidArgument(f"cuts {list(cuts)}: expected numbers between 0 and 1")
    names = [f"label_{_percent(share)}" for share in shares] + ["label_rest"]
    size = len(dataset.base)
    drawn = np.searchsorted(np.cumsum(shares), np.random.RandomState(_LABEL_SEED).rand(size), "right")
    parts = {f"labels_{label}": np.flatnonzero(drawn == i) for i, label in enumerate(names[:-1])}
    parts |= {f"int_{_percent(cut, whole_to=99)}": np.arange(int(size * cut), size) for cut in cuts}
    with _NewFolder(folder) as part:
        for name, vectors in (("train", dataset.base), ("test", dataset.queries)):
            _write_parquet(part / f"{name}.parquet", emb=np.asarray(vectors, np.float32))
        _write_parquet(part / "neighbors.parquet", neighbors_id=dataset.truth_for(k).ids)
        _write_parquet(part / "scalar_labels.parquet", labels=np.array(names)[drawn])
        for name, rows in parts.items():
            if len(rows):
                found = exact_truth(
                    dataset.base[rows], dataset.queries, dataset.metric, min(k, len(rows)), cache=False,
                    zero_vectors=dataset.zero_vectors,
                )  # fmt: skip
                _write_parquet(part / f"neighbors_{name}.parquet", neighbors_id=rows[found.ids])


def _write_parquet(path: Path, **columns: Array) -> None:
    """Columns of one length n, as [n] or as lists of [n, width]; `id` comes first, which counts them."""
    arrow = optional_module("pyarrow", "writing Parquet")
    parquet = optional_module("pyarrow.parquet", "writing Parquet")

    def column(values: Array) -> Any:
        flat = arrow.array(np.ascontiguousarray(values).reshape(-1))
        if values.ndim == 1:
            return flat
        return arrow.ListArray.from_arrays(np.arange(0, values.size + 1, values.shape[1], dtype=np.int32), flat)

    made = {name: column(values) for name, values in columns.items()}
    parquet.write_table(arrow.table({"id": np.arange(len(next(iter(made.values())))), **made}), path)


def load_own(folder: PathLike) -> Dataset:
    """A researcher's own data set, from a folder with the files that the module's text names.

    Raises
    ------
    NotFound
        No base or no query file.
    InvalidArgument
        The folder's name ends in no distance.
    Corruption
        The truth is not that of so many rows and queries.
    """
    path = Path(folder)
    distance = path.name.rsplit("-", 1)[-1]
    if distance not in METRICS:
        raise InvalidArgument(
            f"{path} is to be called {path.name}-euclidean, -cosine or -ip: its name says how rows are compared"
        )
    metric = METRICS[distance]
    parts = []
    for name in ("base", "query"):
        files = [one for one in sorted(path.glob(f"{name}.*")) if not one.name.endswith((".spmat", ".json", ".jsonl"))]
        if len(files) != 1:
            raise NotFound(f"{path} has {len(files)} files {name}.*, expected one, such as {name}.npy")
        with open_vectors(files[0]) as source:
            parts.append(np.asarray(source[:]))
    base, queries = parts
    truth = None
    if (path / "truth.npy").exists():
        rows = np.load(path / "truth.npy", allow_pickle=False).astype(np.int64)
        check_rows(path / "truth.npy", rows, len(base), len(queries))
        truth = Truth(rows, np.stack([
            pair_distances(np.broadcast_to(query, (rows.shape[1], len(query))), base[line], metric)
            for query, line in zip(queries, rows, strict=True)
        ]).astype(np.float32))  # fmt: skip
    elif files := sorted(path.glob("truth*.bin")):
        truth = read_truth_file(files[-1])
        check_rows(files[-1], truth.ids, len(base), len(queries))
    return Dataset(path.name, base, queries, metric, truth, zero_vectors=zero_vectors_of(metric, base, queries))


def _percent(share: float, whole_to: float = 100) -> str:
    """A share as VectorDBBench writes it in names: percents from 1 to `whole_to` are cut off, not rounded."""
    percent = 100 * share
    return f"{int(percent)}p" if 1 <= percent <= whole_to else f"{percent:.1f}p"


class _NewFolder:
    """A folder that is there once all of its files are."""

    def __init__(self, folder: PathLike) -> None:
        self._target = Path(folder)
        if self._target.exists():
            raise AlreadyExists(f"{folder} is there: name a folder that is not, or remove it")
        self._part = self._target.with_name(f"{self._target.name}.part-{os.getpid()}")

    def __enter__(self) -> Path:
        self._part.mkdir(parents=True)
        return self._part

    def __exit__(self, kind: type[BaseException] | None, *rest: object) -> None:
        if kind is None:
            self._part.rename(self._target)
        else:
            shutil.rmtree(self._part, ignore_errors=True)
