"""Goal: a standard data set is fetched whole, or nothing is in its place: against a server of this test on loopback."""

from __future__ import annotations

import email.message
import hashlib
import io
import threading
import urllib.request
import urllib.response
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import vecdb
from tests.support.answers.command_line import CommandRunner
from vecdb_datasets import Dataset, download, export_ann_benchmarks, load

NAME = "glove-25-angular"


class Store:
    """A server of files. cut : bytes after which a connection ends, None: whole.   tag : as ETag.   asked : headers."""

    def __init__(self, content: bytes) -> None:
        self.content, self.cut, self.tag, self.asked = content, None, "", []  # type: ignore[var-annotated]
        self.cut: int | None
        self.redirects = False
        self.range: str | None = None
        self.tells_size = True
        self.begun, self.going_on = threading.Event(), threading.Event()
        self.going_on.set()
        store = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                store.asked.append(dict(self.headers))
                if store.redirects and not self.path.startswith("/cdn"):
                    self.send_response(302)
                    self.send_header("Location", f"/cdn{self.path}")
                    self.send_header("X-Linked-ETag", f'"{hashlib.sha256(store.content).hexdigest()}"')
                    self.end_headers()
                    return
                if not self.path.endswith(f"{NAME}.hdf5"):
                    self.send_error(404)
                    return
                start = 0
                if "Range" in self.headers and self.headers["If-Range"] == store.tag:
                    start = int(self.headers["Range"][6:-1])
                body = store.content[start:]
                if start and not body:
                    self.send_response(416)
                    if store.tells_size:
                        self.send_header("Content-Range", f"bytes */{len(store.content)}")
                    self.end_headers()
                    return
                self.send_response(206 if start else 200)
                self.send_header("Content-Length", str(len(body)))
                if start:
                    self.send_header("Content-Range", store.range or f"bytes {start}-{start + len(body) - 1}/*")
                if store.tag:
                    self.send_header("ETag", store.tag)
                self.end_headers()
                store.begun.set()
                store.going_on.wait(60)
                self.wfile.write(body if store.cut is None else body[: store.cut])

            def log_message(self, *args: Any) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.01})
        self._thread.start()

    def close(self) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    rng = np.random.default_rng(1)
    base, queries = rng.normal(size=(300, 25)).astype(np.float32), rng.normal(size=(9, 25)).astype(np.float32)
    export_ann_benchmarks(Dataset("x", base, queries, "cosine"), tmp_path / "made.hdf5", k=10)
    made = Store((tmp_path / "made.hdf5").read_bytes())
    yield made
    made.close()


def test_a_set_is_fetched_once_and_loaded_by_its_name(store: Store, tmp_path: Path) -> None:
    seen: list[tuple[int, int]] = []
    path = download.get(
        NAME, tmp_path / "sets", base_url=store.url, progress=lambda done, total: seen.append((done, total))
    )
    assert path.read_bytes() == store.content and seen[-1] == (len(store.content), len(store.content))
    noted = (tmp_path / "sets" / f"{NAME}.hdf5.sha256").read_text()
    assert noted == f"{hashlib.sha256(store.content).hexdigest()}  {NAME}.hdf5\n"
    assert sorted(one.name for one in path.parent.iterdir()) == [f"{NAME}.hdf5", f"{NAME}.hdf5.sha256"]
    assert download.get(NAME, tmp_path / "sets", base_url=store.url) == path and len(store.asked) == 1
    data = load(NAME, tmp_path / "sets")
    assert data.base.shape == (300, 25) and data.truth is not None and data.truth.k == 10


@pytest.mark.parametrize("tag", ['"v1"', "", "md5"])
def test_an_interrupted_call_goes_on_where_it_was_if_the_file_is_the_same(
    store: Store, tmp_path: Path, tag: str
) -> None:
    store.tag = f'"{hashlib.md5(store.content).hexdigest()}"' if tag == "md5" else tag
    store.cut = 5_000
    with pytest.raises(vecdb.Unavailable, match=r"cannot be fetched.*goes on where this one was.*without a network"):
        download.get(NAME, tmp_path, base_url=store.url)
    assert not (tmp_path / f"{NAME}.hdf5").exists() and (tmp_path / f"{NAME}.hdf5.part").stat().st_size == 5_000
    store.cut = None
    assert download.get(NAME, tmp_path, base_url=store.url).read_bytes() == store.content
    assert store.asked[-1].get("Range") == ("bytes=5000-" if tag else None)


@pytest.mark.parametrize("told", ["bytes 0-99/*", "bytes 50000-59999/*", "none"])
def test_a_part_that_was_not_asked_for_is_refused_and_the_next_call_begins_anew(
    store: Store, tmp_path: Path, told: str
) -> None:
    store.tag, store.cut = '"v1"', 5_000
    with pytest.raises(vecdb.Unavailable):
        download.get(NAME, tmp_path, base_url=store.url)
    store.cut, store.range = None, told
    with pytest.raises(vecdb.Unavailable, match="another part"):
        download.get(NAME, tmp_path, base_url=store.url)
    assert not (tmp_path / f"{NAME}.hdf5").exists()
    assert download.get(NAME, tmp_path, base_url=store.url).read_bytes() == store.content
    assert "Range" not in store.asked[-1]


