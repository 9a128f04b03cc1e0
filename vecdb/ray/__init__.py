"""Jobs over whole clusters, on Ray: `pip install 'vecdb-engine[ray]'`. Nothing else in vecdb imports it.

    build      a cluster from Parquet, npy or a Ray Dataset, its shards side by side
    search     the nearest records of many queries, over shards opened where they lie
    evaluate   recall of a whole cluster against exact search
    reshape    another number of shards, while the cluster is read and written

Each takes `on=RayOptions(...)`: which Ray, how many cores, where directories lie meanwhile, and who hears of progress.

The servers of a cluster as Ray actors are `vecdb cluster up`.
"""

from __future__ import annotations

from vecdb.ray.building import build
from vecdb.ray.reshaping import reshape
from vecdb.ray.searching import evaluate, search
from vecdb.ray.session import RayOptions

__all__ = ["RayOptions", "build", "evaluate", "reshape", "search"]
