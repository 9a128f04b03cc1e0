"""Text of PostgreSQL's COPY, as its documentation spells it: escapes, nulls, dumps, headers, pgvector's types."""

from __future__ import annotations

import contextlib
import csv
import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import vecdb
from tests.support.answers.command_line import CommandRunner
from vecdb.errors import Corruption, InvalidArgument
from vecdb_datasets import open_vectors, sniff
from vecdb_datasets.formats.foreign import copy_text
from vecdb_datasets.formats.foreign.copy_text import looks_like_copy

ESCAPES = {"\\": "\\\\", "\b": "\\b", "\f": "\\f", "\n": "\\n", "\r": "\\r", "\t": "\\t", "\v": "\\v"}


def escaped(text: str | None) -> str:
    """A value as COPY TO writes it."""
    return r"\N" if text is None else "".join(ESCAPES.get(one, one) for one in text)


def spelled(vector: Any) -> str:
    """A vector as pgvector writes it."""
    return "[" + ",".join(f"{value:g}" for value in vector) + "]"


def copied(rows: list[list[str | None]]) -> str:
    return "".join("\t".join(map(escaped, row)) + "\n" for row in rows)


texts = st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=12) | st.sampled_from(
    [r"\N", "\\", "\t", "\n", "a\r", '"', r"\.", "\x85", "\u2028"]
)


@settings(max_examples=100, deadline=None)
@given(cells=st.lists(texts | st.none(), min_size=1, max_size=6))
def test_any_text_comes_back_as_it_was(cells: list[str | None], tmp_path_factory: pytest.TempPathFactory) -> None:
    path = tmp_path_factory.mktemp("copy") / "items.copy"
    rows = [[str(at), f"x{cell}" if cell is not None else None, cell, "[1,2.5]"] for at, cell in enumerate(cells)]
    path.write_text(copied([["9", "x", "text", "[1,2]"], *rows]), encoding="utf-8", newline="")
    with open_vectors(path, id_column="0") as source:
        found = source.fields()
        assert found is not None and source.ids() == [9, *range(len(cells))]
    assert [row["2"] for row in found] == ["text", *cells]
    assert [row["1"] for row in found] == ["x", *(None if cell is None else f"x{cell}" for cell in cells)]


STATEMENTS = {
    "COPY public.t (id, title) FROM stdin;\n": ("public.t", "id, title"),
    "copy t(id)  from  stdin with (format text) ; \n": ("t", "id"),
    "COPY t FROM stdin;": ("t", None),
    "COPY t () FROM stdin;": ("t", ""),
    'COPY "a (b"."c ""FROM stdin" ("x)", "y ""z""", "FROM stdin;") FROM stdin;': (
        '"a (b"."c ""FROM stdin"', '"x)", "y ""z""", "FROM stdin;"',
    ),
    "COPY t (id) FROM stdin": None,
    "COPY t (id) TO stdout;": None,
    "COPY t (id) FROM stdinx;": None,
    "COPY tFROM stdin;": None,
    "COPY (SELECT 1) TO stdout;": None,
    "COPY FROM stdin;": None,
}  # fmt: skip


@pytest.mark.parametrize("line", STATEMENTS)
def test_a_statement_is_taken_apart_as_sql_spells_it(line: str) -> None:
    found, expected = copy_text._STATEMENT.match(line), STATEMENTS[line]
    assert (found.groups() if found else None) == expected
    assert looks_like_copy(line.encode()) == (expected is not None)


@pytest.mark.parametrize(
    "text",
    [
        "COPY " + " " * 60_000 + "x",
        "COPY a" + "\t " * 30_000 + "x",
        "COPY t (" + "() " * 20_000,
        "COPY t" + " (a)" * 15_000,
        'COPY "' + '""' * 30_000,
        "COPY t" + " FROM stdin" * 6_000,
        "COPY t FROM stdin" + "; " * 30_000 + "x",
        "COPY t (" + '"",' * 20_000,
        "[1]" + "\n" * 60_000 + "x",
        "[1]" + "\n \t" * 20_000 + "x",
    ],
)
def test_a_text_made_to_keep_the_reader_busy_is_told_at_once(text: str, tmp_path: Path) -> None:
    assert not looks_like_copy(text.encode())
    (tmp_path / "x").write_text(text)
    with contextlib.suppress(InvalidArgument):
        assert sniff(os.fspath(tmp_path / "x")) not in ("copy", "jsonl")


def test_escapes_by_number_are_bytes(tmp_path: Path) -> None:
    path = tmp_path / "x.copy"
    path.write_bytes(b"1\t\\101\\x42\\303\\274\\q\\\\N\t[1,2]\n")
    with open_vectors(path) as source:
        assert source.fields() == [{"0": 1, "1": "ABüq\\N"}]


