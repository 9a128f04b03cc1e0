"""A string filter as tokens, one after another, and errors that show where in it something is wrong.

name      lang   meta.author            a field, or a word of the language
quoted    "odd name"                    a field; a double quote in it is doubled
text      'it''s'                       a value; a single quote in it is doubled
bytes     x'00ff'
number    2020   -1.5e3   inf   -inf
param     $name
op        = == != <> < <= > >=
mark      ( ) ,
end
"""

from __future__ import annotations

import difflib
import math
import re
from collections.abc import Iterable
from typing import NamedTuple

from vecdb import limits
from vecdb.errors import InvalidArgument, LimitExceeded
from vecdb.validate.common import short_repr

FILTER_ERROR = "the filter is wrong at"  # how the message of an error in a text begins
_SHOWN = 50  # characters of a line on either side of an error
_TOKEN = re.compile(
    r"""(?P<space>\s+)
    | (?P<bytes>[xX]'[^']*')
    | (?P<text>'[^']*(?:''[^']*)*')
    | (?P<quoted>"[^"]*(?:""[^"]*)*")
    | (?P<number>[+-]?(?:[0-9]+(?:\.[0-9]*)?|\.[0-9]+)(?:[eE][+-]?[0-9]+)?(?![\w.])|[+-]?inf(?![\w.]))
    | (?P<name>[^\W\d]\w*(?:\.[^\W\d]\w*)*)
    | (?P<param>\$[^\W\d]\w*)
    | (?P<op>==|=|!=|<>|<=|>=|<|>)
    | (?P<mark>[(),])""",
    re.VERBOSE,
)
# Runs of plain values with a comma behind each, which a long list is read by.
_INTS = re.compile(r"(?>\s*+[+-]?[0-9]{1,18}\s*+,){1,4096}+")
_FLOATS = re.compile(r"(?>\s*+[+-]?[0-9]*+\.[0-9]++(?:[eE][+-]?[0-9]++)?\s*+,){1,4096}+")
_TEXTS = re.compile(r"(?>\s*+'[^']*+(?:''[^']*+)*+'\s*+,){1,4096}+")
_TEXT = re.compile(r"'([^']*+(?:''[^']*+)*+)'")
_HINTS = {
    "'": "this text has no end: close it with ', and double every ' inside it",
    '"': 'this name has no end: close it with ", and double every " inside it',
    "&": "write and",
    "|": "write or",
    "!": "write not",
    "~": "write not",
    "[": "a list stands in ( )",
    "]": "a list stands in ( )",
    "{": "a list stands in ( )",
    "`": "an odd name stands in double quotes",
    ";": "a filter is one expression",
    "$": "a parameter is $ and a name",
    "?": "a parameter is $ and a name",
    ":": "a parameter is $ and a name",
    "%": "a pattern stands in single quotes",
    "‘": "texts stand in straight quotes, '",
    "’": "texts stand in straight quotes, '",
    "“": "texts stand in straight quotes, '",
    "”": "texts stand in straight quotes, '",
}


class Token(NamedTuple):
    kind: str
    text: str
    start: int

    def is_word(self, word: str) -> bool:
        return self.kind == "name" and self.text.lower() == word

    def __str__(self) -> str:
        return "the end" if self.kind == "end" else short_repr(self.text, 40)


class Lexer:
    """Holds the token that comes next."""

    __slots__ = ("_at", "source", "token")

    def __init__(self, source: str) -> None:
        if len(source) > limits.filter_text_max:
            raise LimitExceeded(
                f"a string filter is at most {limits.filter_text_max:,} characters, got {len(source):,}: pass a long "
                "list as a parameter, `in $values` with filter_params={'values': [...]}"
            )
        self.source = source
        self._at = 0
        self.token = self._next()

    def take(self) -> Token:
        """The token that came next; behind it stands another."""
        token = self.token
        self.token = self._next()
        return token

    def take_word(self, *words: str) -> bool:
        """Whether the next token is one of the words of the language; then it is taken."""
        if self.token.kind == "name" and self.token.text.lower() in words:
            self.take()
            return True
        return False

    def take_mark(self, mark: str) -> bool:
        if self.token.kind == "mark" and self.token.text == mark:
            self.take()
            return True
        return False

    def take_run(self, count_max: int) -> list[int | float | str]:
        """The plain ints, floats and texts from the next token on that have a comma behind them, read by runs, until
        they are more than `count_max`. What comes next is a token again.
        """
        values: list[int | float | str] = []
        start = self.token.start
        while len(values) <= count_max:
            if found := _INTS.match(self.source, start):
                values += map(int, found.group()[:-1].split(","))
            elif found := _FLOATS.match(self.source, start):
                floats = list(map(float, found.group()[:-1].split(",")))
                if any(map(math.isinf, floats)):
                    break  # one is too large, and the parser says which
                values += floats
            elif found := _TEXTS.match(self.source, start):
                texts: list[str] = _TEXT.findall(found.group())
                values += (text.replace("''", "'") for text in texts) if "''" in found.group() else texts
            else:
                break
            start = found.end()
        if values:
            self._at = start
            self.token = self._next()
        return values

    def _next(self) -> Token:
        while self._at < len(self.source):
            start = self._at
            found = _TOKEN.match(self.source, start)
            if found is None:
                raise self._no_token(start)
            self._at = found.end()
            kind = found.lastgroup
            assert kind is not None
            if kind != "space":
                return Token(kind, found.group(), start)
        return Token("end", "", len(self.source))

    def _no_token(self, start: int) -> InvalidArgument:
        char = self.source[start]
        if char.isdigit() or char in "+-.":
            hint = "this is no number: a name that begins so stands in double quotes"
        else:
            hint = _HINTS.get(char, "a name with odd characters stands in double quotes, a text in single ones")
        return error_at(self.source, start, f"{short_repr(char)} has no meaning here; {hint}")


def error_at(
    source: str, position: int, message: str, kind: type[InvalidArgument] = InvalidArgument
) -> InvalidArgument:
    """The error that shows the line, with a caret under the position."""
    start = source.rfind("\n", 0, position) + 1
    line = source.count("\n", 0, position) + 1
    stop = source.find("\n", position)
    stop = len(source) if stop < 0 else stop
    left, right = max(start, position - _SHOWN), min(stop, position + _SHOWN)
    shown = "".join(char if char.isprintable() else " " for char in source[left:right])
    before, after = "..." if left > start else "", "..." if right < stop else ""
    caret = " " * (len(before) + position - left) + "^"
    where = f"line {line}, column {position - start + 1}"
    return kind(f"{FILTER_ERROR} {where}: {message}\n  {before}{shown}{after}\n  {caret}")


def near(word: str, words: Iterable[str]) -> str:
    """A question about the likeliest of the words, or nothing."""
    by_lower = {one.lower(): one for one in words}
    found = difflib.get_close_matches(word[:40].lower(), list(by_lower), 1, 0.6)
    return f" (did you mean {by_lower[found[0]]}?)" if found else ""
