"""String filters: each piece of the grammar, and errors that say where, what stands there and what was expected."""

from __future__ import annotations

import datetime as dt
from typing import Any

import pytest

from vecdb import F
from vecdb.errors import InvalidArgument
from vecdb.filters.parser import parse
from vecdb.filters.tree import And, Compare, Contains, In, IsNull, Like, Not, Or, Prefix

EN, LATE = Compare("lang", "==", "en"), Compare("year", ">=", 2020)


@pytest.mark.parametrize(
    ("source", "tree"),
    [
        ("lang = 'en' and year >= 2020 and tag in ('a','b')", And((EN, LATE, In("tag", ("a", "b"))))),
        ("lang == 'en'", EN),
        ("lang='en'and year>=2020", And((EN, LATE))),
        ("LANG = 'en' AND Year >= 2020", And((Compare("LANG", "==", "en"), Compare("Year", ">=", 2020)))),
        ("lang != 'en'", Not(EN)),
        ("lang <> 'en'", Not(EN)),
        ("not lang = 'en'", Not(EN)),
        ("not not lang = 'en'", EN),
        ("lang = 'en' or a is null and b < 1", Or((EN, And((IsNull("a"), Compare("b", "<", 1)))))),
        ("not a is null and b < 1", And((Not(IsNull("a")), Compare("b", "<", 1)))),
        ("not (a is null and b < 1)", Not(And((IsNull("a"), Compare("b", "<", 1))))),
        ("(lang = 'en' or a is null) and (((b < 1)))", And((Or((EN, IsNull("a"))), Compare("b", "<", 1)))),
        ("a is null", IsNull("a")),
        ("a is not null", Not(IsNull("a"))),
        ("a = null", IsNull("a")),
        ("a != NULL", Not(IsNull("a"))),
        ("a exists", Not(IsNull("a"))),
        ("a not exists", IsNull("a")),
        ("exists a", Not(IsNull("a"))),
        ("exists(a.b)", Not(IsNull("a.b"))),
        ("not exists (a)", IsNull("a")),
        ("a in (1)", In("a", (1,))),
        ("a in ()", In("a", ())),
        ("a not in (1, 2.0, 'x', true, -3, +4, 'it''s')", Not(In("a", (1, 2.0, "x", True, -3, 4, "it's")))),
        ("a in (1, null)", Or((In("a", (1,)), IsNull("a")))),
        ("a in ( 1 , 'x' ,\n 2 , date '2020-01-31', 3)", In("a", (1, "x", 2, dt.date(2020, 1, 31), 3))),
        ("a like '%x_'", Like("a", "%x_")),
        ("a not like 'x'", Not(Like("a", "x"))),
        ("a prefix 'x'", Prefix("a", "x")),
        ("a starts with 'x'", Prefix("a", "x")),
        ("a not starts with ''", Not(Prefix("a", ""))),
        ("a contains 'x'", Contains("a", ("x",), False)),
        ("a contains any ('x', 1)", Contains("a", ("x", 1), False)),
        ("a contains all ('x', 1)", Contains("a", ("x", 1), True)),
        ("a not contains all ()", Not(Contains("a", (), True))),
        ("a between 1 and 2 and b between 'x' and 'y'", F.a.between(1, 2) & F.b.between("x", "y")),
        ("a not between 1 and 2", ~F.a.between(1, 2)),
        ("true", And(())),
        ("a = 1 and false", And((Compare("a", "==", 1), Or(())))),
        ("a = true or b = False", Or((Compare("a", "==", True), Compare("b", "==", False)))),
        ("a = date '2020-01-31'", Compare("a", "==", dt.date(2020, 1, 31))),
        ("a < timestamp '2020-01-31'", Compare("a", "<", dt.datetime(2020, 1, 31))),
        ("a < timestamp '2020-01-31 10:30'", Compare("a", "<", dt.datetime(2020, 1, 31, 10, 30))),
        ("a < TIMESTAMP '2020-01-31T10:30:00.5+02:00'",
         Compare("a", "<", dt.datetime(2020, 1, 31, 8, 30, 0, 500_000, dt.UTC))),
        ("a = 'date'", Compare("a", "==", "date")),
        ("date > '2020-01-31' and timestamp = 1 and prefix = 2",
         And((Compare("date", ">", "2020-01-31"), Compare("timestamp", "==", 1), Compare("prefix", "==", 2)))),
        ("in in (1, 2) and is is null", And((In("in", (1, 2)), IsNull("is")))),
        ("meta.author.name = 'x'", Compare("meta.author.name", "==", "x")),
        ('"odd name" = 1 and "and" = 2 and "a""b" = 3 and "" = 4 and "a.b c" = 5',
         And(tuple(Compare(name, "==", at) for at, name in enumerate(("odd name", "and", 'a"b', "", "a.b c"), 1)))),
        ("größe > 1 and _x1 = 2", And((Compare("größe", ">", 1), Compare("_x1", "==", 2)))),
        ("a = .5 or a = 5. or a = 1e3 or a = -2.5E-3",
         Or(tuple(Compare("a", "==", number) for number in (0.5, 5.0, 1e3, -2.5e-3)))),
        ("a < inf and a > -inf", And((Compare("a", "<", float("inf")), Compare("a", ">", float("-inf"))))),
        ("a < 1180591620717411303424", Compare("a", "<", 2**70)),
        ("a = x'00ff' or a = X''", Or((Compare("a", "==", b"\x00\xff"), Compare("a", "==", b"")))),
        ("a = ''''", Compare("a", "==", "'")),
        ("a = 'x\ny'", Compare("a", "==", "x\ny")),
    ],
)  # fmt: skip
def test_grammar(source: str, tree: Any) -> None:
    found = parse(source)
    assert found == tree and parse(str(found)) == tree
    for one in (found, tree):
        assert repr(one) == repr(tree)


