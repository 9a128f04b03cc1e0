"""vecdb in big-ann's streaming track: records come, go and are replaced while queries are asked."""

from neurips23.streaming.base import BaseStreamingANN

import vecdb
from vecdb_bench.harness_collection import HarnessCollection


class VecdbStreaming(BaseStreamingANN):
    def __init__(self, metric, index_params):
        self._index = vecdb.Hnsw(m=index_params.get("m", 16), ef_construction=index_params.get("ef_construction", 200))
        self._metric, self.name = metric, "vecdb"

    def setup(self, dtype, max_pts, ndims):
        self._records = HarnessCollection(self._index, self._metric, ndims, dtype, background=True)
        self._records.create(ndims)

    def insert(self, X, ids):
        self._records.docs.upsert(ids, X, atomic=False)

    def delete(self, ids):
        self._records.docs.delete(ids)

    def replace(self, X, ids):
        self._records.docs.upsert(ids, X, atomic=False)

    def set_query_arguments(self, query_args):
        self._widths, self.name = query_args, f"vecdb({query_args})"

    def query(self, X, k):
        self._records.search_with(**self._widths)
        self.res = self._records.search_all(X, k)

    def done(self):
        self._records.close()
