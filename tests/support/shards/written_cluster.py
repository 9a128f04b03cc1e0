"""A cluster without servers: the databases that write its logs are open in the test, and a dict says what they hold."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

import vecdb
from vecdb import validate
from vecdb.cluster.placement import Placement, bucket_url, cluster_bucket
from vecdb.cluster.slots import slots_of
from vecdb.replication.objects import Bucket

DIM = 8
Key = tuple[str, Any]  # (owner, id)


class WrittenCluster:
    """`upsert`, `delete` and the like go to the shard that the placement names, and into `records`."""

    def __init__(self, root: Path, shards: int, *, durability: Any = "remote") -> None:
        self.root = root
        self.url = f"cluster://{root}/bucket"
        self.bucket: Bucket = cluster_bucket(self.url, conditional=True)
        self.records: dict[Key, tuple[bytes, dict[str, Any], tuple[str, ...]]] = {}
        self._durability = durability
        self._rng = np.random.default_rng(3)
        self._open: dict[int, vecdb.Database] = {}
        Placement.even(shards).create(self.bucket)
        for number in range(shards):
            self.open(number)

    def open(self, number: int) -> vecdb.Database:
        """The database that writes a shard, where it is open; of a new shard after its log was taken over."""
        if number not in self._open:
            log = self.log(number)
            path = self.root / f"writer-{number}"
            if number not in (0, 1):
                vecdb.open(path, follow=log, staleness_s=None).close()
                vecdb.promote(path, log)
            self._open[number] = vecdb.open(path, log=log, durability=self._durability, maintenance=False)
        return self._open[number]

    def log(self, number: int) -> str:
        return f"{bucket_url(self.url)}/{self.placement.shards[number].log}"

    @property
    def placement(self) -> Placement:
        return Placement.read(self.bucket)

    def close(self) -> None:
        for db in self._open.values():
            db.close()
        self._open.clear()

    # -- writes ------------------------------------------------------------------------------------

    def create(self, name: str = "docs", **options: Any) -> None:
        for number in self.placement.serving:
            self.open(number).create_collection(name, DIM, "l2", **options)

    def _shards(self, ids: Any, owner: str) -> Any:
        slots = slots_of(validate.ids(ids), validate.owner(owner))
        return self.placement.shards_of(slots)

    def upsert(self, ids: list[Any], *, owner: str = "", tenants: list[str] | None = None, bare: bool = False) -> None:
        owned = self._shards(ids, owner)
        vectors = self._rng.normal(size=(len(ids), DIM)).astype(np.float32)
        fields = [{"n": int(self._rng.integers(1000))} for _ in ids]
        for number in np.unique(owned).tolist():
            at = np.flatnonzero(owned == number).tolist()
            docs = self.open(number)["docs"]
            some: Any = None if bare else vectors[at]
            lists = None if tenants is None else [tenants] * len(at)
            docs.upsert([ids[i] for i in at], some, [fields[i] for i in at], lists, owner=owner)
        for i, id in enumerate(ids):
            before = self.records.get((owner, id))
            names = tuple(sorted(tenants)) if tenants is not None else before[2] if before else ()
            self.records[owner, id] = (b"" if bare else vectors[i].tobytes(), fields[i], names)

    def delete(self, ids: list[Any], *, owner: str = "") -> None:
        owned = self._shards(ids, owner)
        for number in np.unique(owned).tolist():
            self.open(number)["docs"].delete([ids[i] for i in np.flatnonzero(owned == number)], owner=owner)
        for id in ids:
            self.records.pop((owner, id), None)

    def set_fields(self, id: Any, value: int) -> None:
        (number,) = self._shards([id], "").tolist()
        self.open(number)["docs"].update([id], fields=[{"n": value}])
        vector, _, tenants = self.records["", id]
        self.records["", id] = (vector, {"n": value}, tenants)

    def grant(self, id: Any, tenant: str) -> None:
        (number,) = self._shards([id], "").tolist()
        self.open(number)["docs"].grant([id], tenant)
        vector, fields, tenants = self.records["", id]
        self.records["", id] = (vector, fields, tuple(sorted({*tenants, tenant})))

    # -- what is there -----------------------------------------------------------------------------

    def found(self) -> dict[Key, tuple[bytes, dict[str, Any], tuple[str, ...]]]:
        """All records of the shards that have slots, by what their logs say. Raises AssertionError for one that is in
        two of them, or in the wrong one.
        """
        made: dict[Key, Any] = {}
        for number in self.placement.serving:
            path = self.root / f"look-{number}-{len(list(self.root.iterdir()))}"
            with vecdb.open(path, follow=self.log(number), staleness_s=None, maintenance=False) as db:
                assert db.check() == []
                for page in db["docs"].iter(1000, include_vectors=True):
                    for one in page:
                        assert (one.owner, one.id) not in made, f"{one.id!r} is there twice"
                        assert self._shards([one.id], one.owner).tolist() == [number]
                        vector = b"" if one.vector is None else one.vector.tobytes()
                        made[one.owner, one.id] = (vector, one.fields, tuple(sorted(one.tenants)))
        return made

    def give_up_writers(self) -> None:
        """As the servers of old shards do once these are held: they ship what they have, and close."""
        shards = self.placement.shards
        for number in [number for number in self._open if number not in shards or shards[number].writer is None]:
            self._open.pop(number).close()
