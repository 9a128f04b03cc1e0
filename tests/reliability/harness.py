"""What the reliability tests share: records that can be foretold, the ledger, its verdict on a database, and
the fork server.

    worker --intent--> ledger          a line before each call and one after it, outside the database
           --call----> database
           --ack-----> ledger
    killed, cut or hurt; then `verify` opens the database and compares every record in it with what the ledger allows

- A record is a function of (id, vector version, field version): nobody has to remember vectors.
- Truth is the ledger, never the database's own count.
- Children are forked from a server process that has loaded and warmed every kernel, so that a round costs no start.
"""

from __future__ import annotations

import itertools
import json
import os
import random
import select
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

ROOT = Path(__file__).resolve().parents[2]
DIM = 8
NAME = "records"
_SHM = Path("/dev/shm")
_SHM_FREE_BYTES_MIN = 1 << 30
CHILD_SECONDS_MAX = 120.0
OPEN_MAX = 8  # calls whose outcome is open: every choice among them is tried


# -- records -----------------------------------------------------------------------------------------


def vectors_of(ids: Iterable[int], versions: Iterable[int], dim: int = DIM) -> np.ndarray:
    """float32[n, dim]: a fixed pseudo-random function of (id, version); no two pairs share a vector."""
    a = np.fromiter(ids, np.uint64)
    b = np.fromiter(versions, np.uint64)
    with np.errstate(over="ignore"):
        x = a[:, None] * np.uint64(0x9E3779B97F4A7C15) + b[:, None] * np.uint64(0xC2B2AE3D27D4EB4F)
        x = x + np.arange(1, dim + 1, dtype=np.uint64)[None, :] * np.uint64(0x165667B19E3779F9)
        for shift, factor in ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB)):
            x = (x ^ (x >> np.uint64(shift))) * np.uint64(factor)
    x ^= x >> np.uint64(31)
    return ((x >> np.uint64(40)).astype(np.float64) / (1 << 23) - 1.0).astype(np.float32)


@dataclass(frozen=True)
class Kept:
    """One record: which call gave it its vector, and which its fields."""

    vector: int
    field: int


def tenants_of(record_id: int) -> list[str]:
    """Who may see a record, as every `put` says and nothing else changes."""
    return ["all", f"t{record_id % 7}"]


# -- the ledger --------------------------------------------------------------------------------------


@dataclass
class Op:
    """One intended call. `n` is unique in the ledger and is the version that the call writes."""

    n: int
    do: str  # upsert | vectors | fields | delete | load
    ids: list[int]
    acked: bool = False

    def after(self, before: Kept | None) -> Kept | None:
        """The record of one of its ids once the call has happened."""
        if self.do == "delete":
            return None
        if self.do == "vectors":
            return Kept(self.n, before.field) if before else None
        if self.do == "fields":
            return Kept(before.vector, self.n) if before else None
        return Kept(self.n, self.n)


class LedgerWriter:
    """Appends lines; each is one write call, synced before it returns unless the test makes syncs fail."""

    def __init__(self, path: Path, *, sync: bool = True) -> None:
        self._sync = sync
        self._fd = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)

    def line(self, **what: Any) -> None:
        os.write(self._fd, json.dumps(what).encode() + b"\n")
        if self._sync:
            os.fdatasync(self._fd)


def read_ledger(path: Path) -> list[dict[str, Any]]:
    """Lines of a ledger; a torn last line never happened."""
    raw = path.read_bytes() if path.exists() else b""
    return [json.loads(line) for line in raw[: raw.rfind(b"\n") + 1].splitlines()]


@dataclass
class Expected:
    """What the ledger allows: one certain state per id, and the calls whose outcome is open."""

    kept: dict[int, Kept] = field(default_factory=dict)
    open: list[Op] = field(default_factory=list)
    errors: list[str] = field(default_factory=list)
    acked: int = 0

    @staticmethod
    def of(lines: Iterable[dict[str, Any]], *, losable: int = 0) -> Expected:
        """losable : so many of the last acknowledged calls may be lost (durability "relaxed")."""
        out = Expected()
        ops: dict[int, Op] = {}
        order: list[Op] = []
        for line in lines:
            if "ack" in line:
                op = ops.pop(line["ack"])
                op.acked = True
                order.append(op)
            elif "void" in line:  # the verdict of an earlier round: it did not happen
                ops.pop(line["void"])
            elif "error" in line:
                out.errors.append(line["error"])
            elif "do" in line:
                ops[line["n"]] = Op(line["n"], line["do"], line["ids"])
        out.acked = len(order)
        certain = order[: len(order) - losable] if losable else order
        for op in certain:
            for i in op.ids:
                after = op.after(out.kept.get(i))
                if after is None:
                    out.kept.pop(i, None)
                else:
                    out.kept[i] = after
        out.open = order[len(certain) :] + list(ops.values())
        return out


class Wrong(AssertionError):
    """The database breaks a promise. The message names each breach."""


@dataclass
class Verdict:
    checked: int  # live records compared
    happened: list[int]  # open calls that turned out to have happened
    void: list[int]


