"""The cursor of a page as text: where in an order its last record stands.

    text := urlsafe base64 of (msgpack array of `Cursor`, crc32 u32 LE of it)

In the order of a field it holds the value, id and owner of the record: whatever is written later, what comes behind
them is the same. In the order of rows it holds the row, and what finds its place again once a vacuum has given rows
other numbers: the record's id and commit, and those of the next few.
"""

from __future__ import annotations

import base64
import binascii
import struct
import zlib
from typing import Any, Literal, NamedTuple, NoReturn

import msgspec

from vecdb.errors import InvalidArgument
from vecdb.validate import ids, owner

NEXT_IDS = 4  # records behind the cursor that it names
MISSING = 7  # group of records that have no value of the field
_CRC = struct.Struct("<I")
_VERSION: Literal[1] = 1


class Ordering(NamedTuple):
    """Of which collection (by its number) and order a cursor is. order_by None: of rows."""

    uid: int
    order_by: str | None
    descending: bool


class Neighbour(msgspec.Struct, array_like=True, frozen=True):
    """A record by its owner and id, and the commit that wrote it."""

    owner: str
    id: int | str
    commit: int


class Cursor(msgspec.Struct, array_like=True, frozen=True, kw_only=True):
    """last : the record that it stands behind.   group, value : of the field (order.py), where one orders.
    generation, row : of the order of rows, and the records that come next.
    """

    version: Literal[1] = _VERSION
    uid: int
    order_by: str | None
    descending: bool
    last: Neighbour
    group: int = MISSING
    value: Any = None  # `check_place` says of what types
    generation: int = 0
    row: int = -1
    coming: tuple[Neighbour, ...] = ()

    def encode(self) -> str:
        raw = _encode(self)
        return base64.urlsafe_b64encode(raw + _CRC.pack(zlib.crc32(raw))).decode()

    @staticmethod
    def decode(text: str, ordering: Ordering, id_kind: str | None) -> Cursor:
        """Raises InvalidArgument for what is no cursor, and where it is of another collection or order."""
        try:
            raw = base64.b64decode(text.encode(), b"-_", validate=True)
            if len(raw) < _CRC.size or _CRC.unpack(raw[-_CRC.size :])[0] != zlib.crc32(raw[: -_CRC.size]):
                _refuse("it is not whole")
            found = _decode(raw[: -_CRC.size])
        except (binascii.Error, UnicodeEncodeError, msgspec.MsgspecError):
            _refuse("it is no cursor at all")
        if found.uid != ordering.uid:
            _refuse("it is of another collection")
        if (found.order_by, found.descending) != (ordering.order_by, ordering.descending):
            way = " descending" if found.descending else ""
            by = "without order_by" if found.order_by is None else f"with order_by={found.order_by!r}{way}"
            _refuse(f"it is of a listing {by}")
        for one in (found.last, *found.coming):
            ids(one.id, id_kind)  # type: ignore[arg-type]
            owner(one.owner)
        return found


_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(Cursor).decode


def _refuse(why: str) -> NoReturn:
    raise InvalidArgument(f"after must be the cursor of a page of the same listing: {why}") from None
