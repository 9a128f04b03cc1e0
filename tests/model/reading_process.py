"""The other process of test_driver.py: answers requests, one JSON object a line, from a database open for reading."""

from __future__ import annotations

import json
import sys
from typing import Any

import vecdb


def answer(databases: dict[str, Any], request: dict[str, Any]) -> dict[str, Any]:
    path = request["path"]
    if path not in databases:
        for old in databases.values():
            old.close()
        databases.clear()
        databases[path] = vecdb.open(path, read_only=True)
    docs = databases[path].collection("docs")
    near = docs.search(request["query"], request["limit"])
    exact = docs.search(request["query"], request["limit"], params=vecdb.SearchParams(exact=True))
    names = request["tenants"]
    tenants = {}
    for name in names:
        hits = docs.search(request["query"], 1_000, params=vecdb.SearchParams(exact=True), tenant=name)
        tenants[name] = hits.ids.tolist()
        assert docs.count(tenant=name) == len(tenants[name])
        if tenants[name]:
            liked = tenants[name][:2]
            diverse = docs.search_mixture(liked, 1_000, tenant=name).ids.tolist()
            assert sorted([*diverse, *liked], key=repr) == sorted(tenants[name], key=repr)
    try:
        docs.create_tenant("nobody")
        writes = "done"
    except vecdb.VecdbError as error:
        writes = error.code
    return {
        "count": docs.count(),
        "sequence": exact.sequence,
        "near": near.ids.tolist(),
        "distances": exact.distances.tolist(),
        "all": [[record.id, record.fields] for batch in docs.iter(7) for record in batch],
        "found": [[id_, fields] for id_, fields in zip(exact.ids.tolist(), exact.fields, strict=True)],
        "writes": writes,
        "tenants": tenants,
        "union": docs.count(tenant=names) if names else 0,
    }


def main() -> None:
    databases: dict[str, Any] = {}
    for line in sys.stdin:
        try:
            out = answer(databases, json.loads(line))
        except vecdb.VecdbError as error:
            out = {"error": f"{error.code}: {error}"}
        print(json.dumps(out), flush=True)
    for database in databases.values():
        database.close()


if __name__ == "__main__":
    main()