def verify(path: Path, expected: Expected, *, maintenance: bool = True, name: str = NAME) -> Verdict:
    """Open the database and compare it with the ledger, record by record. Raises Wrong."""
    from vecdb import SearchParams, limits
    from vecdb.embedded.open import open_database

    wrong: list[str] = list(expected.errors)
    with open_database(path, maintenance=maintenance) as db:
        wrong += db.check()
        if name not in db.collections():
            if expected.acked:
                raise Wrong(f"collection {name!r} is gone, {expected.acked} calls were acknowledged")
            return Verdict(0, [], [op.n for op in expected.open])
        c = db.collection(name)
        records = {}
        stored = []
        for batch in c.iter(500, include_vectors=True):
            for record in batch:
                if record.id in records:
                    wrong.append(f"id {record.id} is there twice")
                records[record.id] = record
                stored.append(record.vector)
        # which of the open calls happened: some choice, each whole, must explain what is there
        kept, happened, void = dict(expected.kept), [], [op.n for op in expected.open]
        assert len(expected.open) <= OPEN_MAX, "too many calls are open"
        for choice in itertools.product((True, False), repeat=len(expected.open)):
            after: dict[int, Kept | None] = {i: kept.get(i) for i in _mentioned(expected)}
            for op, did in zip(expected.open, choice, strict=True):
                after.update({i: op.after(after[i]) for i in op.ids} if did else {})
            if all(_is(records.get(i), state) for i, state in after.items()):
                happened = [op.n for op, did in zip(expected.open, choice, strict=True) if did]
                void = [op.n for op, did in zip(expected.open, choice, strict=True) if not did]
                kept.update({i: state for i, state in after.items() if state is not None})
                kept = {i: state for i, state in kept.items() if after.get(i, state) is not None}
                break
        else:
            calls = [f"{op.n} ({op.do} of {len(op.ids)} ids)" for op in expected.open]
            wrong.append(f"the calls {', '.join(calls)} are neither whole nor absent")
        for i in kept.keys() - records.keys():
            wrong.append(f"id {i} is lost, last acknowledged {kept[i]}")
        for i in records.keys() - kept.keys():
            wrong.append(f"id {i} is there, and should not be: fields {records[i].fields}")
        both = sorted(kept.keys() & records.keys())
        if both:
            right = vectors_of(both, [kept[i].vector for i in both])
            found = np.stack([records[i].vector for i in both])
            for at in np.flatnonzero((right != found).any(axis=1)).tolist():
                wrong.append(f"id {both[at]} has another vector than version {kept[both[at]].vector}")
            for i in both:
                if records[i].fields != {"f": kept[i].field}:
                    wrong.append(f"id {i} has fields {records[i].fields}, expected version {kept[i].field}")
            hits = c.search(right, 1, params=SearchParams(exact=True))
            for at in np.flatnonzero((hits.ids[:, 0] != np.array(both)) | (hits.distances[:, 0] != 0)).tolist():
                wrong.append(f"id {both[at]} is not what a search for its own vector finds: {hits.ids[at]}")
            near = c.search(right[:200], 10)
            if (near.counts != min(10, len(kept))).any():
                wrong.append("a search came short")
            strangers = set(near.ids.ravel().tolist()) - kept.keys() - {-1}
            wrong += [f"a search found {i}, which does not exist" for i in strangers]
            wrong += [f"id {i} has tenants {records[i].tenants}" for i in both if records[i].tenants != tenants_of(i)]
            for name in c.tenants():
                mine = {i for i in kept if name in tenants_of(i)}
                seen = c.search(right[0], limits.limit_max, tenant=name)
                listed = [record.id for batch in c.iter(tenant=name) for record in batch]
                short = len(set(seen.ids.tolist())) != min(len(mine), limits.limit_max)
                if short or not set(seen.ids.tolist()) <= mine:
                    wrong.append(f"a search of tenant {name} finds {len(seen)} records of {len(mine)}")
                if sorted(listed) != sorted(mine) or c.count(tenant=name) != len(mine):
                    wrong.append(
                        f"tenant {name} lists {len(listed)} records, {c.count(tenant=name)} by count, not {len(mine)}"
                    )
            got = c.get(both)
            wrong += [f"get of {i} gives {r}" for i, r in zip(both, got, strict=True) if r is None or r.id != i]
        gone = [op_id for op_id in _mentioned(expected) if op_id not in kept]
        if gone:
            wrong += [f"get of deleted {i} gives {r}" for i, r in zip(gone, c.get(gone), strict=True) if r is not None]
        if c.count() != len(kept):
            wrong.append(f"count is {c.count()}, the ledger has {len(kept)}")
        wrong += db.check()
    if wrong:
        raise Wrong(f"{len(wrong)} breaches: " + "; ".join(wrong[:12]))
    return Verdict(len(kept), happened, void)


def _mentioned(expected: Expected) -> list[int]:
    return sorted({i for op in expected.open for i in op.ids})


def _is(record: Any, state: Kept | None) -> bool:
    if record is None or state is None:
        return record is None and state is None
    return record.fields == {"f": state.field} and bool(
        (record.vector == vectors_of([record.id], [state.vector])[0]).all()
    )


