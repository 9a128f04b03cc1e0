"""A bucket keeps what it promises whatever stands behind it: an object is there whole or not at all, of two who create
one wins, of two who replace one is told, and errors are ours and keep secrets.
"""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import threading
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from vecdb.errors import (
    AlreadyExists,
    InvalidArgument,
    NotFound,
    PermissionDenied,
    Unavailable,
    VecdbError,
)
from vecdb.replication import bucket as buckets
from vecdb.replication.bucket import Bucket, Conflict, is_url, open_bucket
from vecdb.replication.objects import PROBE
from vecdb.storage.disk import filesystem

KINDS = ["s3", "file", "memory"]


@pytest.fixture(params=KINDS)
def bucket(request: pytest.FixtureRequest, url_of: Callable[[str], str]) -> Bucket:
    return open_bucket(url_of(request.param))


def test_what_was_put_is_read_and_what_was_not_is_none(bucket: Bucket) -> None:
    assert bucket.get("a/x") is bucket.size("a/x") is bucket.get_versioned("a/x") is None
    with pytest.raises(NotFound, match="a/x"):
        bucket.read_range("a/x", 0, 1)
    for data in (b"", b"1234567", b"123"):
        bucket.put("a/x", data)
        assert bucket.get("a/x") == data and bucket.size("a/x") == len(data)
    assert [bucket.read_range("a/x", *at) for at in ((0, 3), (1, 1), (2, 9), (3, 1), (9, 9))] == [
        b"123", b"2", b"3", b"", b"",
    ]  # fmt: skip
    bucket.delete(["a/x", "a/never"])
    bucket.delete([])
    assert bucket.get("a/x") is None and list(bucket.list()) == []


def test_lists_are_of_folders_and_in_the_order_of_keys(bucket: Bucket) -> None:
    keys = ["a/b/z", "a/x", "a/y-1", "a/y.1", "ab", "b", "a-b", "B/x"]
    for key in keys:
        bucket.put(key, key.encode())
    assert list(bucket.list()) == [(key, len(key)) for key in sorted(keys)]
    assert [key for key, _ in bucket.list("a")] == ["a/b/z", "a/x", "a/y-1", "a/y.1"]
    assert [key for key, _ in bucket.list("a", after="a/x")] == ["a/y-1", "a/y.1"]
    assert [key for key, _ in bucket.list(after="a/nothing")] == ["a/x", "a/y-1", "a/y.1", "ab", "b"]
    assert list(bucket.list("none")) == []
    times = [one.modified for one in bucket.entries()]
    assert max(times) - min(times) < 60 and min(times) > 1.7e9


def test_more_objects_than_a_page_are_listed_once(url_of: Callable[[str], str], monkeypatch: Any) -> None:
    monkeypatch.setattr(buckets, "_LISTED_AT_ONCE", 7)
    some = open_bucket(url_of("s3"))
    keys = [f"k/{n:03}" for n in range(40)]
    for key in keys:
        some.put(key, b"")
    assert [key for key, _ in some.list("k")] == keys
    some.delete(keys)
    assert list(some.list()) == []