@pytest.mark.parametrize(
    ("source", "line", "column", "said"),
    [
        ("lang = 'en' an year = 2", 1, 13, "expected and, or, or the end, got 'an' (did you mean and?)"),
        ("lang = 'en' year = 2", 1, 13, "expected and, or, or the end"),
        ("lang = en", 1, 8, "got 'en': texts stand in single quotes"),
        ('lang = "en"', 1, 8, "texts stand in single quotes"),
        ("a = tru", 1, 5, "did you mean true?"),
        ("lang ==", 1, 8, "got the end"),
        ("lang", 1, 5, "expected = !="),
        ("lang lik 'e%'", 1, 6, "did you mean like?"),
        ("lang contans 'e'", 1, 6, "did you mean contains?"),
        ("lang ilike 'e'", 1, 6, "did you mean like?"),
        ("lang\n=\n\n  'en' oder", 4, 8, "got 'oder' (did you mean or?)"),
        ("(a = 1 or (b = 2)", 1, 1, "never closed"),
        ("a = 1 or (b = 2", 1, 10, "never closed"),
        ("a = 1)", 1, 6, "closes nothing"),
        ("()", 1, 2, "expected a field"),
        ("not", 1, 4, "expected a field"),
        ("a = 1 and", 1, 10, "expected a field"),
        ("and = 1", 1, 1, 'a field of that name is written "and"'),
        ("'lang' = 'en'", 1, 1, "the field stands first"),
        ("2020 <= year", 1, 1, "the field stands first"),
        ("a = 'abc", 1, 5, "this text has no end"),
        ('"abc = 1', 1, 1, "this name has no end"),
        ("a = 1 && b = 2", 1, 7, "write and"),
        ("a = 1 || b = 2", 1, 7, "write or"),
        ("!a = 1", 1, 1, "write not"),
        ("a in [1, 2]", 1, 6, "a list stands in ( )"),
        ("a in 1", 1, 6, "expected a list"),
        ("a in (1 2)", 1, 9, "expected , or )"),
        ("a in (1, 2", 1, 11, "expected , or )"),
        ("a in (1, 2,)", 1, 12, "expected a number"),
        ("a in (1, 2, x)", 1, 13, "single quotes"),
        ("a contains (1, 2)", 1, 12, "contains any (...)"),
        ("a is 1", 1, 6, "expected null"),
        ("a starts 'x'", 1, 10, "expected with"),
        ("a between 1 or 2", 1, 13, "expected and"),
        ("b = 1 and a like 1", 1, 11, "field 'a' must be a text"),
        ("a like 'x\\'", 1, 1, "ends with a backslash"),
        ("b = 1 or year > null", 1, 10, "'year' cannot be ordered against None"),
        ("a = 1e999", 1, 5, "write inf"),
        ("a = nan", 1, 5, "expected a number"),
        ("a = 12abc", 1, 5, "no number"),
        ("a = 1.2.3", 1, 5, "no number"),
        ("a = date '2020-02-30'", 1, 10, "is no date"),
        ("a = date '2020-01-31T10:00'", 1, 10, "is no date"),
        ("a = timestamp 'now'", 1, 15, "is no timestamp"),
        ("a = timestamp '0001-01-01T00:00:00+10:00'", 1, 1, "years 1 to 9999"),
        ("a = date", 1, 5, "single quotes"),
        ("a = x'0'", 1, 5, "hexadecimal"),
        ("a = x'zz'", 1, 5, "hexadecimal"),
        ("a. = 1", 1, 2, "no meaning here"),
        ("a.1 = 1", 1, 2, "double quotes"),
        ("a = ‘x’", 1, 5, "straight quotes"),
        ("a = $", 1, 5, "$ and a name"),
        ("a = $b", 1, 5, "filter_params gives no 'b', it gives none"),
        ("a = 1; drop", 1, 6, "one expression"),
        ("a\x00 = 1", 1, 2, "no meaning here"),
        ("exists (a", 1, 10, "expected )"),
        ("a not = 1", 1, 7, "expected = !="),
    ],
)
def test_errors_show_where(source: str, line: int, column: int, said: str) -> None:
    with pytest.raises(InvalidArgument) as caught:
        parse(source)
    message, shown, caret = str(caught.value).split("\n")
    assert f"at line {line}, column {column}: " in message and said in message
    assert shown == "  " + source.split("\n")[line - 1].replace("\x00", " ")
    assert caret == " " * (column + 1) + "^"


