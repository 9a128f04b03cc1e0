"""Workers that hurt the files of a sound database, open it and compare its answers with those it gave before.

An outcome is one of   same     every answer as before
                       typed    a vecdb error, on opening or in answering
                       found    answers differ and `check` says so: keys and values of LMDB carry no checksum
                       of their own
                       wrong    answers differ and nothing says so; or an error that is not vecdb's
                       died     the process ended by a signal (counted by the parent)
"""

from __future__ import annotations

import json
import os
import random
import shutil
from pathlib import Path
from typing import Any

import numpy as np

from tests.reliability.forked.records import index_of, put
from tests.reliability.harness import DIM, NAME, vectors_of
from vecdb import SearchParams, limits
from vecdb.embedded.open import open_database
from vecdb.errors import VecdbError
from vecdb.maintenance import index_jobs

PAGE = 4096
IDS = list(range(600))


def sound(path: str, index: str = "auto") -> dict[str, Any]:
    """A database with a sealed index, a tail, fields, deletions, and an older self of each page (`path`.older)."""
    limits.flat_rows_max = 256
    index_jobs._SEAL_AT_CLOSE_ROWS = 1 << 30
    with open_database(path, maintenance=False) as db:
        c = db.create_collection(NAME, DIM, "l2", index_of(index))
        put(c, IDS[:500], [1] * 500)
        c.optimize()
    shutil.copytree(path, path + ".older")
    with open_database(path, maintenance=False) as db:
        c = db[NAME]
        put(c, IDS[450:], [2] * 150)
        c.delete(IDS[:40])
        c.update(IDS[100:110], fields=[{"f": 3}] * 10)
    for lock in ("LOCK", "lmdb/lock.mdb"):
        (Path(path) / lock).unlink(missing_ok=True)
    Path(path + ".answers").write_text(json.dumps(answers(path, read_only=True)))
    (Path(path) / "lmdb" / "lock.mdb").unlink(missing_ok=True)
    there = [file.name for file in (Path(path) / "collections" / "00000001").iterdir()]
    sealed = sorted(name for name in there if not name.startswith("rows"))
    assert len(sealed) == (1 if index in ("auto", "curator") else 2), sealed
    return {"sealed": sealed}


def answers(path: str, *, read_only: bool) -> dict[str, Any]:
    """Everything that can be asked."""
    with open_database(path, read_only=read_only, maintenance=False) as db:
        c = db[NAME]
        queries = vectors_of(IDS[::9], [1] * len(IDS[::9]))
        exact = c.search(queries, 5, params=SearchParams(exact=True), fields=[])
        near = c.search(queries, 5, fields=[])
        got = c.get(IDS, include_vectors=True)
        walked = [[r.id, r.fields, r.tenants] for batch in c.iter(100) for r in batch]
        names = list(c.tenants())
        mine = [c.search(queries, 100, tenant=name, params=SearchParams(exact=True), fields=[]) for name in names]
        return {
            "count": c.count(),
            "names": db.collections(),
            "exact": exact.ids.tolist(),
            "distances": [[float(np.float32(d)) for d in row] for row in exact.distances],
            "near": near.ids.tolist(),
            "got": [None if r is None else [r.id, r.fields, r.vector.tobytes().hex()] for r in got],
            "walked": walked,
            "tenants": names,
            "mine": [hits.ids.tolist() for hits in mine],
            "counts": [c.count(tenant=name) for name in names],
        }