# -- places ------------------------------------------------------------------------------------------


@contextmanager
def fast_folder() -> Iterator[Path]:
    """A folder where syncs cost nothing, if this machine has one: for tests that kill processes, not power."""
    base = None
    if _SHM.is_dir() and os.access(_SHM, os.W_OK) and shutil.disk_usage(_SHM).free > _SHM_FREE_BYTES_MIN:
        base = _SHM
    folder = Path(tempfile.mkdtemp(prefix="vecdb-reliability-", dir=base))
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def seed_of(request: Any) -> int:
    """The seed of a test: VECDB_SEED, or a new one; printed, so that a failure can be played again."""
    seed = int(os.environ.get("VECDB_SEED") or random.SystemRandom().randrange(1 << 31))
    print(f"VECDB_SEED={seed} replays {request.node.nodeid}")
    return seed


# -- the fork server ---------------------------------------------------------------------------------


class Child:
    """A forked worker. `wait` gives its exit status: 0, a positive code, or minus the signal that ended it."""

    def __init__(self, server: ForkServer, pid: int, go: int, log: Path) -> None:
        self.server, self.pid, self._go, self.log = server, pid, go, log

    def start(self) -> None:
        """Let it run (children wait for this, so that a tracer can be put in place)."""
        os.write(self._go, b"g")
        os.close(self._go)

    def kill(self) -> None:
        os.kill(self.pid, signal.SIGKILL)

    def wait(self, seconds_max: float = CHILD_SECONDS_MAX) -> int:
        return self.server.wait(self.pid, seconds_max)

    def output(self) -> str:
        return self.log.read_text(errors="replace") if self.log.exists() else ""


class ForkServer:
    """A process with warm kernels that forks workers on request."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._n = 0
        env = dict(os.environ, PYTHONPATH=os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")]))
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.reliability.forkserver"],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, cwd=ROOT, env=env, text=True, bufsize=1,
        )  # fmt: skip
        self._ask_reply()

    def _ask_reply(self, **request: Any) -> dict[str, Any]:
        assert self._process.stdin and self._process.stdout
        if request:
            self._process.stdin.write(json.dumps(request) + "\n")
            self._process.stdin.flush()
        line = self._process.stdout.readline()
        assert line, "the fork server died"
        return json.loads(line)

    def fork(self, call: str, *, start: bool = True, **arguments: Any) -> Child:
        """Run a function of forked/, faulty.py or damage.py in a child; start=False: it waits for `Child.start`."""
        self._n += 1
        gate, log = self.folder / f"gate.{self._n}", self.folder / f"log.{self._n}"
        os.mkfifo(gate)
        reply = self._ask_reply(fork=call, arguments=arguments, gate=str(gate), log=str(log))
        child = Child(self, reply["pid"], os.open(gate, os.O_WRONLY), log)
        os.unlink(gate)
        if start:
            child.start()
        return child

    def call(self, call: str, *, seconds_max: float = CHILD_SECONDS_MAX, **arguments: Any) -> tuple[int, Any]:
        """(status, what the worker returned) of a worker run to its end."""
        result = self.folder / f"result.{self._n + 1}"
        child = self.fork(call, result=str(result), **arguments)
        status = child.wait(seconds_max)
        value = json.loads(result.read_text()) if result.exists() and status == 0 else child.output()
        result.unlink(missing_ok=True)
        return status, value

    def wait(self, pid: int, seconds_max: float) -> int:
        return int(self._ask_reply(wait=pid, seconds_max=seconds_max)["status"])

    def close(self) -> None:
        assert self._process.stdin
        self._process.stdin.close()
        self._process.wait(10)


# -- strace ------------------------------------------------------------------------------------------


def strace() -> str | None:
    """The path of a strace that may trace here, or None."""
    found = shutil.which("strace")
    if found is None:
        return None
    done = subprocess.run([found, "-f", "-o", os.devnull, "true"], capture_output=True, check=False)
    return found if done.returncode == 0 else None


@contextmanager
def traced(child: Child, tool: str, *options: str) -> Iterator[subprocess.Popen[str]]:
    """Attach strace to a child that waits at its gate, and start it."""
    tracer = subprocess.Popen(
        [tool, "-f", "-p", str(child.pid), *options], stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True
    )
    assert tracer.stderr
    line = tracer.stderr.readline()
    assert "attached" in line, line
    child.start()
    try:
        yield tracer
    finally:
        tracer.stderr.read()
        tracer.wait(30)


def wait_for_lines(path: Path, needle: bytes, count: int, child: Child, seconds_max: float = 60.0) -> None:
    """Return once the file holds `needle` so often; asserts that the worker lives meanwhile."""
    deadline = time.monotonic() + seconds_max
    while not path.exists() or path.read_bytes().count(needle) < count:
        assert time.monotonic() < deadline, f"the worker wrote too little: {child.output()}"
        assert _alive(child.pid), f"the worker ended by itself: {child.output()}"
        select.select([], [], [], 0.002)


def _alive(pid: int) -> bool:
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return False
    return stat.rsplit(")", 1)[1].split()[0] not in "ZX"
