"""What is stored about tenants: name, number, quota, and the last commit that changed their rows. Reading only.

    name -> number -> (sequence, quota, name)                       (keys.py and record_format.py draw both entries)

The functions work in any transaction.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from vecdb.errors import Corruption
from vecdb.storage.kv import keys, record_format
from vecdb.storage.kv.store import Store, Txn
from vecdb.validate.common import gil_slices
from vecdb.validate.not_found import tenant_not_found

_SLICE = 256  # entries per stretch of bytecode, about 100 us


def number_of(store: Store, txn: Txn, uid: int, name: bytes) -> int | None:
    """The number of the tenant with that name, None where there is none."""
    raw = txn.get(keys.tenant_names(uid) + name, db=store.tenants)
    return None if raw is None else int.from_bytes(raw, "little")


def tenant(store: Store, txn: Txn, uid: int, number: int, where: str) -> record_format.Tenant | None:
    """The tenant with that number, None where it was dropped. Raises Corruption."""
    raw = txn.get(keys.tenant_numbers(uid) + number.to_bytes(8, "big"), db=store.tenants)
    return None if raw is None else record_format.decode_tenant(bytes(raw), number, where)


def tenant_named(store: Store, txn: Txn, uid: int, name: bytes, where: str) -> tuple[int, record_format.Tenant]:
    """(number, tenant) of a name. LMDB's pages carry no checksum, the tenant's entry does: it must have the same name.
    Raises NotFound, Corruption.
    """
    number = number_of(store, txn, uid, name)
    if number is None:
        raise tenant_not_found(where, name.decode())
    found = tenant(store, txn, uid, number, where)
    if found is None or found.name != name:
        there = "nothing" if found is None else repr(found.name)
        raise Corruption(f"{where}: the name of tenant {name!r} leads to {there}; restore from a backup")
    return number, found


def tenants_of(
    store: Store, txn: Txn, uid: int, numbers: NDArray[np.int64], where: str
) -> dict[int, record_format.Tenant | None]:
    """Tenants by number (distinct, ascending); None for those that were dropped. Raises Corruption."""
    out: dict[int, record_format.Tenant | None] = dict.fromkeys(numbers.tolist())
    cursor = txn.cursor(db=store.tenants)
    head = keys.tenant_numbers(uid)
    for start, stop in gil_slices(len(numbers), _SLICE):
        for key, raw in cursor.getmulti(keys.row_keys(head, numbers[start:stop])):
            number = int.from_bytes(key[len(head) :], "big")
            out[number] = record_format.decode_tenant(bytes(raw), number, where)
    return out


def names_after(store: Store, txn: Txn, uid: int, after: bytes | None, most: int) -> list[bytes]:
    """Up to `most` names of tenants in order, those past `after`."""
    head = keys.tenant_names(uid)
    cursor = txn.cursor(db=store.tenants)
    found = cursor.set_range(head + (after or b""))
    if found and after is not None and bytes(cursor.key()) == head + after:
        found = cursor.next()
    names: list[bytes] = []
    while found and len(names) < most:
        key = bytes(cursor.key())
        if not key.startswith(head):
            break
        names.append(key[len(head) :])
        found = cursor.next()
    return names
