"""The demo on its first few thousand words: complete, resumable, and quick to show again."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

import vecdb
from tests.support.answers.command_line import CommandRunner
from vecdb.cli.commands import demo

ROWS = 3_000


def run(path: Path, code: int = 0) -> dict[str, Any]:
    words = ["demo", "--path", str(path), "--rows", str(ROWS), "--words", "king,paris", "--json"]
    result = CommandRunner().run(words)
    assert result.exit_code == code, result.output
    return dict(json.loads(result.stdout))


@pytest.fixture(autouse=True)
def short(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(demo, "speed_seconds", 0.01)
    monkeypatch.setattr(demo, "batch_rows", 1_000)


def test_it_finds_neighbours_and_measures(tmp_path: Path) -> None:
    first = run(tmp_path / "demo")
    assert first["rows"] == ROWS
    assert "queen" in [near["word"] for near in first["words"]["king"]]
    assert first["recall_at_10"] >= 0.95
    assert first["bytes_disk"] > ROWS * demo.glove_dim * 4
    assert min(first["queries_per_second_single"], first["queries_per_second_batch"]) > 0


def test_a_second_run_reads_nothing_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = run(tmp_path / "demo")
    import vecdb_datasets

    monkeypatch.setattr(vecdb_datasets, "load", None)
    second = run(tmp_path / "demo")
    assert second["words"] == first["words"]
    assert "load_seconds" not in second


def test_a_killed_run_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plain, calls = vecdb.Collection.upsert, []

    def failing(self: vecdb.Collection, ids: Any, *args: Any, **options: Any) -> int:
        if self.name == "words":
            calls.append(len(ids))
            if len(calls) == 2:
                raise KeyboardInterrupt
        return plain(self, ids, *args, **options)

    monkeypatch.setattr(vecdb.Collection, "upsert", failing)
    run(tmp_path / "demo", code=130)
    assert run(tmp_path / "demo")["rows"] == ROWS
    assert calls == [1_000, 1_000, 1_000, 1_000]
