"""vecdb: one collection for all tenants, with any kind of index; with spec["shared"] false the same without tenants."""

from __future__ import annotations

import collections
import tempfile
from typing import Any

import engine_process
import numpy as np
import tenant

import vecdb


class Vecdb(tenant.TenantEngine):
    def _fill(self, folder: Any, rows: Any) -> None:
        kind = getattr(vecdb, self.spec["index"].capitalize())
        lists: list[list[str]] = [[] for _ in range(len(rows))]
        if self.spec["shared"]:
            for number, name in enumerate(self.names):
                for row in self.rows_of(number).tolist():
                    if row < len(rows):
                        lists[row].append(name)
        with vecdb.open(folder) as db:
            docs = db.create_collection(
                "bench", dim=rows.shape[1], metric=self.spec["metric"], dtype=str(rows.dtype),
                index=kind(**self.spec["options"]),
            )  # fmt: skip
            step = 1_000
            for start in range(0, len(rows), step):
                stop = min(len(rows), start + step)
                seen = lists[start:stop] if self.spec["shared"] else None
                docs.upsert(np.arange(start, stop), np.array(rows[start:stop]), tenants=seen)
            docs.optimize(threads=self.spec["threads"])

    def warm(self) -> None:
        with tempfile.TemporaryDirectory() as folder:
            few = np.array(self.base[:6_000])
            self._fill(folder, few)
            with vecdb.open(folder) as db:
                docs = db.collection("bench")
                known = set(docs.tenants())
                largest = np.argsort(-np.diff(self.indptr), kind="stable")
                for query in self.queries[:20]:
                    docs.search(query, limit=self.spec["limit"])
                    for number in (*largest[:20], *largest[-20:]):
                        if self.names[number] in known:
                            docs.search(query, limit=self.spec["limit"], tenant=self.names[number])

    def build(self) -> None:
        self._fill(self.folder, self.base)

    def open(self) -> None:
        self.db = vecdb.open(self.folder)
        self.docs = self.db.collection("bench")

    def prepare(self, value: float | None) -> None:
        self.params = vecdb.SearchParams() if value is None else vecdb.SearchParams(**{self.spec["parameter"]: value})

    def search_tenants(self, numbers: list[int]) -> str | list[str] | None:
        if not self.spec["shared"]:
            return None
        names = [self.names[number] for number in numbers]
        return names[0] if len(names) == 1 else names

    def search(self, query_and_tenant: Any) -> Any:
        query, who = query_and_tenant
        return self.docs.search(query, limit=self.spec["limit"], params=self.params, tenant=who)

    def rows(self, result: Any) -> list[int]:
        return list(result.ids.tolist())

    def facts(self) -> engine_process.Spec:
        """How long the searches themselves took, without the call around them, and how many followed each plan."""
        queries = self.query_set("timed")
        explained = [
            self.docs.search(query, self.spec["limit"], params=self.params, tenant=who, explain=True).explain
            for query, who in (queries[i] for i in range(len(queries)))
        ]
        took = 1e3 * np.array([one["search_ms"] for one in explained])
        plans = collections.Counter(one["plan"] for one in explained)
        p50, p99 = np.percentile(took, [50, 99])
        return {
            "kernel": {"mean us": took.mean(), "p50 us": p50, "p99 us": p99, "p99/mean": p99 / took.mean()}
            | {f"searches by {plan}": count for plan, count in plans.items()}
        }


if __name__ == "__main__":
    engine_process.serve(Vecdb)