def hurt(path: str, work: str, wounds: list[dict[str, Any]], progress: str) -> None:
    """Each wound on a copy of its own; a line of progress before it and one after."""
    log = os.open(progress, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
    before = json.loads(Path(path + ".answers").read_text())
    for wound in wounds:
        os.write(log, json.dumps({"begin": wound["at"]}).encode() + b"\n")
        copy = Path(work) / str(wound["at"])
        shutil.copytree(path, copy)
        apply(copy, Path(path + ".older"), wound)
        outcome, text = judge(str(copy), before, read_only=wound["read_only"])
        if wound.get("derived") and outcome == "same":
            outcome, text = mended(str(copy), before)
        os.write(log, json.dumps({"end": wound["at"], "outcome": outcome, "text": text[:300]}).encode() + b"\n")
        shutil.rmtree(copy, ignore_errors=True)


def apply(copy: Path, older: Path, wound: dict[str, Any]) -> None:
    file = copy / wound["file"]
    if wound["kind"] == "truncate":
        os.truncate(file, wound["offset"])
        return
    data = bytearray(file.read_bytes())
    if wound["kind"] == "flip":
        data[wound["offset"]] ^= 1 << wound["bit"]
    elif wound["kind"] == "swap":
        a, b = wound["pages"]
        one, two = bytes(data[a * PAGE : (a + 1) * PAGE]), bytes(data[b * PAGE : (b + 1) * PAGE])
        data[a * PAGE : (a + 1) * PAGE], data[b * PAGE : (b + 1) * PAGE] = two, one
    elif wound["kind"] == "older":
        page = wound["page"]
        data[page * PAGE : (page + 1) * PAGE] = (older / wound["file"]).read_bytes()[page * PAGE : (page + 1) * PAGE]
    file.write_bytes(data)


def mended(path: str, before: dict[str, Any]) -> tuple[str, str]:
    """After a look into every list and `optimize` the index is whole again, and so it stays."""
    for step in ("optimize", "look"):
        with open_database(path, maintenance=False) as db:
            if step == "optimize":
                look_everywhere(db[NAME])  # damage in a list that nothing reads is found by `check` alone
                db[NAME].optimize()
            problems, state = db.check(), db[NAME].stats()["index_state"]
        if problems or state == "rebuilding":
            return "wrong", f"after {step}: index_state {state}, check: {problems[:2]}"
    now = json.loads(json.dumps(answers(path, read_only=False)))
    differing = [name for name in now if name != "near" and now[name] != before[name]]
    return ("wrong", f"{differing} differ after a rebuild") if differing else ("same", "")


def look_everywhere(c: Any) -> tuple[list[Any], str]:
    """(ids found through every list of the index, the index's state after it)."""
    lists = max(1, c.stats()["index_stats"].get("heads", 1))
    queries = vectors_of(IDS[::30], [1] * len(IDS[::30]))
    found = c.search(queries, 5, params=SearchParams(nprobe=lists), fields=[])
    return found.ids.tolist(), c.stats()["index_state"]


def flip_every_page(path: str, seed: int, rebuilds: int) -> dict[str, Any]:
    """One flipped bit in each page of the list file in turn: what a reader answers, and for `rebuilds` of the pages
    what a writer answers and makes of it.
    """
    rng = random.Random(seed)
    file = next((Path(path) / "collections" / "00000001").glob("lists.*"))
    whole, pages = file.read_bytes(), file.stat().st_size // PAGE
    before = json.loads(Path(path + ".answers").read_text())
    with open_database(path, read_only=True, maintenance=False) as db:
        garbage = db[NAME].stats()["index_stats"]["list_file_garbage_bytes"] // PAGE
        sound, state = look_everywhere(db[NAME])
        exact = db[NAME].search(
            vectors_of(IDS[::30], [1] * len(IDS[::30])), 5, params=SearchParams(exact=True), fields=[]
        )
    found: dict[str, Any] = {"pages": pages, "used": pages - garbage, "noticed": 0, "rebuilt": 0, "wrong": []}
    assert state == "ready"
    for page in range(pages):
        bit = rng.randrange(8 * PAGE)
        data = bytearray(whole)
        data[page * PAGE + bit // 8] ^= 1 << bit % 8
        file.write_bytes(data)
        try:
            with open_database(path, read_only=True, maintenance=False) as db:
                now, state = look_everywhere(db[NAME])
            found["noticed"] += state == "rebuilding"
            if now != (exact.ids.tolist() if state == "rebuilding" else sound):
                found["wrong"].append(f"page {page}, bit {bit}: other answers while {state}")
            if page % max(1, pages // rebuilds) == 0:
                copy = path + ".copy"
                shutil.copytree(path, copy)
                for step in (judge(copy, before, read_only=False), mended(copy, before)):
                    if step[0] != "same":
                        found["wrong"].append(f"page {page}, bit {bit}: {step}")
                found["rebuilt"] += 1
                shutil.rmtree(copy)
        except Exception as error:
            found["wrong"].append(f"page {page}, bit {bit}: {type(error).__name__}: {error}")
    return found


def judge(path: str, before: dict[str, Any], *, read_only: bool) -> tuple[str, str]:
    try:
        now = json.loads(json.dumps(answers(path, read_only=read_only)))
    except VecdbError as error:
        return "typed", f"{type(error).__name__}: {error}"
    except Exception as error:
        import traceback

        return "wrong", f"{type(error).__name__}: {error} {traceback.format_exc()[-250:]}"
    if now["near"] == now["exact"] == before["exact"]:
        now["near"] = before["near"]  # an index that is being rebuilt answers exactly meanwhile
    if now == before:
        return "same", ""
    differing = [name for name in now if now[name] != before[name]]
    try:
        with open_database(path, maintenance=False) as db:
            problems = db.check()
    except VecdbError as error:
        problems = [str(error)]
    except Exception as error:
        return "wrong", f"check raised {type(error).__name__}: {error}"
    return ("found" if problems else "wrong"), f"{differing} differ; check: {problems[:2]}"