@pytest.mark.parametrize("more, told", [(0, True), (100, True), (100, False)])
def test_a_part_that_is_whole_is_taken_and_one_that_is_too_long_is_not(
    store: Store, tmp_path: Path, more: int, told: bool
) -> None:
    store.tag, store.tells_size = '"v1"', told
    (tmp_path / f"{NAME}.hdf5.part").write_bytes(store.content + bytes(more))
    (tmp_path / f"{NAME}.hdf5.part.tag").write_text(store.tag)
    if more:
        with pytest.raises(vecdb.Unavailable, match="bytes are here, the server has"):
            download.get(NAME, tmp_path, base_url=store.url)
    assert download.get(NAME, tmp_path, base_url=store.url).read_bytes() == store.content


def test_a_folder_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(vecdb.Unavailable, match="name another folder"):
        download.get(NAME, tmp_path / "file" / "sets", base_url="http://127.0.0.1:1")


@pytest.mark.parametrize("to", ["http://127.0.0.1/x", "ftp://127.0.0.1/x"])
def test_https_is_not_left(to: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    opened: list[str] = []

    def https_open(self: Any, request: urllib.request.Request) -> Any:
        opened.append(request.full_url)
        headers = email.message.Message()
        headers["Location"] = to
        found = urllib.response.addinfourl(io.BytesIO(), headers, request.full_url, 302)
        found.msg = "Found"  # type: ignore[attr-defined]
        return found

    monkeypatch.setattr(urllib.request.HTTPSHandler, "https_open", https_open)
    with pytest.raises(vecdb.Unavailable, match=f"from https to '{to}', which is not followed"):
        download.get(NAME, tmp_path)
    assert opened == [f"{download.ANN_BENCHMARKS}/{NAME}.hdf5"] and list(tmp_path.iterdir()) == []


def test_of_two_calls_at_once_one_fetches_and_the_other_waits(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    second, real, found = threading.Event(), download.fcntl.flock, []

    def flock(file: Any, operation: int) -> None:
        if store.begun.is_set():
            second.set()
        real(file, operation)

    def fetch() -> None:
        found.append(download.get(NAME, tmp_path / "sets", base_url=store.url))

    monkeypatch.setattr(download.fcntl, "flock", flock)
    store.going_on.clear()
    calls = [threading.Thread(target=fetch) for _ in range(2)]
    calls[0].start()
    assert store.begun.wait(60)
    calls[1].start()
    assert second.wait(60)
    store.going_on.set()
    for call in calls:
        call.join()
    assert found == [tmp_path / "sets" / f"{NAME}.hdf5"] * 2 and found[0].read_bytes() == store.content
    assert len(store.asked) == 1 and len(list((tmp_path / "sets").iterdir())) == 2


def test_a_file_that_has_changed_meanwhile_is_fetched_anew(store: Store, tmp_path: Path) -> None:
    store.tag, store.cut = '"v1"', 5_000
    with pytest.raises(vecdb.Unavailable):
        download.get(NAME, tmp_path, base_url=store.url)
    store.tag, store.cut, store.content = '"v2"', None, store.content[::-1]
    assert download.get(NAME, tmp_path, base_url=store.url).read_bytes() == store.content


@pytest.mark.parametrize("told_by", ["caller", "tag", "redirect"])
def test_another_digest_is_damage_and_leaves_nothing(store: Store, tmp_path: Path, told_by: str) -> None:
    right = hashlib.sha256(store.content).hexdigest()
    if told_by == "tag":
        store.tag = f'"{right}"'
    store.redirects = told_by == "redirect"
    given = right if told_by == "caller" else None
    good = store.content
    assert download.get(NAME, tmp_path / "good", base_url=store.url, sha256=given).read_bytes() == good
    wrong = "0" * 64
    if told_by == "tag":
        store.tag = f'"{wrong}"'
    with pytest.raises(vecdb.Corruption, match="removed"):
        download.get(NAME, tmp_path / "bad", base_url=store.url, sha256=None if told_by == "tag" else wrong)
    assert not (tmp_path / "bad" / f"{NAME}.hdf5").exists() and not (tmp_path / "bad" / f"{NAME}.hdf5.part").exists()
    with pytest.raises(vecdb.Corruption, match="another SHA-256"):
        download.get(NAME, tmp_path / "good", sha256=wrong)


def test_without_a_network_or_a_file_the_message_says_what_to_do(tmp_path: Path) -> None:
    closed = Store(b"")
    closed.close()
    with pytest.raises(vecdb.Unavailable, match=r"put it at .*glove-25-angular\.hdf5, or name a mirror"):
        download.get(NAME, tmp_path, base_url=closed.url)
    with pytest.raises(vecdb.NotFound, match="sift-128-euclidean"):
        download.get("nothing", tmp_path)
    with pytest.raises(vecdb.NotFound, match=f"vecdb dataset get {NAME}"):
        load(NAME, tmp_path)
    with pytest.raises(vecdb.InvalidArgument, match="64 digits"):
        download.get(NAME, tmp_path, sha256="abc")


def test_the_command_fetches_and_says_where_to(store: Store, tmp_path: Path) -> None:
    told = ["dataset", "get", NAME, "--folder", str(tmp_path), "--url", store.url, "--json"]
    ran = CommandRunner().run(told)
    assert ran.exit_code == 0 and str(tmp_path / f"{NAME}.hdf5") in ran.stdout
    listed = CommandRunner().run(["dataset", "list", "--folder", str(tmp_path), "--json"])
    assert listed.exit_code == 0 and NAME in listed.stdout
    store.content = b""
    missing = CommandRunner().run(["dataset", "get", "sift-128-euclidean", "--url", store.url])
    assert missing.exit_code != 0
