"""A tokens file that the server reads as another user than the one who changes it: a revoked token is void at once, or
nobody is let in. Nothing that happens to the file lets a token live on in silence.
"""

from __future__ import annotations

import hashlib
import os
import stat
from pathlib import Path
from typing import Any

import pytest

from tests.support.answers.command_line import CommandRunner
from vecdb import InvalidArgument, PermissionDenied, Unavailable
from vecdb_server.security import tls, tokens
from vecdb_server.security.auth import Caller
from vecdb_server.security.tokens import Tokens

as_root = pytest.mark.skipif(os.geteuid() != 0, reason="gives a file to another user, which root alone may")


def run(*words: object) -> None:
    result = CommandRunner().run(["token", *map(str, words), "--json"])
    assert result.exit_code == 0, result.output


def digest(secret: str) -> bytes:
    return hashlib.sha256(secret.encode()).digest()


class Lines:
    """Stands for the log."""

    def __init__(self) -> None:
        self.events: list[tuple[str, str]] = []

    def __getattr__(self, level: str) -> Any:
        return lambda event, **facts: self.events.append((level, event))


@pytest.fixture
def lines(monkeypatch: pytest.MonkeyPatch) -> Lines:
    made = Lines()
    monkeypatch.setattr(tokens, "log", made)
    monkeypatch.setattr(tls, "log", made)
    return made


@as_root
def test_the_file_keeps_its_owner_group_and_permissions(tmp_path: Path) -> None:
    file = tmp_path / "tokens.json"
    run("create", "a", "--tokens", file)
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    os.chown(file, 65534, 65533)
    os.chmod(file, 0o640)
    for words in (("create", "b"), ("revoke", "a")):
        run(*words, "--tokens", file)
        found = file.stat()
        assert (found.st_uid, found.st_gid, stat.S_IMODE(found.st_mode)) == (65534, 65533, 0o640)


def test_permissions_are_kept_and_so_is_a_link(tmp_path: Path) -> None:
    (tmp_path / "there").mkdir()
    file, link = tmp_path / "there" / "tokens.json", tmp_path / "tokens.json"
    tokens.create(file, Caller("a"))
    os.chmod(file, 0o640)
    link.symlink_to(file)
    tokens.create(link, Caller("b"))
    assert link.is_symlink() and stat.S_IMODE(file.stat().st_mode) == 0o640
    assert {one["name"] for one in tokens.entries_of(file)} == {"a", "b"}


def test_who_cannot_keep_the_owner_changes_nothing_and_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "tokens.json"
    tokens.create(file, Caller("a"))
    before = file.read_text()

    def refused(*_: Any) -> None:
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(os, "fchmod", refused)
    monkeypatch.setattr(os, "fchown", refused)
    with pytest.raises(PermissionDenied, match="nothing was changed"):
        tokens.revoke(file, "a")
    assert file.read_text() == before and os.listdir(tmp_path) == ["tokens.json"]


def test_a_full_disk_names_the_file_and_leaves_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "tokens.json"
    tokens.create(file, Caller("a"))

    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(Unavailable, match=r"tokens\.json cannot be changed: No space left"):
        tokens.create(file, Caller("b"))
    assert [one["name"] for one in tokens.entries_of(file)] == ["a"] and os.listdir(tmp_path) == ["tokens.json"]


def test_a_file_that_the_server_may_not_read_lets_nobody_in_until_it_may(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, lines: Lines
) -> None:
    file = tmp_path / "tokens.json"
    secret = tokens.create(file, Caller("a"))
    known = Tokens(file)
    entries_of = tokens.entries_of

    def unreadable(path: Path) -> Any:
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(tokens, "entries_of", unreadable)
    os.utime(file, ns=(1, 1))
    version = known.version
    assert known.refresh() and known.version > version
    assert known.find(digest(secret)) is None and not known.holds(Caller("a"))
    assert not known.refresh() and not known.refresh()
    assert [event for level, event in lines.events if level == "error"] == [
        "tokens file out of reach, nobody is let in"
    ]
    monkeypatch.setattr(tokens, "entries_of", entries_of)  # as where a folder above it was opened: the file is the same
    assert known.refresh() and known.find(digest(secret)) == Caller("a")


