"""What people see: control characters of records are shown and not sent, ids are whole, brackets are brackets."""

from __future__ import annotations

import io
import json
import re
import uuid
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import vecdb
from tests.support.answers.command_line import CommandRunner
from vecdb.cli.output import PlainConsole, table
from vecdb.cli.visible import visible, visible_json

EVIL = "\x1b]0;pwned\x07\x1b[2J\x1b[31mRED\r\nfake row\x9b2J\u202egpj\u2066"
CONTROLS = re.compile("[\x00-\x09\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069\u2028\u2029]")
NAME = "a-rather-long-collection-name-of-2024"
IDS = [str(uuid.UUID(int=10**37 + i)) for i in range(3)]


@pytest.fixture
def db(tmp_path: Path) -> Path:
    with vecdb.open(tmp_path / "db") as database:
        docs = database.create_collection(NAME, dim=4, metric="l2")
        fields = [{"url": "https://example.com/" + "x" * 60, "t": "[b]x[/b]", EVIL: EVIL}] * 3
        docs.upsert(IDS, np.eye(4)[:3], fields=fields, tenants=["T" + EVIL])
        docs.upsert(["b" + EVIL], np.eye(4)[3:], fields=[{"l": [EVIL, {EVIL: 1}]}])
    return tmp_path / "db"


def show(*words: object, code: int = 0) -> str:
    result = CommandRunner().run([str(word) for word in words], color=True)
    assert result.exit_code == code, result.output
    return result.output


def test_no_control_character_reaches_the_terminal(db: Path) -> None:
    to = ("--db", db)
    for words, code in (
        (("search", "-c", NAME, "--vector", "1,0,0,0", *to), 0),
        (("search", "-c", NAME, "--id", "nope" + EVIL, *to), 1),
        (("search", "-c", NAME, "--id", IDS[0], "--tenant", "no" + EVIL, *to), 1),
        (("tenant", "list", "-c", NAME, *to), 0),
        (("tenant", "info", "T" + EVIL, "-c", NAME, *to), 0),
        (("import", "nope" + EVIL, "-c", NAME, *to), 1),
        (("info", *to), 0),
    ):
        for more in ((), ("--json",)):
            out = show(*words, *more, code=code)
            assert not CONTROLS.search(out), (words[:2], more, CONTROLS.search(out))
            if more:
                json.loads(out)


def test_what_is_printed_as_json_is_what_is_stored(db: Path) -> None:
    found = json.loads(show("search", "-c", NAME, "--vector", "0,0,0,1", "-k", 1, "--db", db, "--json"))
    assert found["hits"][0]["id"] == "b" + EVIL and found["hits"][0]["fields"]["l"][0] == EVIL


def test_ids_are_whole_where_there_is_no_window_and_brackets_are_brackets(db: Path) -> None:
    out = show("search", "-c", NAME, "--vector", "1,0,0,0", "--db", db)
    assert all(id in out for id in IDS) and "\u2026" not in out
    assert "t [b]x[/b]" in out and "\\" not in out
    assert "\u241b]0;pwned\u2407" in out and "<U+202E>" in out
    assert re.search(r"\b0 +\S* *0 ", out) and " -0 " not in out


def test_an_id_that_is_too_wide_for_a_window_goes_on_below() -> None:
    file = io.StringIO()
    PlainConsole(file=file, force_terminal=True, width=30).print(table(["id"], [[IDS[0]]]))
    parts = re.findall(r"[0-9a-f-]{5,}", re.sub("\x1b[^m]*m", "", file.getvalue()))
    assert "".join(parts) == IDS[0] and len(parts) > 1


def test_questions_that_say_nothing_are_wrong_usage(db: Path, tmp_path: Path) -> None:
    for words in (
        ["--vector", ""],
        ["--vector", "x"],
        ["--id", IDS[0], "-k", 0],
        ["--id", "a", "-k", -1],
    ):
        show("search", "-c", NAME, "--db", db, *words, code=2)
    (tmp_path / "x.jsonl").write_text(json.dumps({"id": 1, "embedding": [1.0, 0, 0, 0]}) + "\n")
    np.save(tmp_path / "objects.npy", np.array([[1.0], None], dtype=object), allow_pickle=True)
    np.save(tmp_path / "two.npy", np.eye(4))
    found: Any = json.loads(show("search", "-c", NAME, "--db", db, "--vector", f"@{tmp_path / 'x.jsonl'}", "--json"))
    assert found["hits"][0]["id"] == IDS[0]
    for name, said in (("objects.npy", "dtype object"), ("two.npy", "4 vectors, expected one"), ("no.npy", "no such")):
        assert said in show("search", "-c", NAME, "--db", db, "--vector", f"@{tmp_path / name}", code=1).lower()


def test_a_defect_is_one_line_and_one_document(db: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(self: object) -> None:
        raise ZeroDivisionError("a\nb")

    monkeypatch.setattr(vecdb.Database, "collections", fail)
    assert show("ls", "--db", db, code=70).count("\n") == 1
    assert json.loads(show("ls", "--db", db, "--json", code=70))["error"]["code"] == "INTERNAL"


def test_signs_stand_for_controls() -> None:
    assert visible("a\x1b\x00\x7f\x9b\u202eb\nc") == "a\u241b\u2400\u2421<U+009B><U+202E>b\u240ac"
    assert visible("a\nb", lines=True) == "a\nb" and visible("gr\u00fc\u00df [x] \\") == "gr\u00fc\u00df [x] \\"
    assert json.loads(visible_json(json.dumps({"\x9b": "\u202e"}, ensure_ascii=False, indent=1))) == {"\x9b": "\u202e"}
