"""HDF5 in the layout of ann-benchmarks: train, test float[n, dim]; neighbors int[nq, k]; distances float[nq, k].

A matrix at any other path may be named by `key`, an array of ids beside it by `id_column`. The attribute `distance` of
the file, or `metric`, names the metric. h5py is imported on first use.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from vecdb import Corruption, InvalidArgument

from ..inputs import InputFile
from ..optional import optional_module
from ..source import Array, VectorSource
from .named import IdArray, choose_array, choose_ids

_METRICS = {
    "euclidean": "l2", "l2": "l2", "sqeuclidean": "l2", "angular": "cosine", "cosine": "cosine",
    "ip": "ip", "dot": "ip", "inner_product": "ip", "inner product": "ip",
}  # fmt: skip


def open_hdf5_file(path: str) -> Any:
    """Open an HDF5 file for reading as an h5py.File, with typed errors."""
    h5py = optional_module("h5py", "reading HDF5")
    try:
        return h5py.File(path, "r")
    except OSError as error:
        raise Corruption(f"{path}: HDF5 cannot open it ({error})") from error


class Hdf5Source(VectorSource):
    """One dataset of an HDF5 file. `key=None` takes "train", one with a usual name, or the only matrix there is."""

    def __init__(
        self, file: InputFile, check_finite: bool, key: str | None, id_column: str | None, new_ids: bool
    ) -> None:
        self._input = file
        self._file = open_hdf5_file(file.path)
        try:
            arrays: dict[str, Any] = {}
            self._file.visititems(lambda name, item: arrays.update({name: item} if hasattr(item, "ndim") else {}))
            matrices = [name for name, item in arrays.items() if item.ndim == 2 and item.dtype.kind in "fiu"]
            self.key = choose_array(file.name, key, matrices, arrays)
            self._data = arrays[self.key]
            lines = {name: item for name, item in arrays.items() if item.ndim == 1}
            named = None if new_ids else choose_ids(file.name, id_column, self.key, len(self._data), lines)
            self._ids = None if named is None else IdArray(file.name, named, _plain_array(lines[named]))
            super().__init__(file.name, "hdf5", self._data.shape, self._data.dtype, check_finite)
            self.metric = self._metric_of_attributes()
        except BaseException:
            self._file.close()
            raise

    def _metric_of_attributes(self) -> str | None:
        for holder in (self._data.attrs, self._file.attrs):
            for name in ("distance", "metric"):
                value = holder.get(name, "")
                text = value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value)
                if text.lower() in _METRICS:
                    return _METRICS[text.lower()]
        return None

    def _read(self, start: int, stop: int) -> Array:
        if not self._file:
            raise InvalidArgument(f"{self.path}: this source is closed; open it again")
        try:
            return np.asarray(self._data[start:stop], dtype=self.dtype)
        except OSError as error:
            raise Corruption(f"{self.path}: rows {start} to {stop} of {self.key!r} cannot be read ({error})") from error

    @property
    def has_ids(self) -> bool:
        return self._ids is not None

    def ids(self, start: int = 0, stop: int | None = None) -> list[int] | list[str] | None:
        return None if self._ids is None else self._ids.take(*self._bounds(start, stop))

    def close(self) -> None:
        self._file.close()
        self._input.close()


def _plain_array(data: Any) -> Array:
    return np.asarray(data.asstr()[:] if data.dtype.kind in "OS" else data[:])
