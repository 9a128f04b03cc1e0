"""GUIDE.md tells the truth: the Python of each section runs as a program, where what it imports is installed."""

from __future__ import annotations

import ast
import contextlib
import os
import re
import runpy
import shlex
import shutil
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

from tests.support.server.process import ENVIRONMENT, Process

ROOT = Path(__file__).resolve().parent.parent
GUIDE = (ROOT / "GUIDE.md").read_text(encoding="utf-8")
SECTIONS = {
    text.partition("\n")[0]: "\n".join(re.findall(r"^```python\n(.*?)^```", text, re.MULTILINE | re.DOTALL))
    for text in re.split(r"^## ", GUIDE, flags=re.MULTILINE)[1:]
}

SERVED = "Serve it, with tokens and TLS"  # its program talks to the server that its commands start


def missing(program: str) -> list[str]:
    """Packages that a program imports and that are not here."""
    names = set()
    for node in ast.walk(ast.parse(program)):
        if isinstance(node, ast.Import):
            names |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names.add(node.module.split(".")[0])
    return sorted(name for name in names if find_spec(name) is None)


SEVERAL = "Several machines"  # the same, with four of them
ALONE = [title for title, program in SECTIONS.items() if program and title not in (SERVED, SEVERAL)]


@pytest.mark.parametrize("title", ALONE)
def test_the_program_of_a_section_runs(title: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program = SECTIONS[title]
    if lacking := missing(program):
        pytest.skip(f"without {', '.join(lacking)}")
    file = tmp_path / "program.py"
    file.write_text(program, encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    runpy.run_path(str(file), run_name="__main__")


@pytest.mark.skipif(shutil.which("openssl") is None, reason="openssl makes the certificate")
def test_a_server_is_started_and_used_as_it_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    text = GUIDE.partition(f"## {SERVED}")[2].partition("\n## ")[0]
    *before, serve = (shlex.split(line) for line in re.findall(r"^\$ (.*)$", text, re.MULTILINE))
    monkeypatch.chdir(tmp_path)
    vecdb = [sys.executable, "-c", "from vecdb.cli import main; main()"]
    for words in before:
        target = Path(words.pop()) if words[-2] == ">" else Path(os.devnull)
        command = [*vecdb, *words[1:-1]] if words[0] == "vecdb" else words
        with target.open("wb") as out:
            subprocess.run(command, check=True, env=ENVIRONMENT, stdout=out, stderr=subprocess.PIPE, timeout=60)
    options = iter(serve[2:])
    given = dict(zip(options, options, strict=True))
    path, _ = given.pop("--path"), given.pop("--listen")
    with Process(tmp_path / path, tmp_path, *(word for pair in given.items() for word in pair)) as server:
        port = str(server.ports()[0])
        file = tmp_path / "program.py"
        file.write_text(SECTIONS[SERVED].replace("7711", port), encoding="utf-8")
        runpy.run_path(str(file), run_name="__main__")


@pytest.mark.slow
def test_several_servers_are_started_and_used_as_it_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    text = GUIDE.partition(f"## {SEVERAL}")[2].partition("\n## ")[0]
    commands = [shlex.split(line) for line in re.findall(r"^\$ vecdb serve (.*)$", text, re.MULTILINE)]
    program = SECTIONS[SEVERAL].replace("/tmp/cluster", str(tmp_path / "cluster"))
    monkeypatch.chdir(tmp_path)
    with contextlib.ExitStack() as stack:
        for words in commands:
            given = dict(zip(words[::2], words[1::2], strict=True))
            path, listen = given.pop("--path"), given.pop("--listen")
            options = [
                word.replace("/tmp/cluster", str(tmp_path / "cluster")) for pair in given.items() for word in pair
            ]
            server = stack.enter_context(Process(tmp_path / path, tmp_path, *options))
            program = program.replace(listen, f"127.0.0.1:{server.ports()[0]}")
        file = tmp_path / "program.py"
        file.write_text(program, encoding="utf-8")
        runpy.run_path(str(file), run_name="__main__")


def test_every_extra_that_it_names_is_there() -> None:
    named = set(re.findall(r"vecdb-engine\[([\w,]+)\]", GUIDE))
    project = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    assert named and all(re.search(rf"^{one} = \[", project, re.MULTILINE) for each in named for one in each.split(","))
