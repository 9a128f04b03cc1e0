"""The Ray that jobs and servers run on: one that is there, or a small one of this process, which ends with it.

Ray's own messages are pickled objects: whoever may connect to it may run code there. It asks for a token, from 2.60 on
by itself; keep its ports on a network of machines that trust each other all the same.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vecdb.errors import InvalidArgument, Unavailable, VecdbError
from vecdb.storage.disk import filesystem

NAMESPACE = "vecdb"
_STORE_BYTES = 512 << 20  # of a Ray that this process starts: Ray itself would take a third of the memory


def load_ray() -> Any:
    """The module. Raises VecdbError where it is not installed."""
    try:
        import ray
    except ImportError:
        raise VecdbError("jobs and servers over Ray need it: pip install 'vecdb-engine[ray]'") from None
    return ray


@dataclass(frozen=True, slots=True)
class RayOptions:
    """On which Ray a job runs, and how.

    address : of a Ray cluster, "auto" for the one of this machine; None: a Ray of this process.   cpus : of that;
    None: all.   cpus_each : for an index that is built, and for a shard that is searched, where Ray sets them aside;
    None: a core, and none.   work : a folder on each machine for directories meanwhile; None: a temporary one.
    progress : called with what is done of the job, and what there is.
    """

    address: str | None = None
    cpus: int | None = None
    cpus_each: int | None = None
    work: str | None = None
    progress: Callable[[int, int], None] | None = None

    def report(self, done: int, total: int) -> None:
        if self.progress is not None:
            self.progress(done, total)

    def made_work(self) -> str | None:
        """The folder, which is there."""
        if self.work is not None:
            filesystem.make_dir(Path(self.work))
        return self.work


def check_room(ray: Any, workers: int, cpus_each: float) -> None:
    """Raise InvalidArgument where Ray has no cores for so many workers at once: some would never begin."""
    cores = ray.cluster_resources().get("CPU", 0.0)
    if workers * cpus_each > cores:
        raise InvalidArgument(
            f"{workers} workers of {cpus_each:g} cores each run at once, and Ray has {cores:g}: set fewer aside for "
            "each, 0 for none"
        )


@contextmanager
def session(on: RayOptions) -> Iterator[Any]:
    """Ray, connected. One that this process is connected to already is used, and stays.

    Raises Unavailable where there is no Ray at that address.
    """
    ray = load_ray()
    if ray.is_initialized():
        yield ray
        return
    options: dict[str, Any] = {"address": on.address} if on.address is not None else {
        "num_cpus": on.cpus, "include_dashboard": False, "object_store_memory": _STORE_BYTES, "address": "local",
    }  # fmt: skip
    try:
        ray.init(
            namespace=NAMESPACE, logging_level=logging.ERROR, log_to_driver=False, configure_logging=False, **options
        )
    except (ConnectionError, RuntimeError, ValueError) as error:
        raise Unavailable(f"no Ray at {on.address or 'this machine'}: {str(error).splitlines()[0]}") from None
    try:
        yield ray
    finally:
        ray.shutdown()
