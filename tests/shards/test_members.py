"""Servers that keep themselves as the placement says: started again, made the writer, put aside, held, withdrawn."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import vecdb
from vecdb.cluster.placement import Placement, cluster_bucket
from vecdb.shards import notes
from vecdb.shards.holding import hold, let_go
from vecdb.shards.opened import opened_shard
from vecdb.shards.servers import directories
from vecdb.shards.servers.member import Member, MemberSettings, WatchedWriter
from vecdb.shards.servers.news import ServerNews
from vecdb.shards.servers.ports import free_port, is_free, split_listen
from vecdb.shards.servers.server_process import last_words

PATIENCE_S = 120.0
VECTORS = np.random.default_rng(1).normal(size=(50, 8)).astype(np.float32)


class Running:
    """Members, each with its loop in a thread."""

    def __init__(self, root: Path, shards: int) -> None:
        self.root, self.url = root, f"cluster://{root}/bucket"
        self.bucket = cluster_bucket(self.url, conditional=True)
        Placement.even(shards).create(self.bucket)
        self._running: list[tuple[Member, threading.Thread]] = []

    def start(self, name: str, shard: int = 0, **settings: Any) -> Member:
        given: dict[str, Any] = {"claim_s": 1_000.0, "takeover_s": None, "options": ("--workers", "1"), "grace_s": 5.0}
        member = Member(MemberSettings(self.url, shard, str(self.root / name), **(given | settings)))
        thread = threading.Thread(target=member.run)
        thread.start()
        self._running.append((member, thread))
        return member

    def stop(self, member: Member) -> None:
        member.stop()
        next(thread for one, thread in self._running if one is member).join()

    def close(self) -> None:
        for member, _ in self._running:
            member.stop()
        for _, thread in self._running:
            thread.join()

    @property
    def placement(self) -> Placement:
        return Placement.read(self.bucket)


@pytest.fixture
def running(tmp_path: Path) -> Iterator[Running]:
    made = Running(tmp_path, 1)
    yield made
    made.close()


def until(true: Callable[[], Any]) -> None:
    ends = time.monotonic() + PATIENCE_S
    while not true():
        assert time.monotonic() < ends, "it did not come to that"
        time.sleep(0.02)


def serves(member: Member, role: str) -> bool:
    found = member.facts()
    return bool(found["serves"] and found["role"] == role)


def write(address: str, first: int, count: int) -> None:
    with vecdb.open(address) as db:
        docs = db.create_collection("docs", 8, "l2", exist_ok=True)
        docs.upsert(range(first, first + count), VECTORS[:count])


@pytest.mark.slow
def test_a_writer_is_started_again_and_a_copy_takes_its_place(running: Running) -> None:
    remote = ("--durability", "remote")
    first = running.start("a", claim_s=0.0, writer_options=remote)
    until(lambda: serves(first, "writer"))
    write(first.address, 0, 10)
    with vecdb.open(first.address) as db:
        assert db.stats()["log"]["lease"] is not None
    killed = first.facts()["pid"]
    os.kill(killed, signal.SIGKILL)
    second = running.start("b", takeover_s=0.3, writer_options=remote)
    until(lambda: first.facts()["pid"] not in (None, killed) and serves(first, "writer"))
    write(first.address, 10, 10)
    until(lambda: serves(second, "copy") and running.placement.shards[0].copies == (second.address,))
    with opened_shard(running.url, 0, running.root / "work") as db:
        assert len(db["docs"]) == 20
        assert Path(str(db.path)) in (first.path, second.path)
    until(lambda: second._watched._answered)
    running.stop(first)
    until(lambda: serves(second, "writer"))
    assert running.placement.shards[0].writer == second.address
    write(second.address, 20, 5)
    again = running.start("a")
    until(lambda: serves(again, "copy"))
    assert again.address == first.address
    with vecdb.open(again.address) as db:
        assert len(db["docs"]) == 25
    assert [one for one in running.root.iterdir() if one.name.startswith("a.aside-")]
    assert {one.address for one in notes.servers(running.bucket)} == {again.address, second.address}


@pytest.mark.slow  # eight seconds: servers begin anew three times
def test_a_held_shard_is_read_and_its_writer_comes_back(running: Running) -> None:
    member = running.start("a", claim_s=0.0)
    until(lambda: serves(member, "writer"))
    write(member.address, 0, 10)
    hold(running.bucket, "job", (0,))
    Placement.change(running.bucket, lambda now: now.with_writer(0, None))
    until(lambda: serves(member, "reader") and running.placement.shards[0].copies == (member.address,))
    with vecdb.open(member.address) as db:
        assert len(db["docs"]) == 10
        with pytest.raises(vecdb.VecdbError):
            db["docs"].upsert([1], VECTORS[:1])
    let_go(running.bucket)
    until(lambda: serves(member, "writer") and running.placement.shards[0].copies == ())
    write(member.address, 10, 10)


@pytest.mark.slow
def test_a_server_whose_shard_is_no_more_ends(running: Running) -> None:
    Placement.change(running.bucket, lambda now: now.with_shard(5, type(now.shards[0])("shard-5")))
    member = running.start("a", 5, claim_s=0.0)
    until(lambda: serves(member, "writer"))
    assert running.placement.shards[5].writer == member.address
    placement = running.placement
    Placement.change(running.bucket, lambda now: type(now)(now.epoch, now.runs, {0: placement.shards[0]}))
    until(lambda: member.left)
    running.stop(member)
    assert not notes.servers(running.bucket) and member.facts()["pid"] is None


@pytest.mark.slow
def test_why_a_server_does_not_answer_is_known_until_it_does(running: Running, tmp_path: Path) -> None:
    config = tmp_path / "vecdb.toml"
    member = running.start("a", claim_s=0.0, options=("--workers", "1", "--config", str(config)))
    until(lambda: "vecdb.toml" in (member.facts()["trouble"] or ""))
    assert not member.facts()["serves"] and "a.log" in member.facts()["trouble"]
    config.write_text("")
    until(lambda: serves(member, "writer"))
    assert member.facts()["trouble"] is None


def test_what_is_new_of_servers_is_said_once() -> None:
    news, first, second = ServerNews(), {"shard": 0, "number": 0}, {"shard": 0, "number": 1, "address": "grpc://a:1"}
    assert news.of([first, second | {"serves": False, "trouble": None}]) == [], "they start"
    fails = second | {"serves": False, "trouble": "no room"}
    assert news.of([first, fails]) == ["shard 0, server 1 (grpc://a:1): no room"]
    assert news.of([first | {"serves": True}, fails]) == [], "who answers from the first is expected to"
    answers = second | {"serves": True, "trouble": None}
    assert news.of([first, answers]) == [
        "shard 0, server 0: it does not answer",
        "shard 0, server 1 (grpc://a:1) answers",
    ]
    assert news.of([first | {"serves": True}, answers]) == ["shard 0, server 0 answers again"]


def test_the_last_words_of_a_server_are_the_last_line_of_its_log(tmp_path: Path) -> None:
    log = tmp_path / "a.log"
    assert last_words(log) == f"there is no {log}"
    log.write_bytes(b"\n")
    assert last_words(log) == f"it wrote nothing to {log}"
    log.write_bytes(b"x" * 10_000 + b"\nError: no such file\n\n")
    assert last_words(log) == f"Error: no such file ({log})"
    log.write_bytes(b"first\n" + b"x" * 10_000 + b"\xff")
    assert last_words(log) == f"{'x' * 300}... ({log})"
    log.write_text('{"event": "not served", "reason": "no such setting"}\n')
    assert last_words(log) == f"no such setting ({log})"
    log.write_text("[1]")
    assert last_words(log) == f"[1] ({log})"


def test_a_writer_that_starts_is_waited_for() -> None:
    settings = MemberSettings("cluster:///nowhere", 0, "a", takeover_s=2.0)
    watched = WatchedWriter("grpc://a:1")
    assert watched.patience_s(settings) == 30.0  # it never answered
    watched.answered()
    assert watched.patience_s(settings) == 2.0
    watched.look_at(None)
    assert watched.patience_s(settings) == 2.0
    watched.look_at(17.0)
    assert watched.patience_s(settings) == 30.0
    watched.answered()
    watched.look_at(17.0)  # of that start, which is over
    assert watched.patience_s(settings) == 2.0


def test_a_server_keeps_its_port(tmp_path: Path) -> None:
    port = free_port("127.0.0.1")
    assert is_free("127.0.0.1", port)
    directories.note_address(tmp_path / "a", f"grpc://127.0.0.1:{port}")
    assert directories.known_address(tmp_path / "a") == f"grpc://127.0.0.1:{port}"
    assert directories.known_address(tmp_path / "b") is None
    assert split_listen("[::1]:80") == ("::1", 80)
    for wrong in ("", "80", ":80", "host:", "host:port", "host:70000"):
        with pytest.raises(vecdb.InvalidArgument):
            split_listen(wrong)
