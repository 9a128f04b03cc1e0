"""Data sets in a folder, which is given as an argument or by $VECDB_DATA.

    FOLDER/sift-photos/   base.u8bin, query.u8bin, truth100.bin         128-d uint8 SIFT descriptors, l2
    FOLDER/summaries/     base.f16.npy, query.f16.npy                   384-d float16 sentence embeddings, cosine
                          base.tags.npz                                 CSR: indptr, indices, names
                          truth100.npz, query.tags.npz                  optional

truth100.bin := nq u32, k u32, row u32[nq * k], distance f32[nq * k]. The folder may also be that of the set itself.
"""

from __future__ import annotations

import os
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vecdb import Corruption, NotFound
from vecdb_datasets.formats.headers import truth_file_bytes

from .dataset import Dataset
from .formats import open_vectors
from .truth import Truth

environment_variable = "VECDB_DATA"
_first_file = {"sift-photos": "base.u8bin", "summaries": "base.f16.npy"}

PathLike = str | os.PathLike[str]


def find_folder(name: str, folder: PathLike | None) -> Path | None:
    """The folder that holds this set's files, or None."""
    root = folder if folder is not None else os.environ.get(environment_variable)
    if not root:
        return None
    for candidate in (Path(root) / name, Path(root)):
        if (candidate / _first_file[name]).is_file():
            return candidate
    return None


def load_sift_photos(folder: PathLike | None = None) -> Dataset:
    """sift-photos: uint8[n, 128], squared L2."""
    files = _require("sift-photos", folder)
    base, queries = open_vectors(files / "base.u8bin")[:], open_vectors(files / "query.u8bin")[:]
    truth = read_truth_file(files / "truth100.bin")
    check_rows(files / "truth100.bin", truth.ids, len(base), len(queries))
    return Dataset("sift-photos", base, queries, "l2", truth)


def load_summaries(folder: PathLike | None = None) -> Dataset:
    """summaries: float16[n, 384], cosine.

    Extras, in CSR form: tag_names, tags_indptr, tags_indices; where queries have tags, query_tags_indptr and
    query_tags_indices.
    """
    files = _require("summaries", folder)
    base, queries = open_vectors(files / "base.f16.npy")[:], open_vectors(files / "query.f16.npy")[:]
    truth = None
    if (files / "truth100.npz").exists():
        stored = _npz(files / "truth100.npz", ("ids", "distances"))
        truth = Truth(stored["ids"].astype(np.int64), stored["distances"].astype(np.float32))
        check_rows(files / "truth100.npz", truth.ids, len(base), len(queries))
        if truth.distances.shape != truth.ids.shape:
            raise Corruption(f"{files / 'truth100.npz'}: {truth.distances.shape} distances for {truth.ids.shape} rows")
    tags = _npz(files / "base.tags.npz", ("indptr", "indices", "names"))
    _check_tags(files / "base.tags.npz", tags, len(base), len(tags["names"]))
    extras = {
        "tag_names": tags["names"].tolist(),
        "tags_indptr": tags["indptr"],
        "tags_indices": tags["indices"],
    }
    if (files / "query.tags.npz").exists():
        of_queries = _npz(files / "query.tags.npz", ("indptr", "indices"))
        _check_tags(files / "query.tags.npz", of_queries, len(queries), len(tags["names"]))
        extras |= {"query_tags_indptr": of_queries["indptr"], "query_tags_indices": of_queries["indices"]}
    return Dataset("summaries", base, queries, "cosine", truth, extras=extras)


def read_truth_file(path: PathLike) -> Truth:
    """Read ground truth in the layout of big-ann-benchmarks: rows, then distances.

    Raises
    ------
    Corruption
        Wrong size for its header.
    """
    size = os.path.getsize(path)
    nq, k = (int(x) for x in np.fromfile(path, "<u4", 2)) if size >= 8 else (0, 0)
    if size != truth_file_bytes(nq, k) or k == 0:
        raise Corruption(
            f"{path}: header says {nq:,} x {k}, expected {truth_file_bytes(nq, k):,} bytes, the file has {size:,}"
        )
    ids = np.fromfile(path, "<u4", nq * k, offset=8).reshape(nq, k)
    distances = np.fromfile(path, "<f4", nq * k, offset=8 + nq * k * 4).reshape(nq, k)
    return Truth(ids.astype(np.int64), distances.astype(np.float32))


def write_truth_file(path: PathLike, truth: Truth) -> None:
    """Write ground truth in the layout of big-ann-benchmarks."""
    with open(path, "wb") as handle:
        handle.write(np.array(truth.ids.shape, "<u4").tobytes())
        handle.write(truth.ids.astype("<u4").tobytes() + truth.distances.astype("<f4").tobytes())


def _require(name: str, folder: PathLike | None) -> Path:
    files = find_folder(name, folder)
    if files is None:
        where = folder if folder is not None else os.environ.get(environment_variable)
        tried = f"{where} has no {name}/{_first_file[name]}" if where else f"${environment_variable} is not set"
        raise NotFound(f"data set {name!r} is read from a folder: {tried}; pass folder= or set {environment_variable}")
    return files


def check_rows(path: Path, rows: NDArray[Any], n: int, nq: int) -> None:
    """Raise Corruption unless the rows of a truth, int[nq, k], are among n base rows."""
    if rows.ndim != 2 or len(rows) != nq:
        raise Corruption(f"{path}: rows of shape {rows.shape}, expected some for each of {nq:,} queries")
    if rows.size and not 0 <= rows.min() <= rows.max() < n:
        raise Corruption(f"{path}: a row outside the base rows: expected rows below {n:,}")


def _check_tags(path: Path, csr: dict[str, NDArray[Any]], rows: int, names: int) -> None:
    if len(csr["indptr"]) != rows + 1 or csr["indptr"][-1] != len(csr["indices"]):
        raise Corruption(
            f"{path}: indptr has {len(csr['indptr'])} entries, expected {rows + 1} ending at the count of indices"
        )
    if len(csr["indices"]) and not 0 <= csr["indices"].min() <= csr["indices"].max() < names:
        raise Corruption(f"{path}: a tag number is outside the {names} names")


def _npz(path: Path, names: tuple[str, ...]) -> dict[str, NDArray[Any]]:
    try:
        with np.load(path, allow_pickle=False) as stored:
            return {name: stored[name] for name in names}
    except FileNotFoundError as error:
        raise NotFound(f"{path}: no such file") from error
    except (KeyError, ValueError, OSError, EOFError, zipfile.BadZipFile) as error:
        raise Corruption(f"{path}: cannot be read ({error}); expected arrays {', '.join(names)}") from error
