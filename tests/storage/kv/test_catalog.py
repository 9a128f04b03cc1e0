"""Goal: what older code stored about a collection is read, and what this code stores older code reads."""

from __future__ import annotations

import zlib
from typing import Any

import msgspec

from vecdb.storage.kv import catalog
from vecdb.storage.kv.catalog import MeasuredRecall

STORED: dict[str, Any] = {
    "sequence": 3,
    "tuned": [{"limit": 10, "ef": 50, "recall": 0.9}],
    "tuned_ef": 50,
    "tuned_by_user": True,
    "scan_rows": 77,
}


def test_a_state_is_stored_under_the_names_that_it_always_had() -> None:
    raw = msgspec.msgpack.encode(STORED)
    state = catalog.decode_state(zlib.crc32(raw).to_bytes(4, "little") + raw, "docs")
    assert state.recall_curve == (MeasuredRecall(10, 50, 0.9),) and state.default_width == 50
    assert (state.sequence, state.tuned_by_user, state.tenant_scan_rows_max) == (3, True, 77)
    assert msgspec.msgpack.decode(catalog.encode(state)[4:]).items() >= STORED.items()
    changed = msgspec.structs.replace(state, default_width=None, tenant_scan_rows_max=8)
    stored = msgspec.msgpack.decode(catalog.encode(changed)[4:])
    assert (stored["tuned_ef"], stored["scan_rows"]) == (None, 8)
    assert catalog.decode_state(catalog.encode(changed), "docs") == changed
