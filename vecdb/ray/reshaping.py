"""A cluster gets another number of shards, old and new ones each in a process of Ray's: see shards/reshaping/steps.py.

Records go from process to process, not through the caller. A process that dies is started again and goes on from what
the bucket has.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from typing import Any

from vecdb.errors import Unavailable
from vecdb.ray.searching import cause_of
from vecdb.ray.session import RayOptions, session
from vecdb.shards.reshaping.steps import ReshapeOptions, reshape_cluster

Report = Callable[[str, int, int], None]
_HERE = RayOptions()


class RayWorkers:
    """Workers as actors. They take no cores of Ray's: all of them must run at once, however few there are."""

    def __init__(self, ray: Any) -> None:
        self._ray = ray
        self._options = {
            "num_cpus": 0, "max_restarts": -1, "max_task_retries": -1, "scheduling_strategy": "SPREAD",
        }  # fmt: skip

    def start(self, kind: Callable[..., Any], *args: Any) -> Any:
        return self._ray.remote(kind).options(**self._options).remote(*args)

    def call(self, worker: Any, method: str, *args: Any, returns: int = 1) -> Any:
        return getattr(worker, method).options(num_returns=returns).remote(*args)

    def get(self, promises: Any) -> Any:
        try:
            return self._ray.get(promises)
        except self._ray.exceptions.RayTaskError as error:
            raise cause_of(error) from None
        except self._ray.exceptions.RayActorError as error:
            reason = str(error).strip().splitlines()[-1]
            raise Unavailable(f"a worker of this job does not come back: {reason}; begin it again") from None

    def end(self, worker: Any) -> None:
        """A new shard's directory is closed, so that nobody is refused by its log."""
        closing = getattr(worker, "close", None)
        if closing is not None:
            self._ray.wait([closing.remote()], timeout=60.0)
        self._ray.kill(worker)


def reshape(
    url: str,
    *,
    shards: int,
    on: RayOptions = _HERE,
    drain_s: float = 30.0,
    servers_s: float = 120.0,
    token: str | None = None,
    tls: str | None = None,
    remove_old: bool = False,
    report: Report = lambda *_: None,
) -> dict[str, Any]:
    """Give a cluster another number of shards while it is read and written.

    Parameters
    ----------
    url : of the cluster.   shards : how many it is to have.
    on : which Ray, cores for the index of each shard, and a folder on each machine for a copy of each old shard and the
        directory of each new one.
    drain_s : how long the old writers may take to stop.   servers_s : how long to wait for servers of the new shards,
        which `vecdb cluster up` starts by itself; 0: they may come later.
    token, tls : with which servers are asked.   remove_old : remove the logs of the old shards in the end.
    report : called with a step in words, what is done of it and what there is.

    Returns {"records", "shards": numbers of the new ones, "held_s": seconds in which writes waited, "seconds"}. The
    same call goes on with a job that was killed.
    """
    work = on.made_work()
    with session(on) as ray, tempfile.TemporaryDirectory(prefix="vecdb-reshape-", dir=work) as folder:
        options = ReshapeOptions(folder, on.cpus_each or 1, drain_s, servers_s, token, tls, remove_old)
        return reshape_cluster(url, shards, RayWorkers(ray), options, report)
