"""qdrant-edge: a shard with a keyword index for each field, as its planner chooses; spec["acorn"]: with ACORN."""

from __future__ import annotations

from typing import Any

import engine_process
import filtered
import qdrant_edge as qdrant
import qdrant_shard


class Qdrant(filtered.FilteredEngine):
    own_threads = True

    def make(self) -> None:
        qdrant_shard.build(self.folder / "shard", self.base, self.spec, list(self.fields), self.records)

    def open(self) -> None:
        self.shard = qdrant_shard.open_to_read(self.folder / "shard")

    def condition(self, field: str, code: int) -> Any:
        return qdrant.Filter(must=[qdrant.FieldCondition(key=field, match=qdrant.MatchValue(f"{field}.{code}"))])

    def prepare(self, value: int) -> None:
        self.params = qdrant_shard.width(value, bool(self.spec.get("acorn")))

    def search(self, query_and_filter: Any) -> Any:
        query, one = query_and_filter
        return qdrant_shard.search(self.shard, query, self.spec["limit"], self.params, one)

    def rows(self, result: Any) -> list[int]:
        return qdrant_shard.rows(result)


if __name__ == "__main__":
    engine_process.serve(Qdrant)
