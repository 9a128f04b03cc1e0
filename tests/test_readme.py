"""README.md tells the truth: its Python runs as one program, top to bottom, and its commands exist, as
those of GUIDE.md do.
"""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
import typer

from tests.support.answers.command_line import vecdb_command
from tests.support.server.process import Process

ROOT = Path(__file__).resolve().parent.parent
README = ROOT / "README.md"


def blocks(*languages: str, page: Path = README) -> list[str]:
    text = page.read_text(encoding="utf-8")
    found = re.findall(r"^```(\w+)[^\n]*\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
    return [body for language, body in found if language in languages]


def commands(page: Path) -> list[str]:
    """Every `vecdb ...` line of the console blocks, continued lines joined, comments dropped."""
    lines = "\n".join(blocks("console", "bash", "sh", "shell", page=page)).replace("\\\n", " ").splitlines()
    stripped = [line.strip().removeprefix("$ ") for line in lines]
    return [line for line in stripped if line.split("#")[0].split()[:1] == ["vecdb"]]


def test_the_python_examples_run_in_order(tmp_path: Path) -> None:
    program = "\n".join(blocks("python"))
    assert "vecdb.open(" in program and "localhost:7711" in program
    with Process(tmp_path / "served", tmp_path) as server:
        done = subprocess.run(
            [
                sys.executable,
                "-c",
                program.replace("localhost:7711", server.address) + "\nimport asyncio\nprint(asyncio.run(ask()))",
            ],
            cwd=tmp_path,
            env=os.environ | {"PYTHONPATH": str(ROOT)},
            capture_output=True,
            text=True,
            check=False,
        )
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("page", [README, ROOT / "GUIDE.md"])
def test_the_commands_exist_with_their_options(page: Path) -> None:
    assert commands(page)
    for line in commands(page):
        words = shlex.split(line, comments=True)[1:]
        command = vecdb_command()
        while hasattr(command, "commands") and words and not words[0].startswith("-"):
            assert words[0] in command.commands, f"no such command: {line}"
            command = command.commands[words.pop(0)]
        there = command.get_params(typer.Context(command))  # --token-file among them, which none declares itself
        known = {option for parameter in there for option in (*parameter.opts, *parameter.secondary_opts)}
        given = {word.split("=")[0] for word in words if word.startswith("--") and word != "--help"}
        assert given <= known, f"unknown options {given - known}: {line}"


def test_the_make_targets_exist() -> None:
    named = set(re.findall(r"\bmake (\w+)", "\n".join(blocks("console", "bash", "sh", "shell"))))
    targets = set(re.findall(r"^(\w+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE))
    assert {"demo", "test"} <= named <= targets
