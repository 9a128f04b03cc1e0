"""RecordWriter: the records of a collection, written in batches to a file that is put in place when it is whole.

    with create_records("out.jsonl", facts) as writer:
        for batch in batches: writer.write(batch)

What a format cannot hold is refused by name, and nothing is left; with `lossy` it is left out or changed, and told in
`losses`. Threads: one.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Any

from vecdb import InvalidArgument

from .facts import CollectionFacts
from .target import Target


@dataclass(frozen=True, slots=True)
class RecordBatch:
    """Records by column. vectors : dtype[n, dim].   owners : "" for nobody.   tenants : names of who may see each.

    bare : bool[n], records that have no vector, in whose places `vectors` has anything; None: each has one.
    """

    ids: Sequence[int | str]
    vectors: Any
    fields: Sequence[dict[str, Any]]
    owners: Sequence[str]
    tenants: Sequence[Sequence[str]]
    bare: Any = None


class RecordWriter(ABC):
    """path : as the caller gave it.   lossy : leave out what the format cannot hold."""

    holds_access = True  # whether a column of it can be lists of tenants
    ids_file: str | None = None  # beside the file, where it cannot hold ids

    def __init__(self, path: str, facts: CollectionFacts, lossy: bool) -> None:
        self.path, self.facts, self.lossy = path, facts, lossy
        self.losses: dict[str, str] = {}  # what was left out or changed, and the first place of it
        self._targets: list[Target] = []

    def _target(self, path: str) -> Target:
        """A file of this writer; all are put in place together."""
        self._targets.append(Target(path))
        return self._targets[-1]

    @abstractmethod
    def write(self, batch: RecordBatch) -> None:
        """Append records."""

    @abstractmethod
    def _finish(self) -> None:
        """Complete the files, before they are put in place. Raises InvalidArgument for what they cannot hold."""

    def _abandon(self) -> None:  # noqa: B027 - most writers have nothing but their targets
        """Close what is open."""

    def _with_vectors(self, batch: RecordBatch) -> RecordBatch:
        """The batch without the records that have no vector, for a format that cannot hold these."""
        if batch.bare is None or not any(batch.bare):
            return batch
        kept = [at for at, is_bare in enumerate(batch.bare) if not is_bare]
        first = next(at for at, is_bare in enumerate(batch.bare) if is_bare)
        self._lose("records without a vector", f"record {batch.ids[first]!r}")
        return RecordBatch(
            [batch.ids[at] for at in kept],
            batch.vectors[kept],
            [batch.fields[at] for at in kept],
            [batch.owners[at] for at in kept],
            [batch.tenants[at] for at in kept],
        )

    def _lose(self, what: str, where: str) -> None:
        """Note what the format cannot hold."""
        self.losses.setdefault(what, where)

    def _refuse_losses(self) -> None:
        if self.losses and not self.lossy:
            shown = "; ".join(f"{what} ({where})" for what, where in self.losses.items())
            raise InvalidArgument(
                f"{self.path} cannot hold {shown}. Write .parquet or .jsonl, which hold everything, or leave it out "
                "with lossy=True"
            )

    def close(self) -> None:
        """Finish the files and put them in place."""
        self._finish()
        self._refuse_losses()
        for target in self._targets:
            target.put_in_place()

    def __enter__(self) -> RecordWriter:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        try:
            if kind is None:
                self.close()
            else:
                self._abandon()
        finally:
            self.discard()

    def discard(self) -> None:
        """Remove what is not in place."""
        for target in self._targets:
            target.discard()
