"""Names of tenants, and the access lists that a write carries."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vecdb import limits
from vecdb.errors import InvalidArgument, LimitExceeded
from vecdb.validate.common import gil_slices, integer, short_repr, utf8

_SLICE = 512  # lists per bytecode stretch
_EITHER = (
    "which could be one each or all for all records: pass a list of lists, [[name] for name in names], for one each, "
    "or a set of names, {'a', 'b'}, for all"
)


@dataclass(frozen=True, slots=True)
class AccessLists:
    """Tenants of the records of one call, as pairs.

    names : UTF-8, distinct, in order.   records, which : int64[pairs], position of the record in the call, ascending,
    and of the tenant in names; each pair once.   kept : lists of records that are there stay, and gain these.
    """

    names: list[bytes]
    records: NDArray[np.int64]
    which: NDArray[np.int64]
    kept: bool = False

    def take(self, positions: NDArray[np.int64], n: int) -> AccessLists:
        """Lists of the records at `positions` (ascending) of n, which are numbered anew."""
        new = np.full(n, -1, np.int64)
        new[positions] = np.arange(len(positions))
        left = new[self.records]
        return AccessLists(self.names, left[left >= 0], self.which[left >= 0], self.kept)


@dataclass(frozen=True, slots=True)
class TenantColumns:
    """A list of names for each record, as a message has them: all names in a row, and how many are of each record.

    names : texts.   counts : int64[n], whose sum is the length of `which`.   which : int64, places in names.
    """

    names: list[str]
    counts: NDArray[np.int64]
    which: NDArray[np.int64]

    def lists(self) -> list[list[str]]:
        ends = np.cumsum(self.counts).tolist()
        chosen = [self.names[at] for at in self.which.tolist()]
        return [chosen[start:end] for start, end in zip([0, *ends], ends, strict=False)]


def tenant_name(name: object) -> bytes:
    """UTF-8 of a tenant's name: 1 to 256 bytes."""
    if not isinstance(name, str):
        raise InvalidArgument(f"a tenant's name must be a string, got {short_repr(name)}")
    if not name:
        raise InvalidArgument("a tenant's name must not be empty")
    return utf8(name, "a tenant's name", limits.tenant_bytes_max)


def tenant_names(names: object, what: str = "tenant") -> list[bytes]:
    """UTF-8 of the names that a caller gives, one or a list of them: distinct, in order, at least one."""
    if isinstance(names, str):
        return [tenant_name(names)]
    found = _distinct(_listed(names, what))
    if not found:
        raise InvalidArgument(f"{what} is an empty list: name at least one tenant, or leave it out")
    return sorted(map(tenant_name, found))


def search_tenants(tenant: object) -> tuple[str, ...]:
    """Names whose records a search may return, distinct, in order; () for None, which is all records. A lone name is
    the common case.
    """
    if tenant is None:
        return ()
    if type(tenant) is str and tenant.isascii() and 0 < len(tenant) <= limits.tenant_bytes_max:
        return (tenant,)
    names = tenant_names(tenant)
    if len(names) > limits.union_tenants_max:
        raise LimitExceeded(f"a search takes at most {limits.union_tenants_max:,} tenants, got {len(names):,}")
    return tuple(name.decode() for name in names)


def records_max(value: object) -> int | None:
    """A tenant's quota: None, or at least 1."""
    return None if value is None else integer(value, "records_max", 1, limits.tenant_records_max)


def access_lists(tenants: object, n: int, *, single: bool, kept: bool = False) -> AccessLists:
    """A set or list of names for all of n records, or a list or column of lists, one per record; a bare name is a list
    of one. A list of as many names as there are records is refused: it could be either.

    single : the call is about one bare id, whose tenants are one list.   kept : of AccessLists.
    """
    if isinstance(tenants, TenantColumns):
        _check_lists(len(tenants.counts), n, single)
        return _of_columns(tenants, n, kept)
    listed = frozenset([tenants]) if isinstance(tenants, str) else listed_tenants(tenants, n)
    names = sum(isinstance(one, str) for one in listed)
    if names == len(listed):
        return _same_for_all(listed, n, kept)
    parts = [[] if isinstance(one, str) else _listed(one, f"tenants[{i}]") for i, one in enumerate(listed)]
    if names:
        raise InvalidArgument(
            "tenants has names and lists of names: pass one list of names for all records, or a list of lists, one each"
        )
    _check_lists(len(listed), n, single)
    return _one_each(parts, n, kept)


def _check_lists(lists: int, n: int, single: bool) -> None:
    if single:
        raise InvalidArgument("tenants of one bare id must be one list of names, got a list of lists")
    if lists != n:
        raise InvalidArgument(f"got {n:,} ids and {lists:,} lists of tenants: pass one per id, or one for all")


