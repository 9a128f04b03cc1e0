"""What a run says of vecdb: where the database is, and which index its collection has."""

from typing import Any

from pydantic import BaseModel, SecretStr
from vectordb_bench.backend.clients.api import DBCaseConfig, DBConfig, MetricType

import vecdb

_METRICS = {MetricType.L2: "l2", MetricType.COSINE: "cosine", MetricType.IP: "ip", MetricType.DP: "ip"}


class VecdbConfig(DBConfig):
    """uri : a directory, or grpc://host:port of a server.   token : for a server that asks for one."""

    uri: str = "./vecdb-data"
    token: SecretStr | None = None

    def to_dict(self) -> dict:
        return {"uri": self.uri, "token": self.token.get_secret_value() if self.token else None}


class VecdbCaseConfig(BaseModel, DBCaseConfig):
    """kind : hnsw, spann, curator or flat.   ef, nprobe : width of searches; None: as vecdb has learned."""

    metric_type: MetricType | None = None
    kind: str = "hnsw"
    m: int = 16
    ef_construction: int = 200
    ef: int | None = None
    nprobe: int | None = None

    def index_param(self) -> dict[str, Any]:
        kinds = {
            "hnsw": vecdb.Hnsw(m=self.m, ef_construction=self.ef_construction),
            "spann": vecdb.Spann(),
            "curator": vecdb.Curator(),
            "flat": vecdb.Flat(),
        }
        if self.kind not in kinds:
            raise vecdb.InvalidArgument(f"kind {self.kind!r} is not one of {', '.join(kinds)}")
        return {"metric": _METRICS[self.metric_type or MetricType.COSINE], "index": kinds[self.kind]}

    def search_param(self) -> dict[str, Any]:
        return {"ef": self.ef, "nprobe": self.nprobe}
