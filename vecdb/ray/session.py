"""The Ray that jobs and servers run on: one that is there, or a small one of this process, which ends with it.

Ray's own messages are pickled objects: whoever may connect to it may run code there. It asks for a token, from 2.60 on
by itself; keep its ports on a network of machines that trust each other all the same.
"""

from __future__ import annotations

import importlib
import logging
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vecdb.errors import InvalidArgument, Unavailable, VecdbError
from vecdb.storage.disk import filesystem

NAMESPACE = "vecdb"
_HEAD = (
    "import ast, sys, ray\n"
    "ray.init(**ast.literal_eval(sys.argv[1]))\n"
    "print(ray.get_runtime_context().gcs_address, flush=True)\n"
    "sys.stdin.read()\n"
    "ray.shutdown()\n"
)
_MODE, _NICENESS = "RAY_AUTH_MODE", "RAY_worker_niceness"
_STORE_BYTES = 512 << 20  # of a Ray that this process starts: Ray itself would take a third of the memory


def load_ray() -> Any:
    """The module. Raises VecdbError where it is not installed."""
    try:
        import ray
    except ImportError:
        raise VecdbError("jobs and servers over Ray need it: pip install 'vecdb-engine[ray]'") from None
    return ray


_LOCAL: dict[str, Any] = {
    "include_dashboard": False,
    "object_store_memory": _STORE_BYTES,
    "_node_ip_address": "127.0.0.1",
}
_QUIET: dict[str, Any] = {
    "namespace": NAMESPACE, "logging_level": logging.ERROR, "log_to_driver": False, "configure_logging": False,
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class RayOptions:
    """On which Ray a job runs, and how.

    address : of a Ray cluster, "auto" for the one of this machine; None: a Ray of this process.   cpus : of that;
    None: all.   cpus_each : for an index that is built, and for a shard that is searched, where Ray sets them aside;
    None: a core, and none.   work : a folder on each machine for directories meanwhile; None: a temporary one.
    progress : called with what is done of the job, and what there is.   niceness : of workers of a Ray of this process;
    None: as Ray has it, so that all else on the machine goes first.
    """

    address: str | None = None
    cpus: int | None = None
    cpus_each: int | None = None
    work: str | None = None
    progress: Callable[[int, int], None] | None = None
    niceness: int | None = None

    def report(self, done: int, total: int) -> None:
        if self.progress is not None:
            self.progress(done, total)

    def made_work(self) -> str | None:
        """The folder, which is there."""
        if self.work is not None:
            filesystem.make_dir(Path(self.work))
        return self.work


@contextmanager
def job_folder(on: RayOptions) -> Iterator[str | None]:
    """Where workers make directories. On this machine it goes with the job, whatever workers have died; on a cluster it
    is `work`, where a worker that was killed leaves its directory.
    """
    work = on.made_work()
    if on.address is not None:
        yield work
        return
    with tempfile.TemporaryDirectory(prefix="vecdb-job-", dir=work) as folder:
        yield folder


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
    with _with_niceness(on), _asks_for_token(on), _head(on) as address:
        try:
            ray.init(address=address, **(_LOCAL | {"num_cpus": on.cpus} if address == "local" else {}), **_QUIET)
        except (ConnectionError, RuntimeError, ValueError) as error:
            raise Unavailable(f"no Ray at {on.address or 'this machine'}: {str(error).splitlines()[0]}") from None
        try:
            yield ray
        finally:
            ray.shutdown()


@contextmanager
def _with_niceness(on: RayOptions) -> Iterator[None]:
    """The processes of a Ray that is started here learn it by the environment."""
    if on.niceness is None or _NICENESS in os.environ:
        yield
        return
    os.environ[_NICENESS] = str(on.niceness)
    try:
        yield
    finally:
        del os.environ[_NICENESS]


@contextmanager
def _asks_for_token(on: RayOptions) -> Iterator[None]:
    """Both sides must know that a Ray that another process starts asks for the token that Ray keeps in the home folder:
    Ray itself turns that on in the process that starts it.
    """
    if not _by_another_process(on) or _MODE in os.environ:
        yield
        return
    os.environ[_MODE] = "token"
    try:
        with suppress(ImportError, AttributeError, TypeError):  # a Ray that was imported before has read it already
            importlib.import_module("ray._raylet").Config.initialize("")
        yield
    finally:
        del os.environ[_MODE]


def _by_another_process(on: RayOptions) -> bool:
    return on.address is None and "grpc" in sys.modules


@contextmanager
def _head(on: RayOptions) -> Iterator[str]:
    """The address of the Ray to use.

    Ray starts its processes by forks, which die at once where gRPC has connections in this process: then another
    process starts them. It ends with this one.
    """
    if not _by_another_process(on):
        yield on.address or "local"
        return
    options = _LOCAL | _QUIET | {"num_cpus": on.cpus, "address": "local"}
    process = subprocess.Popen(
        [sys.executable, "-c", _HEAD, repr(options)],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, start_new_session=True,
    )  # fmt: skip
    assert process.stdin is not None and process.stdout is not None
    try:
        line = process.stdout.readline().strip()
        if not line:
            raise Unavailable("a Ray of this machine did not start; what it said is on standard error")
        yield line
    finally:
        process.stdin.close()
        process.wait()
        process.stdout.close()
