"""milvus-lite's own gRPC server in one process; requests and answers as bytes, so that any load generator can use it.

Standard library, numpy and its own client only. Lines: build, where, requests, rows.
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from typing import Any

import length_prefixed
import numpy as np
from milvus_lite.adapter.grpc.server import start_server_in_thread
from pymilvus import DataType, MilvusClient
from pymilvus.client.prepare import Prepare
from pymilvus.grpc_gen import milvus_pb2

NAMES = {"l2": "L2", "ip": "IP", "cosine": "COSINE"}


class Milvus:
    def __init__(self, folder: Path, base: Any, queries: Any, spec: dict[str, Any]) -> None:
        self.folder, self.base, self.queries, self.spec = folder, base, queries, spec

    def build(self) -> dict[str, Any]:
        """Start the server and fill it through its own client. Its graph has the M and ef_construction of vecdb's."""
        started = time.perf_counter()
        self.folder.mkdir(parents=True, exist_ok=True)
        self.server, self.db, self.port = start_server_in_thread(str(self.folder))
        client = MilvusClient(f"http://127.0.0.1:{self.port}")
        schema = client.create_schema(auto_id=False)
        schema.add_field("id", DataType.INT64, is_primary=True)
        schema.add_field("vector", DataType.FLOAT_VECTOR, dim=self.base.shape[1])
        index = client.prepare_index_params()
        index.add_index(
            "vector", index_type="HNSW", metric_type=NAMES[self.spec["metric"]],
            params={"M": 16, "efConstruction": 200},
        )  # fmt: skip
        client.create_collection("bench", schema=schema, index_params=index)
        for start in range(0, len(self.base), 10_000):
            part = np.asarray(self.base[start : start + 10_000], np.float32)
            rows = [{"id": start + at, "vector": vector} for at, vector in enumerate(part.tolist())]
            client.insert("bench", rows)
        client.flush("bench")
        client.release_collection("bench")  # it was loaded while it was empty, and graphs are built when data is loaded
        client.load_collection("bench")
        graphs = [file.name for file in self.folder.rglob("*.idx")]
        return {"seconds": time.perf_counter() - started, "index_files": graphs}

    def where(self) -> dict[str, Any]:
        return {"target": f"127.0.0.1:{self.port}"}

    def requests(self, effort: int, file: str) -> dict[str, Any]:
        param = {"metric_type": NAMES[self.spec["metric"]], "params": {"ef": effort}}
        made = [
            Prepare.search_requests_with_expr("bench", "vector", param, self.spec["limit"], data=[query.tolist()])
            for query in np.asarray(self.queries, np.float32)
        ]
        length_prefixed.write(Path(file), (request.SerializeToString() for request in made))
        return {}

    def rows(self, file: str) -> dict[str, Any]:
        answers = [milvus_pb2.SearchResults.FromString(answer) for answer in length_prefixed.read(Path(file))]
        wrong = next((answer.status for answer in answers if answer.status.code), None)
        if wrong is not None:
            raise RuntimeError(wrong.reason)
        return {"rows": [list(answer.results.ids.int_id.data) for answer in answers]}


if __name__ == "__main__":
    folder, base, queries, spec = sys.argv[1:5]
    server = Milvus(Path(folder), np.load(base, mmap_mode="r"), np.load(queries), json.loads(spec))
    for line in sys.stdin:
        question = json.loads(line)
        print(json.dumps(getattr(server, question.pop("do"))(**question)), flush=True)
    server.server.stop(0)
