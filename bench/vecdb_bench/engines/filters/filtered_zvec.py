"""zvec: HNSW with an inverted index for each field, through its fast read-only path."""

from __future__ import annotations

from typing import Any

import engine_process
import filtered
import zvec_graph


class Zvec(filtered.FilteredEngine):
    own_threads = True

    def __init__(self, *of: Any) -> None:
        super().__init__(*of)
        zvec_graph.start(self.spec["threads"])
        self._path = self.folder / "collection"

    def make(self) -> None:
        zvec_graph.build(self._path, self.base, self.spec, list(self.fields), self.records)

    def open(self) -> None:
        self.docs = zvec_graph.open_to_read(self._path)

    def condition(self, field: str, code: int) -> Any:
        return f"{field} = '{field}.{code}'"

    def prepare(self, value: int) -> None:
        self.param = zvec_graph.width(value)

    def search(self, query_and_filter: Any) -> Any:
        query, one = query_and_filter
        return zvec_graph.search(self.docs, query, self.spec["limit"], self.param, one)

    def rows(self, result: Any) -> list[int]:
        return zvec_graph.rows(self.docs, result)


if __name__ == "__main__":
    engine_process.serve(Zvec)
