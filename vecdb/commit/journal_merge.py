"""Folding: what waits in the journal is put into the tables, a bounded piece a commit.

    frozen journal -> pieces in the order of access -> pieces in the order of members -> its entries go

Pages of the tables are written once for all pairs that lie in them. Writes go on between the pieces; what they add to
the journal stays there for the next fold, and while it is there it has the last word (access_journal.py), whatever
order the two come in. One fold runs at a time: an older one that came last would put back what a newer one has changed.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np
from numpy.typing import NDArray

from vecdb import limits
from vecdb.commit.committer import CommitGroup
from vecdb.commit.record_requests import PendingChanges, make_room
from vecdb.tenancy.access_journal import AccessDelta, AccessJournal
from vecdb.tenancy.pairs import RowTenantPairs, by_tenant, numbers_of

if TYPE_CHECKING:
    from vecdb.embedded.local_collection import LocalCollection

_PIECES = 16  # of each table at most: as many commits pass meanwhile, and what they add to the journal is bounded

Order = Literal["access", "members"]


def fold(engine: LocalCollection) -> None:
    """Put all that is in the journal now into the tables. The caller sees to it that one fold runs at a time."""
    for step in steps(engine):
        if not engine.submit(step):
            return


def steps(engine: LocalCollection) -> Iterator[MergeJournalPart | TruncateJournal]:
    """The requests of a fold, to be submitted in their order until one returns False."""
    with engine.reading() as (txn, generation, state):
        if state.journal is None:
            return
        journal, changes = generation.journal, generation.journal.changes(txn, state.journal)
        through = state.journal.last
    orders: tuple[Order, ...] = ("access", "members")
    for order in orders:
        for part in _pieces(changes, order):
            yield MergeJournalPart(engine, journal, part, order)
    yield TruncateJournal(engine, journal, through)


def _pieces(changes: AccessDelta, order: Order) -> Iterator[AccessDelta]:
    granted, revoked = (_keys(pairs, order) for pairs in (changes.granted, changes.revoked))
    every = np.sort(np.concatenate([granted, revoked]))
    step = max(limits.fold_pairs, -(-len(every) // _PIECES))
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
    """Put a part of the journal into one table. Returns False where the generation has been left behind."""

    engine: LocalCollection
    journal: AccessJournal
    changes: AccessDelta
    order: Order
    size_bytes: int = 0
    exclusive: bool = True

    def apply(self, group: CommitGroup) -> bool:
        pending = PendingChanges.of(group, self.engine)
        if pending.access.journal is not self.journal:
            return False
        make_room(group, "folding the journal")
        granted, revoked = self.changes.granted, self.changes.revoked
        # a tenant that was dropped has nothing in members, and nobody takes it out again
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

    engine: LocalCollection
    journal: AccessJournal
    through: int
    size_bytes: int = 0
    exclusive: bool = True

    def apply(self, group: CommitGroup) -> bool:
        pending = PendingChanges.of(group, self.engine)
        if pending.access.journal is not self.journal:
            return False
        pending.access.forget(group, self.through)
        group.changed = True
        return True