def test_of_a_long_line_the_part_around_the_error_is_shown() -> None:
    source = "a = 'é' and " * 40 + "b ~ 1" + " and a = 1" * 40
    with pytest.raises(InvalidArgument, match="line 1, column 483: ") as caught:
        parse(source)
    _, shown, caret = str(caught.value).split("\n")
    assert shown[len(caret) - 1] == "~" and shown.startswith("  ...") and shown.endswith("...") and len(shown) < 120


@pytest.mark.parametrize("source", ["", " ", "\n\t"])
def test_an_empty_text_is_no_filter(source: str) -> None:
    with pytest.raises(InvalidArgument, match="empty text"):
        parse(source)


# -- parameters ------------------------------------------------------------------------------------


def test_parameters_stand_for_values_and_lists() -> None:
    time = dt.datetime(2020, 1, 31, tzinfo=dt.UTC)
    source = "a = $x and b in $l and c contains any $l and d in (1, $x, $t) and e between $x and $x and f prefix $p"
    assert parse(source, {"x": 5, "l": ["u", None], "t": time, "p": "q"} | {"l": ["u", "v"]}) == And(
        (
            Compare("a", "==", 5),
            In("b", ("u", "v")),
            Contains("c", ("u", "v"), False),
            In("d", (1, 5, time)),
            *F.e.between(5, 5).terms,  # type: ignore[attr-defined]
            Prefix("f", "q"),
        )
    )
    assert parse("a = $x or b != $x", {"x": None}) == Or((IsNull("a"), Not(IsNull("b"))))
    assert parse("a in $l", {"l": {"u", None}}) == Or((In("a", ("u",)), IsNull("a")))


@pytest.mark.parametrize(
    "value",
    [
        "' or true",
        "x' or 1 = 1 --",
        "$y",
        "null",
        "); drop",
        '"',
        "\\",
        "%",
        "\n",
        "' in (",
        "date '2020-01-31'",
        "\x00",
    ],
)
def test_a_parameter_cannot_become_part_of_the_language(value: str) -> None:
    tree = parse("a = $x and b in ($x, 'z') and c in $l", {"x": value, "l": [value]})
    assert tree == And((Compare("a", "==", value), In("b", (value, "z")), In("c", (value,))))
    assert parse(str(tree)) == tree


@pytest.mark.parametrize(
    ("source", "params", "said"),
    [
        ("a = $lang", {"lnag": 1}, "filter_params gives no 'lang', it gives 'lnag' (did you mean lnag?)"),
        ("a = 1", {"x": 1}, "gives 'x', which the filter does not name (it names none)"),
        ("a = $y", {"y": 1, "x": 1}, "it names $y"),
        ("a = $y", {"y": 1, 3: 1}, "gives 3, which"),
        ("a = $y", {"y": [1]}, "'a' cannot be compared with a list"),
        ("a in ($y, 1)", {"y": [1]}, "write it without parentheses, in $y"),
        ("a in $y", {"y": 1}, "needs a list of values here, got 1"),
        ("a in $y", {"y": "abc"}, "needs a list of values here"),
        ("a > $y", {"y": None}, "cannot be ordered against None"),
        ("a = $y", {"y": float("nan")}, "NaN"),
        ("a like $y", {"y": b"x"}, "must be a text"),
        ("a = '$y'", {"y": 1}, "does not name"),
        ("$y = 1", {"y": "a"}, "the field stands first"),
    ],
)
def test_parameters_that_do_not_fit(source: str, params: Any, said: str) -> None:
    with pytest.raises(InvalidArgument) as caught:
        parse(source, params)
    assert said in str(caught.value)
