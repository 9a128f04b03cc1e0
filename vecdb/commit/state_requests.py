"""Requests that change a collection's state without touching its records: patch its fields, install another index."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import msgspec

from vecdb.commit.committer import CommitGroup
from vecdb.commit.pending import PendingChanges
from vecdb.index.contract import Index
from vecdb.state.collection_state import CollectionState


@dataclass(slots=True)
class PatchState:
    """Put other values into the state, such as the name of a sealed file, unless a vacuum has made a newer generation.

    Returns whether it did.
    """

    state: CollectionState
    generation: int
    changes: dict[str, Any]
    size_bytes: int = 0
    exclusive: bool = False

    def apply(self, group: CommitGroup) -> bool:
        pending = PendingChanges.of(group, self.state)
        if pending.state.generation != self.generation:
            return False
        pending.state = msgspec.structs.replace(pending.state, **self.changes)
        group.changed = True
        return True


@dataclass(slots=True)
class InstallIndex:
    """Change the state as `patch` does, and put a freshly built index in place once that is committed."""

    patch: PatchState
    index: Index
    size_bytes: int = 0
    exclusive: bool = True

    def apply(self, group: CommitGroup) -> bool:
        if not self.patch.apply(group):
            return False
        group.published.append(lambda: self.patch.state.install_index(self.index))
        return True
