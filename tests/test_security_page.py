"""SECURITY.md tells the truth: the tests that it names for its promises exist, and so do the settings."""

from __future__ import annotations

import ast
import dataclasses
import re
from pathlib import Path

from vecdb_server.config import Config

ROOT = Path(__file__).resolve().parent.parent
TEXT = (ROOT / "SECURITY.md").read_text(encoding="utf-8")


def test_every_test_that_a_promise_names_exists() -> None:
    named = re.findall(r"`(tests/[\w/]+\.py)(?:::(\w+))?`", TEXT)
    assert len(named) > 40
    missing = []
    for file, name in named:
        path = ROOT / file
        tree = ast.parse(path.read_text(encoding="utf-8")) if path.is_file() else ast.Module([], [])
        names = {one.name for one in ast.walk(tree) if isinstance(one, ast.FunctionDef)}
        if not path.is_file() or (name and name not in names):
            missing.append(f"{file}::{name}")
    assert not missing


def test_every_row_of_promises_names_a_test() -> None:
    tables = re.findall(r"^\| promise \| test \|\n\|---\|---\|\n((?:\|.*\n)+)", TEXT, re.MULTILINE)
    assert len(tables) == TEXT.count("| promise | test |") >= 6
    rows = [row for table in tables for row in table.splitlines()]
    assert all(re.search(r"\| `tests/.*` \|$", row) for row in rows), rows


def test_every_setting_that_it_names_exists() -> None:
    [table] = re.findall(r"^\| limit \| setting \|\n\|---\|---\|\n((?:\|.*\n)+)", TEXT, re.MULTILINE)
    settings = set(re.findall(r"`([a-z_]+)`", table))
    assert len(settings) >= 7
    assert settings <= {field.name for field in dataclasses.fields(Config)}


def test_the_readme_leads_to_it() -> None:
    assert "(SECURITY.md)" in (ROOT / "README.md").read_text(encoding="utf-8")
