"""A cluster within the test's process: servers on loops of their own, and a placement made by hand in a folder."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import vecdb
from tests.support.server.driver import Running
from vecdb.cluster.placement import Placement, cluster_bucket
from vecdb_server.config import Config


class InProcessCluster:
    """logged : shards write their logs, so that they may have copies."""

    def __init__(self, folder: Path, shards: int, *, logged: bool = False, **settings: Any) -> None:
        self.folder = folder
        self.url = f"cluster://{folder}/bucket"
        self.bucket = cluster_bucket(self.url, conditional=True)
        self.settings = {"durability": "relaxed", "backups": str(folder / "backups"), **settings}
        self.running: dict[str, Running] = {}
        Placement.even(shards).create(self.bucket)
        for number in range(shards):
            age = self.settings.get("staleness_s", 0.05)
            log = {"log": self.log_of(number), "durability": "full", "staleness_s": age} if logged else {}
            server = self.start(f"shard-{number}", **log)
            self.place(lambda one, number=number, server=server: one.with_writer(number, f"grpc://{server.address}"))

    def log_of(self, shard: int) -> str:
        return f"file://{self.folder}/bucket/shard-{shard}"

    def start(self, name: str, **settings: Any) -> Running:
        config = Config(path=str(self.folder / name), listen="127.0.0.1:0", grace_s=5.0)
        self.running[name] = Running(replace(config, **(self.settings | settings)))
        return self.running[name]

    def add_copy(self, shard: int, name: str, **settings: Any) -> Running:
        """A server that follows a shard's log, in the placement."""
        server = self.start(name, follow=self.log_of(shard), durability="full", backups=None, **settings)
        address = f"grpc://{server.address}"
        self.place(lambda one: one.with_copies(shard, (*one.shards[shard].copies, address)))
        return server

    def place(self, change: Any) -> Placement:
        return Placement.change(self.bucket, change)

    def open(self, **options: Any) -> vecdb.Database:
        return vecdb.open(self.url, **options)

    def stop(self, name: str) -> None:
        self.running.pop(name).close()

    def close(self) -> None:
        for server in self.running.values():
            server.close()
