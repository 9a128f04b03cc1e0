"""The tokens file and its command: secrets are shown once, hashes are kept, a running server notices."""

from __future__ import annotations

import hashlib
import json
import stat
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from tests.support.answers.command_line import CommandRunner
from vecdb import AlreadyExists, InvalidArgument, NotFound
from vecdb_server.security import tokens
from vecdb_server.security.auth import Caller
from vecdb_server.security.tokens import Tokens


def run(*words: object, code: int = 0) -> Any:
    result = CommandRunner().run(["token", *map(str, words), "--json"])
    assert result.exit_code == code, result.output
    return json.loads(result.stdout)


def digest(secret: str) -> bytes:
    return hashlib.sha256(secret.encode()).digest()


def test_a_secret_is_printed_once_and_its_hash_is_kept(tmp_path: Path) -> None:
    file = tmp_path / "tokens.json"
    made = run(
        "create", "a", "--permission", "write", "--tenant", "acme", "--collection", "docs", "--share",
        "--rate", 5, "--expires", "30d", "--tokens", file,
    )  # fmt: skip
    secret = made["token"]
    assert secret.startswith("vdb_") and len(secret) > 40
    text = file.read_text()
    assert secret not in text and digest(secret).hex() in text
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    [listed] = run("list", "--tokens", file)
    assert "sha256" not in listed and secret not in str(listed)
    caller = Tokens(file).find(digest(secret))
    assert caller is not None and caller.expires is not None
    assert (caller.permission, caller.tenant, caller.collection, caller.share, caller.rate) == (
        "write", "acme", "docs", True, 5.0,
    )  # fmt: skip
    assert 29 * 86_400 < caller.expires - time.time() <= 30 * 86_400


def test_a_name_is_taken_until_it_is_revoked(tmp_path: Path) -> None:
    file = tmp_path / "tokens.json"
    run("create", "a", "--tokens", file)
    assert run("create", "a", "--tokens", file, code=1)["error"]["code"] == "ALREADY_EXISTS"
    run("revoke", "a", "--tokens", file)
    assert run("revoke", "a", "--tokens", file, code=1)["error"]["code"] == "NOT_FOUND"
    run("create", "a", "--tokens", file)


@pytest.mark.parametrize(
    "caller",
    [
        Caller(""),
        Caller("a b"),
        Caller("a" * 65),
        Caller("a", "owner"),
        Caller("a", "admin", tenant="t"),
        Caller("a", share=True),
        Caller("a", tenant=""),
        Caller("a", tenant="x" * 129),
        Caller("a", collection=""),
        Caller("a", rate=0),
        Caller("a", rate=float("nan")),
        Caller("a", expires=float("inf")),
    ],
)
def test_a_token_that_makes_no_sense_is_refused_and_nothing_is_written(tmp_path: Path, caller: Caller) -> None:
    with pytest.raises(InvalidArgument):
        tokens.create(tmp_path / "tokens.json", caller)
    assert not (tmp_path / "tokens.json").exists()


def test_expiry_is_a_number_and_a_unit(tmp_path: Path) -> None:
    answer = run("create", "a", "--expires", "soon", "--tokens", tmp_path / "t", code=1)
    assert answer["error"]["code"] == "INVALID_ARGUMENT"


def test_changes_at_the_same_time_are_all_kept(tmp_path: Path) -> None:
    file = tmp_path / "tokens.json"
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda i: tokens.create(file, Caller(f"t{i}")), range(32)))
    assert {entry["name"] for entry in tokens.entries_of(file)} == {f"t{i}" for i in range(32)}


def test_a_server_reads_a_file_that_changed_keeps_what_it_knew_of_a_broken_one_and_lets_nobody_in_without_one(
    tmp_path: Path,
) -> None:
    file = tmp_path / "tokens.json"
    with pytest.raises(NotFound, match="vecdb token create"):
        Tokens(file)
    first = tokens.create(file, Caller("first"))
    known = Tokens(file)
    assert not known.refresh()
    second = tokens.create(file, Caller("second"))
    assert known.refresh() and known.find(digest(second)) == Caller("second")
    tokens.revoke(file, "first")
    assert known.refresh() and known.find(digest(first)) is None and not known.holds(Caller("first"))
    for damage in ("{", '{"tokens": [1]}', '{"tokens": [{"name": "a", "sha256": "zz"}]}', "[" * 10_000):
        file.write_text(damage)
        assert not known.refresh() and known.find(digest(second)) == Caller("second")
    file.unlink()
    assert known.refresh() and known.find(digest(second)) is None


def test_a_damaged_file_is_not_overwritten(tmp_path: Path) -> None:
    file = tmp_path / "tokens.json"
    file.write_text("{")
    with pytest.raises(InvalidArgument, match="no tokens file"):
        tokens.create(file, Caller("a"))
    assert file.read_text() == "{"


def test_the_same_name_may_be_given_again_but_to_another_secret(tmp_path: Path) -> None:
    file = tmp_path / "tokens.json"
    old = tokens.create(file, Caller("a"))
    with pytest.raises(AlreadyExists):
        tokens.create(file, Caller("a"))
    tokens.revoke(file, "a")
    new = tokens.create(file, Caller("a"))
    assert Tokens(file).find(digest(old)) is None and Tokens(file).find(digest(new)) == Caller("a")