def listed_tenants(tenants: object, n: int) -> list[Any] | tuple[Any, ...] | frozenset[str]:
    """The `tenants` of a write of n records: a set of names for all of them, or a list of lists. A column of a table
    has a list for each record. Raises InvalidArgument for names that could be one each or all for all.
    """
    for method in ("to_pylist", "to_list"):  # Arrow; polars, pandas
        if hasattr(tenants, method):
            column: list[Any] = getattr(tenants, method)()
            if any(isinstance(one, str) for one in column):
                raise InvalidArgument(f"tenants is a column of names, {_EITHER}")
            return column
    listed = _listed(tenants, "tenants")
    if not all(isinstance(one, str) for one in listed):
        return listed
    if len(listed) == n > 1 and not isinstance(tenants, (set, frozenset)):
        raise InvalidArgument(f"tenants is a list of as many names as there are ids, {n:,}, {_EITHER}")
    return frozenset(listed)


def _listed(value: object, what: str) -> list[Any] | tuple[Any, ...]:
    if isinstance(value, (list, tuple)):
        return value
    if isinstance(value, (set, frozenset)):
        return list(value)
    if isinstance(value, np.ndarray) and value.ndim == 1:
        return list(value.tolist())
    raise InvalidArgument(f"{what} must be a name or a list of names, got {short_repr(value)}")


def _distinct(names: Iterable[Any]) -> set[Any]:
    try:
        found = set(names)
    except TypeError:
        raise InvalidArgument("a tenant's name must be a string, got a list or dict in its place") from None
    if len(found) > limits.tenants_per_call_max:
        raise LimitExceeded(f"one call takes at most {limits.tenants_per_call_max:,} tenants, got {len(found):,}")
    return found


def _refuse_many(pairs: int, of_one: int) -> None:
    if of_one > limits.tenants_per_record_max:
        raise LimitExceeded(f"a record has at most {limits.tenants_per_record_max:,} tenants, got {of_one:,}")
    check_pairs(pairs)


def check_pairs(pairs: int) -> None:
    if pairs > limits.pairs_per_call_max:
        raise LimitExceeded(
            f"one call takes at most {limits.pairs_per_call_max:,} pairs of record and tenant, got {pairs:,}: "
            "split the batch"
        )


def _same_for_all(listed: Collection[Any], n: int, kept: bool) -> AccessLists:
    names = sorted(map(tenant_name, _distinct(listed)))
    _refuse_many(n * len(names), len(names))
    return AccessLists(names, np.repeat(np.arange(n), len(names)), np.tile(np.arange(len(names)), n), kept)


def _one_each(parts: Sequence[Sequence[Any]], n: int, kept: bool) -> AccessLists:
    lengths = np.fromiter(map(len, parts), np.int64, n)
    _refuse_many(int(lengths.sum()), int(lengths.max(initial=0)))
    seen: set[Any] = set()
    for start, stop in gil_slices(n, _SLICE):
        seen |= _distinct(name for one in parts[start:stop] for name in one)
    encoded = {tenant_name(name): name for name in _distinct(seen)}
    names = sorted(encoded)
    place = {encoded[name]: i for i, name in enumerate(names)}
    which = np.empty(int(lengths.sum()), np.int64)
    at = 0
    for start, stop in gil_slices(n, _SLICE):
        found = [place[name] for one in parts[start:stop] for name in one]
        which[at : at + len(found)] = found
        at += len(found)
    return _each_once(names, lengths, which, kept)


def _of_columns(given: TenantColumns, n: int, kept: bool) -> AccessLists:
    _refuse_many(len(given.which), int(given.counts.max(initial=0)))
    used = np.unique(given.which).tolist()
    encoded = {name: tenant_name(name) for name in _distinct(given.names[at] for at in used)}
    names = sorted(encoded.values())
    place = {name: i for i, name in enumerate(names)}
    places = np.zeros(len(given.names), np.int64)
    places[used] = [place[encoded[given.names[at]]] for at in used]
    return _each_once(names, given.counts, places[given.which], kept)


def _each_once(names: list[bytes], lengths: NDArray[np.int64], which: NDArray[np.int64], kept: bool) -> AccessLists:
    """lengths : int64[n], pairs of each record.   which : int64[pairs], places in names, which may repeat."""
    pairs = np.unique(np.repeat(np.arange(len(lengths)), lengths) * max(1, len(names)) + which)
    records, which = np.divmod(pairs, max(1, len(names)))
    return AccessLists(names, records, which, kept)
