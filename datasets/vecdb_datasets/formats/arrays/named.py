"""Arrays that have names, as in HDF5, npz and safetensors: which is the matrix of vectors, which are its ids."""

from __future__ import annotations

import posixpath
from collections.abc import Collection, Mapping, Sequence
from typing import Any

from vecdb import InvalidArgument, NotFound

from ..source import Array
from ..tables.columns import ID_NAMES, VECTOR_NAMES, as_ids

_FIRST_NAMES = ("train", *VECTOR_NAMES)


def choose_array(path: str, key: str | None, matrices: Sequence[str], names: Collection[str]) -> str:
    """The matrix of vectors: the named one, one with a usual name, or the only one.

    names : of all arrays.   Raises NotFound, or InvalidArgument where none or several could be it.
    """
    if key is not None:
        found = key.strip("/")
        if found not in names:
            raise NotFound(f"{path}: no dataset {key!r}; matrices here: {list(matrices)}")
        if found not in matrices:
            raise InvalidArgument(f"{path}: {key!r} is not a matrix of numbers; matrices here: {list(matrices)}")
        return found
    last = {posixpath.basename(name).lower(): name for name in reversed(matrices)}
    for name in _FIRST_NAMES:
        if name in last:
            return last[name]
    if len(matrices) == 1:
        return matrices[0]
    raise InvalidArgument(f"{path}: say which dataset to read with key=; matrices here: {list(matrices)}")


def choose_ids(path: str, asked: str | None, key: str, rows: int, lines: Mapping[str, Any]) -> str | None:
    """The array of ids: the named one, or one with a usual name beside the matrix `key`; None where there is none.

    lines : the arrays of one dimension.   rows : that the matrix has.
    """
    if asked is not None:
        found = asked.strip("/")
        if found not in lines:
            raise NotFound(f"{path}: no array {asked!r} that can be the ids; arrays that can: {list(lines)}")
    else:
        folder = posixpath.dirname(key)
        beside = {posixpath.basename(name).lower(): name for name in lines if posixpath.dirname(name) == folder}
        found = next((beside[name] for name in ID_NAMES if name in beside), "")
        if not found:
            return None
    if len(lines[found]) != rows:
        raise InvalidArgument(f"{path}: {len(lines[found]):,} ids in {found!r} for {rows:,} vectors in {key!r}")
    return found


class IdArray:
    """Ids that stand in an array beside the vectors."""

    def __init__(self, path: str, name: str, values: Array) -> None:
        self._path, self._name, self._values = path, name, values

    def take(self, start: int, stop: int) -> list[Any]:
        cells = self._values[start:stop].tolist()
        if self._values.dtype.kind == "S":
            cells = [one.decode("utf-8", "surrogateescape") for one in cells]
        ids, wrong = as_ids(cells)
        for at, what in wrong.items():
            raise InvalidArgument(f"{self._path}: row {start + at}: its id in {self._name!r} {what}")
        return ids
