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
    found = docs.search(request["query"], request["limit"])
    exact = docs.search(request["query"], request["limit"], params=vecdb.SearchParams(exact=True))
    names = request["tenants"]
    tenants = {}
    for name in names:
        hits = docs.search(request["query"], 1_000, params=vecdb.SearchParams(exact=True), tenant=name)
        near, pages = hits.ids.tolist(), docs.iter(tenant=name, include_vectors=True)
        seen = {record.id: record.vector for page in pages for record in page}
        tenants[name] = list(seen)
        assert docs.count(tenant=name) == len(seen)
        assert set(near) == {one for one, vector in seen.items() if vector is not None} and len(near) == len(set(near))
        if near:
            liked = near[:2]
            diverse = docs.search_mixture(liked, 1_000, tenant=name).ids.tolist()
            assert sorted([*diverse, *liked], key=repr) == sorted(near, key=repr)
    try:
        docs.create_tenant("nobody")
        writes = "done"
    except vecdb.VecdbError as error:
        writes = error.code
    return {
        "count": docs.count(),
        "sequence": exact.sequence,
        "near": found.ids.tolist(),
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
