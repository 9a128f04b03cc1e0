"""A server's token comes from a file, so that no list of processes shows it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import typer.main

import vecdb
from tests.support.answers.command_line import CommandRunner
from vecdb.cli import build

SERVER = ("--db", "grpc://localhost:1")


@pytest.fixture
def tokens(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """The tokens with which servers were opened."""
    seen: list[Any] = []

    def opened(path: str, token: str | None = None, **_: Any) -> Any:
        seen.append(token)
        raise vecdb.Unavailable("nobody is there")

    monkeypatch.setattr(vecdb, "open", opened)
    return seen


def run(*words: str, code: int = 1, **more: Any) -> str:
    result = CommandRunner().run([*words], **more)
    assert result.exit_code == code, result.output
    return str(result.output)


@pytest.mark.parametrize("command", [["ls"], ["tenant", "list", "-c", "docs"], ["search", "-c", "docs", "--id", "1"]])
def test_the_first_line_of_the_file_is_the_token(tmp_path: Path, tokens: list[Any], command: list[str]) -> None:
    file = tmp_path / "token"
    file.write_text("vdb_secret\nmore\n")
    run(*command, *SERVER, "--token-file", str(file))
    run(*command, *SERVER, "--token-file", "-", input="vdb_piped\n")
    run(*command, *SERVER, env={"VECDB_TOKEN_FILE": str(file)})
    run(*command, *SERVER, "--token-file", str(file), env={"VECDB_TOKEN": "other"})
    run(*command, *SERVER, env={"VECDB_TOKEN": "other"})
    assert tokens == ["vdb_secret", "vdb_piped", "vdb_secret", "vdb_secret", "other"]


def test_two_tokens_and_files_without_one_are_wrong_usage(tmp_path: Path, tokens: list[Any]) -> None:
    (tmp_path / "token").write_text("vdb_secret")
    (tmp_path / "none").write_bytes(b"\n")
    (tmp_path / "binary").write_bytes(b"\xff\x00\x1b")
    given = ("ls", *SERVER, "--token-file")
    assert "give one of" in run(*given, str(tmp_path / "token"), "--token", "other", code=2)
    for name, said in (("none", "is no token"), ("binary", "is no token"), ("missing", "cannot be read")):
        output = run(*given, str(tmp_path / name), code=2)
        assert said in " ".join(output.replace("│", " ").split()) and "secret" not in output
    assert tokens == []


def test_every_command_that_takes_a_token_takes_a_file_and_says_who_sees_the_token() -> None:
    context = typer.main.get_command(build()).make_context("vecdb", [], resilient_parsing=True)
    found = 0
    waiting = [context.command]
    while waiting:
        command: Any = waiting.pop()
        waiting += getattr(command, "commands", {}).values()
        options = {one.name: one for one in command.get_params(context)}
        token = options.get("token")
        if token is None or "--token" not in token.opts:
            continue
        found += 1
        assert "token_file" in options and "list of processes" in token.help
    assert found >= 14