DUMP = """--
-- PostgreSQL database dump
--

SET client_encoding = 'UTF8';

COPY public.tags (id, name) FROM stdin;
1\tred
\\.


COPY public.items (id, title, "Odd ""name", embedding) FROM stdin;
1\tone\\ttab\t\\N\t[1,2,3]
2\t\t7\t[4,5,6]
\\.


SELECT pg_catalog.setval('public.items_id_seq', 2, true);
"""


def test_a_dump_names_its_columns(tmp_path: Path) -> None:
    path = tmp_path / "dump.sql"
    path.write_text(DUMP)
    with pytest.raises(InvalidArgument, match=r"several tables, .*public.items'\]; say which with key="):
        open_vectors(path)
    for key in ("items", "public.items"):
        with open_vectors(path, key=key) as source:
            assert (source.format, source.ids(), source[0:2].tolist()) == ("copy", [1, 2], [[1, 2, 3], [4, 5, 6]])
            assert source.fields() == [{"title": "one\ttab", 'Odd "name': None}, {"title": "", 'Odd "name': 7}]
    with pytest.raises(InvalidArgument, match="which column is the vector"):
        open_vectors(path, key="tags")


def test_sparse_vectors_are_refused_by_name(tmp_path: Path) -> None:
    path = tmp_path / "sparse.copy"
    path.write_text("1\t{1:0.5,7:2}/10\n2\t{}/10\n")
    with pytest.raises(InvalidArgument, match="column '1' is a sparsevec of pgvector"):
        open_vectors(path)
    path = tmp_path / "sparse.csv"
    path.write_text('id,embedding\n1,"{1:0.5,7:2}/10"\n')
    with pytest.raises(InvalidArgument, match="column 'embedding' is a sparsevec of pgvector"):
        open_vectors(path)
    path = tmp_path / "both.copy"
    path.write_text("1\t{1:0.5,7:2}/10\t[1,2]\n")
    with open_vectors(path) as source:
        assert source.fields() == [{"0": 1, "1": "{1:0.5,7:2}/10"}]


@pytest.mark.parametrize("header", [False, True])
def test_the_csv_form_is_read_too(header: bool, tmp_path: Path) -> None:
    path = tmp_path / "items.csv"
    with path.open("w", newline="") as sink:
        writer = csv.writer(sink, lineterminator="\n")
        if header:
            writer.writerow(["id", "title", "embedding"])
        writer.writerow([1, 'says "hello"\nand goes', "[1,2]"])
        writer.writerow([2, "", "[3,4.5]"])
    names = ("id", "title") if header else ("0", "1")
    with open_vectors(path, id_column=names[0]) as source:
        assert source.ids() == [1, 2] and source[0:2].tolist() == [[1, 2], [3, 4.5]]
        assert source.fields() == [{names[1]: 'says "hello"\nand goes'}, {names[1]: None}]


def test_a_header_line_and_lines_that_are_no_rows(tmp_path: Path) -> None:
    path = tmp_path / "x.copy"
    path.write_text("id\tt\tembedding\n7\ta\t[1,2]\n8\tb\t\\N\n9\tc\n")
    with pytest.raises(Corruption, match=r"line 4 \(byte 32\) has 2 columns, expected 3"):
        open_vectors(path)
    with open_vectors(path, lenient=True) as source:
        assert sorted(source.bad_rows()) == [1, 2] and source[0:1].tolist() == [[1, 2]]


def test_the_command_imports_a_dump_and_goes_on_with_another_table(tmp_path: Path) -> None:
    vectors = np.round(np.random.default_rng(1).normal(size=(300, 4)), 3)
    rows: list[list[str | None]] = [[str(i), f"t{i}" if i % 3 else None, spelled(v)] for i, v in enumerate(vectors)]
    path = tmp_path / "dump.sql"
    path.write_text(f"COPY items (id, title, embedding) FROM stdin;\n{copied(rows)}\\.\n")
    words = ["import", str(path), "--db", str(tmp_path / "db"), "-c", "items", "--metric", "l2", "--json"]
    done = CommandRunner().run(words)
    assert done.exit_code == 0 and json.loads(done.stdout)["live"] == 300
    with vecdb.open(tmp_path / "db", read_only=True) as db:
        docs = db.collection("items")
        got = [record for record in docs.get(range(300), include_vectors=True) if record is not None]
        assert np.allclose([record.vector for record in got], vectors)
        assert [record.fields["title"] for record in got] == [row[1] for row in rows]
        assert docs.search(vectors[7], limit=1, params=vecdb.SearchParams(exact=True)).ids[0] == 7
