"""Merges the journal of access lists into their tables, a bounded part in each commit.

    journal as it is now -> parts in the order of access -> parts in the order of members -> its entries are removed

Pages of the tables are written once for all pairs that lie in them. Writes go on between the parts; what they add to
the journal stays there for the next merge. What the journal says overrides the tables (access_journal.py), so the order
of the two does not matter. One merge runs at a time: an older one that came last would undo what a newer one changed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from vecdb import limits
from vecdb.commit.committer import CommitGroup, Request
from vecdb.commit.pending import PendingChanges, ensure_spare_room
from vecdb.state.collection_state import CollectionState
from vecdb.tenancy.access_journal import AccessDelta, AccessJournal
from vecdb.tenancy.pairs import RowTenantPairs, by_tenant, numbers_of

_PARTS = 16  # of each table at most: a merge takes a bounded number of commits, and the journal grows little

Order = Literal["access", "members"]


def merge_journal(state: CollectionState, submit: Callable[[Request], Any]) -> None:
    """Put all that is in the journal now into the tables. The caller lets one merge run at a time."""
    for request in merge_requests(state):
        if not submit(request):
            return


def merge_requests(state: CollectionState) -> Iterator[MergeJournalPart | TruncateJournal]:
    """The requests of a merge, to be submitted in their order until one returns False."""
    with state.reading(to_change=True) as (txn, generation, committed):
        if committed.journal is None:
            return
        journal, changes = generation.journal, generation.journal.changes(txn, committed.journal)
        through = committed.journal.last
    orders: tuple[Order, ...] = ("access", "members")
    for order in orders:
        for part in _parts(changes, order):
            yield MergeJournalPart(state, journal, part, order)
    yield TruncateJournal(state, journal, through)


def _parts(changes: AccessDelta, order: Order) -> Iterator[AccessDelta]:
    granted, revoked = (_keys(pairs, order) for pairs in (changes.granted, changes.revoked))
    every = np.sort(np.concatenate([granted, revoked]))
    step = max(limits.merge_pairs, -(-len(every) // _PARTS))
    for start in range(0, len(every), step):
        first, last = every[start], every[min(start + step, len(every)) - 1]
        yield AccessDelta(
            changes.granted[(granted >= first) & (granted <= last)],
            changes.revoked[(revoked >= first) & (revoked <= last)],
        )


def _keys(pairs: RowTenantPairs, order: Order) -> NDArray[np.uint64]:
    """One integer a pair, in the order of a table."""
    return pairs.astype(np.uint64) if order == "access" else by_tenant(pairs)


@dataclass(slots=True)
class MergeJournalPart:
    """Put a part of the journal into one table. Returns False where a vacuum has replaced the generation."""

    state: CollectionState
    journal: AccessJournal
    changes: AccessDelta
    order: Order
    size_bytes: int = 0
    exclusive: bool = True

    def apply(self, group: CommitGroup) -> bool:
        pending = PendingChanges.of(group, self.state)
        if pending.access.journal is not self.journal:
            return False
        ensure_spare_room(group, "merging the journal")
        granted, revoked = self.changes.granted, self.changes.revoked
        # a tenant that was dropped has no entry in members, and nobody would remove one later
        granted = granted[pending.access.living(group, numbers_of(granted))]
        if self.order == "access":
            self.journal.tables.change_lists(group.txn, granted, revoked)
        else:
            self.journal.tables.change_members(group.txn, granted, revoked)
        group.changed = True
        return True


@dataclass(slots=True)
class TruncateJournal:
    """Remove the entries up to commit `through`, all of which is in the tables."""

    state: CollectionState
    journal: AccessJournal
    through: int
    size_bytes: int = 0
    exclusive: bool = True

    def apply(self, group: CommitGroup) -> bool:
        pending = PendingChanges.of(group, self.state)
        if pending.access.journal is not self.journal:
            return False
        pending.access.forget(group, self.through)
        group.changed = True
        return True
