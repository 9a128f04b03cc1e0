"""vecdb in big-ann's track of queries that are distributed otherwise than the records."""

from benchmark.datasets import DATASETS
from neurips23.ood.base import BaseOODANN

import vecdb
from vecdb_bench.harness_collection import HarnessCollection


class VecdbOod(BaseOODANN):
    def __init__(self, metric, index_params):
        self._index = vecdb.Hnsw(m=index_params.get("m", 16), ef_construction=index_params.get("ef_construction", 200))
        self._metric, self.name = metric, "vecdb"

    def fit(self, dataset):
        data = DATASETS[dataset]()
        self._records = HarnessCollection(self._index, self._metric, data.d, data.dtype)
        self._records.fill_from(data.get_dataset_iterator(bs=100_000), data.d)

    def load_index(self, dataset):
        return False

    def set_query_arguments(self, query_args):
        self._records.search_with(**query_args)
        self.name = f"vecdb({query_args})"

    def query(self, X, k):
        self.res = self._records.search_all(X, k)

    def done(self):
        self._records.close()
