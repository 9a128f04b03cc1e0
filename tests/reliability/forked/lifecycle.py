"""Workers that create, drop, back up and restore collections, and the comparison of what is left with the ledger."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import vecdb
from tests.reliability.forked.records import guarded, put
from tests.reliability.harness import DIM, NAME, LedgerWriter, read_ledger, vectors_of
from vecdb.embedded.open import open_database


def lifecycle(path: str, ledger: str, seed: int) -> None:
    """Create, fill, vacuum, back up, restore and drop, for ever. Each collection holds ids 0..39 of its own number."""
    rng = random.Random(seed)
    book = LedgerWriter(Path(ledger))
    guarded(book, _lifecycle, path, book, rng)


def _lifecycle(path: str, book: LedgerWriter, rng: random.Random) -> None:
    db = open_database(path)
    book.line(ready=True)
    while True:
        number = rng.randrange(1 << 40)
        there = db.collections()
        kind = rng.choice(["create", "create", "drop", "backup", "vacuum", "restore"])
        if kind == "create" or len(there) < 3:
            name = f"c{number}"
            book.line(begin="create", name=name, number=number)
            c = db.create_collection(name, DIM, "l2")
            book.line(end="create", name=name)
            ids = list(range(40))
            book.line(begin="fill", name=name)
            put(c, ids, [number % (1 << 32)] * 40)
            book.line(end="fill", name=name)
        elif kind == "drop":
            name = rng.choice(there)
            book.line(begin="drop", name=name)
            db.drop_collection(name)
            book.line(end="drop", name=name)
        elif kind == "vacuum":
            c = db[rng.choice(there)]
            ids = [i for i in range(0, 40, 2) if c.get(i) is not None]
            if ids:
                version = int(c.get(ids[0]).fields["f"])
                put(c, ids, [version] * len(ids))  # the same records in new rows
            c.vacuum()
        else:
            target = f"{path}.backup{number}"
            book.line(begin="backup", name=target)
            db.backup(target)
            book.line(end="backup", name=target)
            if kind == "restore":
                book.line(begin="restore", name=f"{path}.restored{number}")
                vecdb.restore(target, f"{path}.restored{number}")
                book.line(end="restore", name=f"{path}.restored{number}")


def large_deletion(path: str) -> dict[str, Any]:
    """One call deletes so many records that their marks fill pages of LMDB; then whatever copies its file."""
    with open_database(path, maintenance=False) as db:
        kept, passing = (db.create_collection(name, DIM, "l2", vecdb.Flat()) for name in (NAME, "passing"))
        ids = list(range(4_000))
        put(kept, ids, [1] * len(ids))
        put(passing, ids, [1] * len(ids))
        kept.delete(ids[:900])
        db.backup(path + ".backup")
        passing.delete(ids[:2_000])
        passing.vacuum()
        counts = [kept.count(), passing.count()]
        problems = db.check()
    vecdb.restore(path + ".backup", path + ".restored")
    for place in (path, path + ".restored"):
        with open_database(place, maintenance=False) as db:
            counts.append(db[NAME].count())
            problems += db.check()
    return {"counts": counts, "problems": problems}


def lifecycle_verdict(path: str, ledger: str) -> dict[str, Any]:
    """Compare collections, backups and restored databases with the ledger."""
    begun: dict[tuple[str, str], dict[str, Any]] = {}
    ended: set[tuple[str, str]] = set()
    numbers: dict[str, int] = {}
    wrong: list[str] = []
    for line in read_ledger(Path(ledger)):
        if "begin" in line:
            begun[line["begin"], line["name"]] = line
            numbers.setdefault(line["name"], line.get("number", 0))
        elif "end" in line:
            ended.add((line["end"], line["name"]))
        elif "error" in line:
            wrong.append(line["error"])

    def state(name: str) -> set[bool]:
        """Whether a collection may exist."""
        if ("drop", name) in ended or ("create", name) not in begun:
            return {False}
        if ("drop", name) in begun or ("create", name) not in ended:
            return {True, False}
        return {True}

    def look(place: str, *, partial: bool) -> None:
        with open_database(place, maintenance=False) as db:
            wrong.extend(f"{place}: {problem}" for problem in db.check())
            there = set(db.collections())
            for name in {name for _, name in begun if not name.startswith("/")} if not partial else there:
                allowed = state(name) if not partial else {True}
                if (name in there) not in allowed:
                    wrong.append(f"{place}: collection {name} exists: {name in there}, allowed {allowed}")
                if name in there:
                    looked.append(name)
                    version = numbers[name] % (1 << 32)
                    records = [r for batch in db[name].iter(100, include_vectors=True) for r in batch]
                    if len(records) not in ({40} if ("fill", name) in ended and not partial else {0, 40}):
                        wrong.append(f"{place}: {name} has {len(records)} records")
                    right = vectors_of([r.id for r in records], [version] * len(records))
                    if records and not all((r.vector == v).all() for r, v in zip(records, right, strict=True)):
                        wrong.append(f"{place}: {name} holds other vectors")

    looked: list[str] = []
    look(path, partial=False)
    copies = 0
    for kind in ("backup", "restore"):
        for what, name in list(begun):
            if what != kind:
                continue
            if not Path(name).exists():
                if (kind, name) in ended:
                    wrong.append(f"{name} was acknowledged and is gone")
                continue
            copies += 1
            if kind == "backup":
                vecdb.restore(name, name + ".verify")
                look(name + ".verify", partial=True)
                import shutil

                shutil.rmtree(name + ".verify")
            else:
                look(name, partial=True)
    return {"wrong": wrong, "collections": len(looked), "copies": copies}