def test_a_file_that_was_replaced_behind_its_mount_lets_nobody_in(tmp_path: Path, lines: Lines) -> None:
    """A file that is mounted by itself stays the old one, without a name, when another takes its place."""
    file = tmp_path / "tokens.json"
    secret = tokens.create(file, Caller("a"))
    mounted = os.open(file, os.O_RDONLY)
    try:
        known = Tokens(Path(f"/proc/self/fd/{mounted}"))
        assert known.find(digest(secret)) == Caller("a")
        tokens.revoke(file, "a")
        assert known.refresh() and known.find(digest(secret)) is None
        assert lines.events == [("error", "tokens file out of reach, nobody is let in")]
    finally:
        os.close(mounted)


def test_no_damage_ends_the_reading_of_the_file(tmp_path: Path, lines: Lines) -> None:
    file = tmp_path / "tokens.json"
    secret = tokens.create(file, Caller("a"))
    known = Tokens(file)
    good = file.read_bytes()
    for damage in (b"\xff\xfe", b'{"tokens": "abc"}', b'{"tokens": [null]}', b'{"tokens": [{"name": "a"}]}', b"1"):
        file.write_bytes(damage)
        assert not known.refresh() and known.find(digest(secret)) == Caller("a")
    file.write_bytes(good)
    assert known.refresh()


@pytest.mark.parametrize(("mode", "warned"), [(0o600, 0), (0o640, 0), (0o660, 1), (0o644, 1), (0o666, 1)])
def test_a_tokens_file_and_a_key_that_others_may_read_are_warned_of(
    tmp_path: Path, mode: int, warned: int, lines: Lines, monkeypatch: pytest.MonkeyPatch
) -> None:
    file, key = tmp_path / "tokens.json", tmp_path / "key.pem"
    tokens.create(file, Caller("a"))
    key.write_text("key")
    for one in (file, key):
        os.chmod(one, mode)
    Tokens(file)
    monkeypatch.setattr(tls.tls_files, "certificate_and_key", lambda cert, key: (b"", b""))
    monkeypatch.setattr(tls.grpc, "ssl_server_certificate_configuration", lambda *_: None)
    tls.Certificates(str(key), str(key), None)
    assert [level for level, _ in lines.events] == ["warning"] * 2 * warned


def test_the_unit_reads_the_tokens_in_place_and_gets_the_key_as_a_credential() -> None:
    unit = (Path(__file__).parents[3] / "server" / "examples" / "vecdb.service").read_text()
    assert "LoadCredential=key.pem:" in unit and "LoadCredential=tokens" not in unit
    assert "SupplementaryGroups=vecdb-tokens" in unit


@pytest.mark.parametrize("kind", ["device", "pipe", "folder", "giant"])
def test_what_is_no_file_of_tokens_is_neither_read_without_end_nor_waited_for(kind: str, tmp_path: Path) -> None:
    file = tmp_path / "tokens.json"
    if kind == "device":
        file.symlink_to("/dev/zero")
    elif kind == "pipe":
        os.mkfifo(file)
    elif kind == "folder":
        file.mkdir()
    else:
        with file.open("wb") as giant:
            giant.truncate(1 << 40)
    with pytest.raises(
        (InvalidArgument, Unavailable), match=r"no tokens file: it has more|it is no regular file|[Ii]s a directory"
    ):
        tokens.create(file, Caller("a"))
    with pytest.raises(
        (InvalidArgument, OSError), match=r"no tokens file: it has more|it is no regular file|[Ii]s a directory"
    ):
        Tokens(file)
    assert os.listdir(tmp_path) == ["tokens.json"]
