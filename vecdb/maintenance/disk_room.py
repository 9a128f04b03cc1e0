"""Room on a full disk: the pages of a row file that hold deleted rows alone are given back where they lie.

    rows    live dead dead dead live dead ...        a page of 4,096 bytes goes where no byte of it is a live row's
    file    [ page ][  hole  ][ page ]               its length stays; what was there reads as zeros

A vacuum writes the live rows a second time before it removes the first, which a full disk has no room for. This makes
room without writing anything. It is done only while nobody can still look at those rows: no other process reads, no
iterator is open, and every search of an older commit has ended.
"""

from __future__ import annotations

import time

from vecdb.state.collection_state import CollectionState
from vecdb.storage.disk.row_file import runs

_WAIT_S = 5.0  # for searches of older commits to end
_LOOK_S = 0.001


def give_back_deleted_rows(state: CollectionState) -> int:
    """Give back what can be. Returns how many bytes that are; 0 where somebody may still look at deleted rows. The
    caller holds the collection's maintenance lock.
    """
    snapshot = state.current(to_change=True)
    ends = time.monotonic() + _WAIT_S
    while state.earlier_snapshot_in_use():
        if time.monotonic() > ends:
            return 0
        time.sleep(_LOOK_S)
    with state.store.read_by_nobody_else() as alone:
        if not alone:
            return 0
        gone = snapshot.generation.rows.arrays.gone[: snapshot.visibility.row_count]
        dead = (gone != 0) & (gone <= snapshot.visibility.sequence)
        return snapshot.generation.rows.punch(*runs(dead))
