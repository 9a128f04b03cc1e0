"""HDF5 in the layout of ann-benchmarks: train, test float[n, dim]; neighbors int[nq, k]; distances float[nq, k].

The attribute `distance` names the metric. h5py is imported on first use.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from vecdb import Corruption, InvalidArgument, NotFound

from .source import Array, VectorSource, optional_module


def open_hdf5_file(path: str) -> Any:
    """Open an HDF5 file for reading as an h5py.File, with typed errors."""
    h5py = optional_module("h5py", "reading HDF5")
    try:
        return h5py.File(path, "r")
    except OSError as error:
        raise Corruption(f"{path}: HDF5 cannot open it ({error})") from error


class Hdf5Source(VectorSource):
    """One dataset of an HDF5 file. `key=None` takes "train", or the only matrix of numbers there is."""

    def __init__(self, path: str, check_finite: bool, key: str | None = None) -> None:
        self._file = open_hdf5_file(path)
        try:
            self.key = self._choose(path, key)
            self._data = self._file[self.key]
            super().__init__(path, "hdf5", self._data.shape, self._data.dtype, check_finite)
        except BaseException:
            self._file.close()
            raise

    def _choose(self, path: str, key: str | None) -> str:
        matrices = [
            name
            for name, item in self._file.items()
            if getattr(item, "ndim", None) == 2 and getattr(item, "dtype", np.dtype("V1")).kind in "fiu"
        ]
        if key is None:
            if "train" in matrices:
                return "train"
            if len(matrices) == 1:
                return str(matrices[0])
            raise InvalidArgument(f"{path}: say which dataset to read with key=; matrices here: {matrices}")
        if key not in self._file:
            raise NotFound(f"{path}: no dataset {key!r}; matrices here: {matrices}")
        if key not in matrices:
            raise InvalidArgument(f"{path}: {key!r} is not a matrix of numbers; matrices here: {matrices}")
        return key

    def _read(self, start: int, stop: int) -> Array:
        if not self._file:
            raise InvalidArgument(f"{self.path}: this source is closed; open it again")
        try:
            return np.asarray(self._data[start:stop], dtype=self.dtype)
        except OSError as error:
            raise Corruption(f"{self.path}: rows {start} to {stop} of {self.key!r} cannot be read ({error})") from error

    def close(self) -> None:
        self._file.close()
