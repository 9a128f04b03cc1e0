"""A long seeded history of every kind of call on a twin, with another process that reads along.

The seed is printed; `VECDB_SEED=n` repeats a run.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np

import vecdb
from tests.model import filtered
from tests.model.setups import IDS, NAMES, Setup, kinds_for
from tests.model.twin import Twin
from vecdb.filters.tree import And, Compare

SEED = int(os.environ.get("VECDB_SEED", "20260101"))


def bare_by(draw: float, vectors: list[int]) -> list[int]:
    """Of some writes some records have no vector (-1). Chosen without another draw: histories stay as they were."""
    if int(draw * 1e6) % 6:
        return vectors
    return [-1 if number % 2 else number for number in vectors]


class Driver:
    """Draws operations from a seeded generator and does them to a twin."""

    def __init__(self, twin: Twin, seed: int) -> None:
        self.twin = twin
        self.rng = np.random.default_rng(seed)
        self.steps = 0
        self.filters = np.random.default_rng(seed + 1)  # of its own, so that what is drawn otherwise stays the same

    def _numbers(self, most: int) -> list[int]:
        return self.rng.integers(0, IDS, self.rng.integers(1, most + 1)).tolist()

    def _vectors(self, n: int) -> list[int]:
        numbers = self.rng.integers(0, 64, n)
        if self.twin.setup.awkward and self.steps % 400 < 200:  # what comes drifts through the table
            numbers = (self.steps // 10 + numbers % 16) % 64
        return [int(number) for number in numbers]

    def _fields(self, n: int) -> list[dict[str, Any]] | None:
        if self.rng.random() < 0.4:
            return None
        return [
            {"a": int(value), "b": None if value % 3 == 0 else "x" * int(value)} for value in self.rng.integers(0, 9, n)
        ]

    def _names(self, most: int = 2) -> list[str]:
        return self.rng.choice(NAMES, self.rng.integers(1, most + 1)).tolist()

    def _tenants(self, n: int) -> list[list[str]] | None:
        return None if self.rng.random() < 0.4 else [self._names()[self.rng.integers(2) :] for _ in range(n)]

    def _live(self) -> list[int]:
        there = [number for number in range(IDS) if self.twin.id(number) in self.twin.model]
        return self.rng.choice(there, 5).tolist() if there else [1]

    def _seen(self, names: list[str] | None, n: int) -> list[int]:
        """Records that one of these tenants may see; of ten times one any records."""
        visible = self.twin.model if names is None else self.twin.seen_by(names)
        there = [number for number in range(IDS) if self.twin.id(number) in visible]
        return self.rng.choice(there, n).tolist() if there and self.rng.random() < 0.9 else self._numbers(n)

    def step(self) -> None:
        twin, draw = self.twin, self.rng.random()
        self.steps += 1
        if self.filters.random() < 0.03:
            self._filtered()
        if draw < 0.25:
            numbers = self._numbers(12)
            n = len(numbers)
            vectors = bare_by(draw, self._vectors(n))
            twin.upsert(numbers, vectors, self._fields(n), self._tenants(n))
        elif draw < 0.30:
            numbers = self._numbers(2)
            twin.insert(numbers, bare_by(draw, self._vectors(len(numbers))))
        elif draw < 0.36:
            numbers = self._numbers(2)
            both = self.rng.random() < 0.5
            twin.update(
                numbers,
                self._vectors(len(numbers)) if both else None,
                self._fields(len(numbers)) or [{"c": 1}] * len(numbers),
            )
        elif draw < 0.455:
            twin.delete(self._numbers(8))
        elif draw < 0.46:
            twin.delete_everything()
        elif draw < 0.56:
            twin.get(self._numbers(4))
        elif draw < 0.58:
            twin.iterate(int(self.rng.integers(1, 12)))
        elif draw < 0.75:
            self._access()
        elif draw < 0.80:
            self._mixture(None if self.rng.random() < 0.4 else self._names(3))
        elif draw < 0.90:
            limit = int(self.rng.choice([*twin.limits_now(), 16_384]))
            twin.search(
                int(self.rng.integers(64)),
                limit,
                exact=bool(self.rng.random() < 0.3),
                jitter=float(self.rng.choice([0.0, 0.5])),
            )
        elif draw < 0.92:
            twin.search_batch(self._vectors(3), int(self.rng.integers(1, IDS + 2)), 1)
        else:
            self._care()

    def _access(self) -> None:
        twin, draw = self.twin, self.rng.random()
        if draw < 0.2:
            twin.grant(self._live(), self._names())
        elif draw < 0.4:
            twin.revoke(self._live(), self._names())
        elif draw < 0.44:
            twin.drop_tenant(self._names()[0])
        elif draw < 0.50:
            twin.fold_some(int(self.rng.integers(1, 8)))
        else:
            limit = int(self.rng.integers(1, 12))
            twin.search_among(self._names(3), int(self.rng.integers(64)), limit, exact=bool(self.rng.random() < 0.4))

    def _filtered(self) -> None:
        twin, rng, node = self.twin, self.filters, filtered.random_node(self.filters)
        draw = rng.random()
        if draw < 0.8:
            filtered.read(twin, node, int(rng.integers(64)), rng.choice(NAMES, 2).tolist())
        elif draw < 0.9:
            filtered.delete(twin, And((node, Compare("a", "==", int(rng.integers(9))))))
        else:
            filtered.update(twin, node, {"a": int(rng.integers(9)), "b": None})

    def _mixture(self, among: list[str] | None) -> None:
        rng = self.rng
        others = [self._seen(among, 2) for _ in range(rng.integers(3))] if rng.random() < 0.4 else None
        self.twin.search_mixture(
            self._seen(among, int(rng.integers(1, 12))),
            int(rng.choice([*self.twin.limits_now(), 3])),
            among=among,
            components=int(rng.choice([1, 2, 8])),
            others=others,
            smoothing=float(rng.choice([0.0, 0.3, 1.0])),
            exact=bool(rng.random() < 0.4),
        )

    def _care(self) -> None:
        twin, draw = self.twin, self.rng.random()
        if twin.setup.awkward and self.filters.random() < 0.1:
            twin.learn()
        if draw < 0.35:
            twin.index_some()
        elif draw < 0.50:
            twin.repair()
        elif draw < 0.60:
            twin.seal()
        elif draw < 0.70:
            twin.optimize()
        elif draw < 0.80:
            twin.vacuum()
        elif draw < 0.90:
            twin.reopen()
        elif draw < 0.95:
            twin.reindex(str(self.rng.choice(kinds_for(twin.setup))))
        elif draw < 0.98:
            twin.backup_restore()
        else:
            twin.drop_and_create()


class Reader:
    """A second process with the database open for reading."""

    def __init__(self) -> None:
        script = Path(__file__).with_name("reading_process.py")
        root = Path(vecdb.__file__).parent.parent
        self.process = subprocess.Popen(
            [sys.executable, str(script)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "PYTHONPATH": os.pathsep.join([str(root), os.environ.get("PYTHONPATH", "")])},
        )

    def ask(self, twin: Twin, query: int, limit: int) -> dict[str, Any]:
        vector = twin.table[query].astype(np.float32).tolist()
        request = {"path": str(twin.path), "query": vector, "limit": limit, "tenants": sorted(twin.tenants)}
        assert self.process.stdin is not None and self.process.stdout is not None
        self.process.stdin.write(json.dumps(request) + "\n")
        self.process.stdin.flush()
        line = self.process.stdout.readline()
        assert line, "the reading process died"
        return json.loads(line)

    def compare(self, twin: Twin, query: int, limit: int) -> None:
        """What it sees is the newest commit, whatever it had loaded before."""
        got = self.ask(twin, query, limit)
        assert "error" not in got, got
        assert got["count"] == len(twin.model)
        assert got["sequence"] == twin.sequence
        records = [[record.id, record.fields] for batch in twin.docs.iter(7) for record in batch]
        assert got["all"] == records  # in the same order
        assert sorted((id_ for id_, _ in records), key=repr) == sorted(twin.model, key=repr)
        assert all(fields == twin.model[id_][1] for id_, fields in [*got["all"], *got["found"]])
        assert got["writes"] == "UNAVAILABLE"
        for name in twin.tenants:
            assert sorted(got["tenants"][name], key=repr) == sorted(twin.seen_by([name]), key=repr), name
        assert got["union"] == len(twin.seen_by(sorted(twin.tenants)))
        vector = twin.table[query].astype(np.float32)
        hits = twin.docs.search(vector, limit, params=vecdb.SearchParams(exact=True))
        assert got["distances"] == hits.distances.tolist()
        assert len(got["near"]) == min(limit, len(twin.near())) and set(got["near"]) <= twin.near()

    def close(self) -> None:
        assert self.process.stdin is not None
        self.process.stdin.close()
        assert self.process.wait(60) == 0


def drive(setup: Setup, steps: int, seed: int, reader_every: int = 0) -> Twin:
    print(f"VECDB_SEED={seed}, {setup}, {steps} steps")
    twin = Twin(setup)
    reader = Reader() if reader_every else None
    driver = Driver(twin, seed)
    try:
        for at in range(steps):
            driver.step()
            if reader is not None and at % reader_every == 0:
                reader.compare(twin, at % 64, 5)
    finally:
        if reader is not None:
            reader.close()
        twin.close()
    return twin
