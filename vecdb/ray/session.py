"""The Ray that jobs and servers run on: one that is there, or a small one of this process, which ends with it.

Ray's own messages are pickled objects: whoever may connect to it may run code there. It asks for a token, from 2.60 on
by itself; keep its ports on a network of machines that trust each other all the same.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from vecdb.errors import Unavailable, VecdbError

NAMESPACE = "vecdb"
_STORE_BYTES = 512 << 20  # of a Ray that this process starts: Ray itself would take a third of the memory


def load_ray() -> Any:
    """The module. Raises VecdbError where it is not installed."""
    try:
        import ray
    except ImportError:
        raise VecdbError("jobs and servers over Ray need it: pip install 'vecdb-engine[ray]'") from None
    return ray


@contextmanager
def session(address: str | None = None, cpus: int | None = None) -> Iterator[Any]:
    """Ray, connected. One that this process is connected to already is used, and stays.

    address : of a Ray cluster, "auto" for the one of this machine; None: a Ray of this process, with so many `cpus`
        (None: as many as there are).
    Raises Unavailable where there is no Ray at that address.
    """
    ray = load_ray()
    if ray.is_initialized():
        yield ray
        return
    options: dict[str, Any] = {"address": address} if address is not None else {
        "num_cpus": cpus, "include_dashboard": False, "object_store_memory": _STORE_BYTES, "address": "local",
    }  # fmt: skip
    try:
        ray.init(
            namespace=NAMESPACE, logging_level=logging.ERROR, log_to_driver=False, configure_logging=False, **options
        )
    except (ConnectionError, RuntimeError, ValueError) as error:
        raise Unavailable(f"no Ray at {address or 'this machine'}: {str(error).splitlines()[0]}") from None
    try:
        yield ray
    finally:
        ray.shutdown()