def test_of_two_who_create_one_wins(bucket: Bucket) -> None:
    bucket.require_conditional_writes()
    outcomes: list[object] = []

    def create(who: int) -> None:
        try:
            outcomes.append((who, bucket.create("log/1", b"%d" % who)))
        except AlreadyExists:
            outcomes.append(None)

    threads = [threading.Thread(target=create, args=(who,)) for who in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    [(winner, version)] = [one for one in outcomes if one is not None]  # type: ignore[misc]
    assert bucket.get_versioned("log/1") == (b"%d" % winner, version)


def test_of_two_who_replace_one_is_told(bucket: Bucket) -> None:
    first = bucket.replace("p", b"1", None)
    with pytest.raises(Conflict):
        bucket.replace("p", b"x", None)
    second = bucket.replace("p", b"2", first)
    assert bucket.get_versioned("p") == (b"2", second)
    for version in (first, '"wrong"'):
        with pytest.raises(Conflict):
            bucket.replace("p", b"x", version)
    with pytest.raises(Conflict):
        bucket.replace("never", b"x", second)
    assert bucket.get("p") == b"2" and bucket.get("never") is None


def test_counting_by_compare_and_swap_loses_nothing(bucket: Bucket) -> None:
    def count() -> None:
        for _ in range(5):
            while True:
                found = bucket.get_versioned("n")
                try:
                    bucket.replace("n", b"%d" % (int(found[0]) + 1 if found else 1), found and found[1])
                    break
                except Conflict:
                    continue

    threads = [threading.Thread(target=count) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert bucket.get("n") == b"20"


@pytest.mark.parametrize("length", [0, 1000, (8 << 20) + 1, 20 << 20])
def test_part_of_a_file_is_uploaded(bucket: Bucket, tmp_path: Path, length: int) -> None:
    whole = os.urandom(length + 10)
    (tmp_path / "file").write_bytes(whole)
    fd = filesystem.open_read(tmp_path / "file")
    bucket.upload("big", fd, 3, length)
    assert bucket.get("big") == whole[3 : 3 + length]
    with pytest.raises((OSError, VecdbError)):
        bucket.upload("torn", fd, 3, length + 20)
    assert bucket.get("torn") is None
    filesystem.close(fd)


@pytest.mark.parametrize("key", ["", "/a", "a/", "a//b", "../a", "a/.b", "a b", "ä", "a\n", "-a", "a" * 901])
def test_odd_keys_are_refused(bucket: Bucket, key: str) -> None:
    for call in (bucket.get, bucket.size, lambda key: bucket.put(key, b""), lambda key: bucket.delete([key])):
        with pytest.raises(InvalidArgument, match="no key"):
            call(key)


@pytest.mark.parametrize(
    "url",
    [
        "s3://", "s3:///x", "ftp://x/y", "http://x/y", "x", "file://folder", "file:///", "file://", "memory://",
        "s3://key:secret@bucket/x", "az://container/x?sig=secret", "s3://bucket/x#secret", "s3://[/", "s3://b/../x",
    ],
)  # fmt: skip
def test_odd_urls_are_refused_and_not_repeated(url: str) -> None:
    with pytest.raises(InvalidArgument) as caught:
        open_bucket(url)
    assert "secret" not in str(caught.value)


def test_what_is_a_url() -> None:
    assert all(is_url(f"{scheme}://x/y") for scheme in ("s3", "gs", "az", "file", "memory"))
    spaced = Path("/a b/ü").as_uri()
    assert "%20" in spaced and open_bucket(spaced).folder == Path("/a b/ü")  # type: ignore[attr-defined]
    assert not any(is_url(value) for value in ("/a/b", "a", "grpc://x", "s3:x", "", None, Path("s3://x"), 3))


def test_a_store_that_ignores_conditions_is_refused(url_of: Callable[[str], str], monkeypatch: Any) -> None:
    url = url_of("s3")
    open_bucket(url, conditional=True)
    open_bucket(url, conditional=True)  # the probe of the first is there
    assert [key for key, _ in open_bucket(url).list()] == [PROBE]
    put = buckets.ObjectBucket._put
    for ignored in ("create", "replace"):

        def ignoring(self: Any, key: str, data: bytes, mode: Any, ignored: str = ignored) -> str:
            return put(self, key, data, "overwrite" if isinstance(mode, str) == (ignored == "create") else mode)

        monkeypatch.setattr(buckets.ObjectBucket, "_put", ignoring)
        with pytest.raises(Unavailable, match="knows no conditional writes"):
            open_bucket(url, conditional=True)


def test_a_bucket_that_is_not_there_and_one_that_does_not_answer(s3: str, monkeypatch: Any) -> None:
    for call in (
        lambda one: one.get("x"), lambda one: one.put("x", b""), lambda one: one.create("x", b""),
        lambda one: list(one.list()), lambda one: one.read_range("x", 0, 1),
    ):  # fmt: skip
        with pytest.raises(NotFound, match="no such bucket"):
            call(open_bucket("s3://no-such-bucket/x"))
    with pytest.raises(NotFound, match="no such bucket"):
        open_bucket("s3://no-such-bucket/x", conditional=True)
    monkeypatch.setenv("AWS_ENDPOINT", "http://127.0.0.1:1")
    with pytest.raises(Unavailable, match="no connection") as caught:
        open_bucket(s3, patience_s=0.01).get("x")
    assert "very-secret-key" not in str(caught.value) and caught.value.__cause__ is None


def test_a_store_that_says_nothing_is_waited_for_no_longer_than_the_patience(s3: str, monkeypatch: Any) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:  # the system takes connections, nobody reads them
        monkeypatch.setenv("AWS_ENDPOINT", f"http://127.0.0.1:{silent.getsockname()[1]}")
        for call in (
            lambda one: one.get("x"), lambda one: one.put("x", b""), lambda one: one.create("x", b""),
            lambda one: list(one.list()), lambda one: one.read_range("x", 0, 1), lambda one: one.size("x"),
        ):  # fmt: skip
            with pytest.raises(Unavailable, match="no connection"):
                call(open_bucket(s3, patience_s=0.03))


def test_what_the_environment_says_of_connections_counts(s3: str, monkeypatch: Any) -> None:
    made: Any = open_bucket(s3, patience_s=5.0)
    assert made._store.client_options == {"timeout": "5000ms", "connect_timeout": "5000ms", "allow_http": "true"}
    assert (
        made._long.client_options["timeout"] == "120000ms"
        and made._long.client_options["pool_max_idle_per_host"] == "0"
    )
    monkeypatch.setenv("AWS_TIMEOUT", "7s")
    made = open_bucket(s3, patience_s=5.0)
    assert made._store.client_options["timeout"] == made._long.client_options["timeout"] == "7s"
    monkeypatch.setenv("AWS_TIMEOUT", "soon")
    with pytest.raises(InvalidArgument, match="cannot be used"):
        open_bucket(s3)


def test_an_object_of_many_bytes_goes_and_comes_whole(bucket: Bucket, monkeypatch: Any) -> None:
    monkeypatch.setattr(buckets, "_SHORT_BYTES", 1_000)
    data = bytes(range(256)) * 40
    version = bucket.create("x", data)
    assert bucket.get_versioned("x") == (data, version) and bucket.read_range("x", 3, 9_000) == data[3:9_003]
    with pytest.raises(AlreadyExists):
        bucket.create("x", data)
    assert bucket.replace("x", data + b"1", version) != version and bucket.get("x") == data + b"1"


def test_a_caller_whom_the_store_refuses(s3: str, s3_server: str) -> None:
    def check_keys(after: bytes) -> None:
        plain = {"Content-Type": "text/plain"}
        urllib.request.urlopen(urllib.request.Request(f"{s3_server}/moto-api/reset-auth", after, plain)).close()

    check_keys(b"0")
    try:
        for call in (lambda one: one.get("x"), lambda one: one.put("x", b""), lambda one: list(one.list())):
            with pytest.raises(PermissionDenied, match="refuses this caller") as caught:
                call(open_bucket(s3))
            assert "somebody" not in str(caught.value) and "secret" not in str(caught.value)
    finally:
        check_keys(b"1000000000")


def test_a_folder_that_may_not_be_used(tmp_path: Path, monkeypatch: Any) -> None:
    def refuse(*_: Any, **__: Any) -> int:
        raise PermissionError(13, "denied")

    some = open_bucket(f"file://{tmp_path}/b")
    some.put("x", b"1")
    monkeypatch.setattr(filesystem, "open_read", refuse)
    with pytest.raises(PermissionDenied):
        some.get("x")


def test_a_folder_shows_the_objects_of_a_bucket_below_it_and_not_its_lock(tmp_path: Path) -> None:
    open_bucket(f"file://{tmp_path}/outer/inner").create("a/b", b"x")
    outer = open_bucket(f"file://{tmp_path}/outer")
    found = [key for key, _ in outer.list()]
    assert found == ["inner/a/b"] and outer.get(found[0]) == b"x"
    outer.delete(found)
    assert not list(outer.list())


def test_nothing_is_left_of_a_writer_that_was_killed(tmp_path: Path) -> None:
    code = (
        "import os, signal\nfrom vecdb.replication.bucket import open_bucket\n"
        "from vecdb.storage.disk import filesystem\n"
        "filesystem.rename = lambda *_: os.kill(os.getpid(), signal.SIGKILL)\n"
        f"open_bucket('file://{tmp_path}/b').put('a/x', b'1' * 1000)"
    )
    done = subprocess.run([sys.executable, "-c", code], check=False)
    assert done.returncode == -9 and len(list((tmp_path / "b" / ".tmp").iterdir())) == 1
    some = open_bucket(f"file://{tmp_path}/b")
    assert list(some.list()) == [] and some.get("a/x") is None
    open_bucket(f"file://{tmp_path}/b", conditional=True)
    assert list((tmp_path / "b" / ".tmp").iterdir()) == []
    assert (tmp_path / "b").stat().st_mode & 0o077 == 0


def test_without_obstore_folders_work_and_others_name_the_extra(tmp_path: Path) -> None:
    code = (
        "import sys; sys.modules['obstore'] = None\nimport vecdb\nfrom vecdb.replication.bucket import open_bucket\n"
        f"open_bucket('file://{tmp_path}/b', conditional=True).put('x', b'1')\n"
        "try: open_bucket('s3://bucket/x')\nexcept vecdb.VecdbError as error: print(error)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "vecdb-engine[remote]" in done.stdout and (tmp_path / "b" / "x").read_bytes() == b"1"
