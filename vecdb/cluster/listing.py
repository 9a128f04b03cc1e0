"""Pages of the records of several shards, and where a page ended.

    without order_by   one shard after another, each oldest first
    with order_by      all at once, merged by the value of the field, then id and owner

    cursor := urlsafe base64 of (msgpack array of `ClusterCursor`, crc32 u32 LE of it)

A cursor has, for each shard, the cursor of the shard's page in which it stands, None for its beginning; with order_by
also the place of the last record, up to which the shard's page is read again and passed over.
"""

from __future__ import annotations

import base64
import binascii
import struct
import zlib
from collections.abc import Callable, Iterator, Sequence
from functools import total_ordering
from heapq import merge
from typing import Any, Literal, NamedTuple, NoReturn

import msgspec

from vecdb.api.filter_arguments import Page
from vecdb.errors import InvalidArgument
from vecdb.filters.evaluate import value_at
from vecdb.query.listing.cursor import MISSING
from vecdb.query.listing.order import PagePlace, check_place, group_and_value
from vecdb.schema import Record

# pages of one shard: (shard, records of a page, cursor to begin behind, how many records in all)
ShardPages = Callable[[int, int, str | None, int | None], Iterator[Page]]
_CRC = struct.Struct("<I")
_VERSION: Literal[1] = 1
_LISTS = 5  # groups from here on have no order of values


class ClusterCursor(msgspec.Struct, array_like=True, frozen=True, kw_only=True):
    """place : group, value, id and owner of the last record, where one orders.   after : cursors by shard."""

    version: Literal[1] = _VERSION
    collection: str
    order_by: str | None
    descending: bool
    place: tuple[int, Any, int | str, str] | None = None
    after: dict[int, str | None]

    def encode(self) -> str:
        raw = msgspec.msgpack.encode(self)
        return base64.urlsafe_b64encode(raw + _CRC.pack(zlib.crc32(raw))).decode()


class ListOrder(NamedTuple):
    """Of which collection and order a listing is."""

    collection: str
    order_by: str | None
    descending: bool

    def decode(self, text: str) -> ClusterCursor:
        """Raises InvalidArgument for what is no cursor of such a listing."""
        try:
            raw = base64.b64decode(text.encode(), b"-_", validate=True)
            if len(raw) < _CRC.size or _CRC.unpack(raw[-_CRC.size :])[0] != zlib.crc32(raw[: -_CRC.size]):
                _refuse("it is not whole")
            found = msgspec.msgpack.decode(raw[: -_CRC.size], type=ClusterCursor)
        except (binascii.Error, UnicodeEncodeError, msgspec.MsgspecError):
            _refuse("it is no cursor at all")
        if found.collection != self.collection:
            _refuse("it is of another collection")
        if (found.order_by, found.descending) != (self.order_by, self.descending):
            way = " descending" if found.descending else ""
            by = "without order_by" if found.order_by is None else f"with order_by={found.order_by!r}{way}"
            _refuse(f"it is of a listing {by}")
        if (found.place is None) != (found.order_by is None):
            _refuse("it is no cursor of a cluster")
        if found.place is not None:
            check_place(PagePlace(*found.place))
        return found


def _refuse(why: str) -> NoReturn:
    raise InvalidArgument(f"after must be the cursor of a page of the same listing: {why}") from None


# -- one shard after another --------------------------------------------------------------------------


def pages_in_turn(
    order: ListOrder, shards: Sequence[int], pages: ShardPages, batch: int, after: str | None, limit: int | None
) -> Iterator[Page]:
    known = {} if after is None else order.decode(after).after
    left = [shard for shard in shards if not known or shard >= min(known)]
    cursors = dict(known)
    page: list[Record] = []
    remaining = limit

    def cursor(shard: int, at: str | None) -> str | None:
        """Behind what was read of a shard: at, or where it has no more the next shard that has any."""
        while at is None:
            left.remove(shard)
            if not left:
                return None
            shard = left[0]
            if next(pages(shard, 1, None, 1), None):
                break
        cursors.clear()
        cursors[shard] = at
        return ClusterCursor(**order._asdict(), after={shard: at}).encode()

    while left and remaining != 0:
        shard = left[0]
        wanted = batch - len(page)
        # a first page that fills up what the shard before has begun, then whole ones
        most = remaining if wanted == batch else wanted if remaining is None else min(wanted, remaining)
        ended = True
        for part in pages(shard, wanted, cursors.get(shard), most):
            page += part
            remaining = None if remaining is None else remaining - len(part)
            cursors[shard] = part.cursor
            ended = part.cursor is None
            if len(page) == batch or remaining == 0:
                made = cursor(shard, part.cursor)
                yield Page(page, made)
                page = []
                if ended:
                    break
        if ended and left and left[0] == shard:
            left.remove(shard)
    if page:
        yield Page(page, None)


# -- in the order of a field ----------------------------------------------------------------------------


@total_ordering
class _Backwards:
    """A value among others, the largest first."""

    __slots__ = ("value",)

    def __init__(self, value: Any) -> None:
        self.value = value

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Backwards) and bool(self.value == other.value)

    def __lt__(self, other: _Backwards) -> bool:
        return bool(other.value < self.value)

    __hash__ = None  # type: ignore[assignment]


def rank_of(place: PagePlace, *, descending: bool) -> tuple[Any, ...]:
    """What sorts as query/listing/order.py does: NaN is the largest number, records without a value come last."""
    group, value = place.group, place.value
    is_nan = value != value
    plain = 0 if is_nan or group >= _LISTS else value
    if descending and group != MISSING:
        return MISSING - 1 - group, not is_nan, _Backwards(plain), place.id, place.owner
    return group, is_nan, plain, place.id, place.owner


def _place_of(record: Record, path: str) -> PagePlace:
    return PagePlace(*group_and_value(value_at(record.fields, path)), record.id, record.owner)


class _Ordered:
    """The records of one shard behind a place. after : the cursor of the page that is being read."""

    def __init__(
        self, pages: Iterator[Page], order: ListOrder, after: str | None, behind: tuple[Any, ...] | None
    ) -> None:
        self.after = after
        self._pages, self._order, self._behind = pages, order, behind

    def __iter__(self) -> Iterator[tuple[tuple[Any, ...], Record]]:
        assert self._order.order_by is not None
        for page in self._pages:
            for record in page:
                rank = rank_of(_place_of(record, self._order.order_by), descending=self._order.descending)
                if self._behind is None or rank > self._behind:
                    yield rank, record
            self.after = page.cursor or self.after


def pages_in_order(
    order: ListOrder, shards: Sequence[int], pages: ShardPages, batch: int, after: str | None, limit: int | None
) -> Iterator[Page]:
    assert order.order_by is not None
    known = None if after is None else order.decode(after)
    behind = None
    if known is not None and known.place is not None:
        behind = rank_of(PagePlace(*known.place), descending=order.descending)
    each: dict[int, _Ordered] = {}
    most = None if limit is None else limit + 1
    for shard in shards:
        begins = None if known is None else known.after.get(shard)
        # behind a cursor a page is read again that may have had any size: there are as many as are asked for
        found = pages(shard, batch, begins, most if known is None else None)
        each[shard] = _Ordered(found, order, begins, behind)
    merged = merge(*each.values(), key=lambda one: one[0])
    page: list[Record] = []
    count = 0
    coming = next(merged, None)
    while coming is not None and count != limit:
        record = coming[1]
        page.append(record)
        count += 1
        if len(page) == batch or count == limit:
            place = _place_of(record, order.order_by)
            cursors = {shard: one.after for shard, one in each.items()}
            coming = next(merged, None)
            more = ClusterCursor(**order._asdict(), place=tuple(place), after=cursors).encode()
            yield Page(page, None if coming is None else more)
            page = []
        else:
            coming = next(merged, None)
    if page:
        yield Page(page, None)
