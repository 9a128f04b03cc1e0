"""String filters become trees.

    filter    := any
    any       := all ("or" all)*
    all       := one ("and" one)*
    one       := "not" one | "(" any ")" | "true" | "false" | condition
    condition := field ("=" | "==" | "!=" | "<>" | "<" | "<=" | ">" | ">=") value
               | field "is" ["not"] "null"  |  field "exists"  |  "exists" field  |  "exists" "(" field ")"
               | field ["not"] "in" list
               | field ["not"] "like" text  |  field ["not"] ("prefix" | "starts" "with") text
               | field ["not"] "contains" value  |  field ["not"] "contains" ("any" | "all") list
               | field ["not"] "between" value "and" value
    list      := "(" [value ("," value)*] ")" | $name
    value     := number | 'text' | x'hex' | "true" | "false" | "null" | "date" 'text' | "timestamp" 'text' | $name
    field     := name | name.name | "any name"

Words may be written in any case. A parameter $name is a value of `filter_params`, never a part of the language. The
parser keeps its own stack, so that deep nesting is refused, not a RecursionError.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping
from typing import Any, NoReturn

from vecdb import limits
from vecdb.errors import InvalidArgument, LimitExceeded
from vecdb.filters.expression import between, equals, is_in, order
from vecdb.filters.lexer import Lexer, Token, error_at, near
from vecdb.filters.scalars import FOLLOWING_WORDS, STARTING_WORDS
from vecdb.filters.times import read_time
from vecdb.filters.tree import And, Contains, IsNull, Like, Node, Not, Or, Prefix
from vecdb.validate.common import short_repr

_NUMBER_CHARS_MAX = 1_000  # of an int within `limits.filter_int_bits_max`, and to spare
_OPS: dict[str, Any] = {"=": "==", "==": "==", "<": "<", "<=": "<=", ">": ">", ">=": ">="}
_AFTER_FIELD = "= != < <= > >= in, is null, exists, like, prefix, contains or between"
_VALUE = "a number, a 'text', true, false, null, date '2020-01-31', timestamp '...' or $name"


def parse(source: str, params: Mapping[str, Any] | None = None) -> Node:
    """The tree of a string filter. Every parameter that it names must be given, and every one given be named.

    Raises InvalidArgument, with line and column, what stands there and what was expected; LimitExceeded past a bound.
    """
    return _Parser(source, params or {}).parse()


class _Frame:
    """What is open between two parentheses: terms of `or` that are complete, those of the last `and`, and `not`."""

    __slots__ = ("alternatives", "negated", "start", "terms")

    def __init__(self, start: int) -> None:
        self.start = start
        self.negated = False
        self.alternatives: list[Node] = []
        self.terms: list[Node] = []

    def add(self, node: Node) -> None:
        self.terms.append(Not(node) if self.negated else node)
        self.negated = False

    def close_terms(self) -> None:
        self.alternatives.append(And(tuple(self.terms)))
        self.terms = []

    def tree(self) -> Node:
        self.close_terms()
        tree: Node = Or(tuple(self.alternatives))
        return tree


class _Parser:
    def __init__(self, source: str, params: Mapping[str, Any]) -> None:
        self.lexer = Lexer(source)
        self.params = params
        self.used: set[str] = set()
        self.conditions = 0

    def parse(self) -> Node:
        if self.lexer.token.kind == "end":
            raise InvalidArgument("the filter is an empty text: leave the filter out, or pass None, to filter nothing")
        stack = [_Frame(0)]
        while True:
            self._open(stack)
            stack[-1].add(self._condition())
            while self.lexer.token.text == ")" and len(stack) > 1:
                self.lexer.take()
                closed = self._built(stack.pop())
                stack[-1].add(closed)
            if self.lexer.take_word("or"):
                stack[-1].close_terms()
            elif not self.lexer.take_word("and"):
                break
        token = self.lexer.token
        if token.kind != "end" or len(stack) > 1:
            self._not_joined(token, stack)
        self._check_params()
        return self._built(stack[0])

    def _open(self, stack: list[_Frame]) -> None:
        """Take what may stand before a condition: `not` and parentheses."""
        count = 0
        while True:
            token = self.lexer.token
            if self.lexer.take_word("not"):
                count += 1
                if count > limits.filter_depth_max:
                    self._fail(token, f"at most {limits.filter_depth_max} times not in a row", LimitExceeded)
                stack[-1].negated = not stack[-1].negated
            elif self.lexer.take_mark("("):
                if len(stack) > limits.filter_depth_max:
                    self._fail(token, f"a filter nests at most {limits.filter_depth_max} deep", LimitExceeded)
                stack.append(_Frame(token.start))
            else:
                return

    def _built(self, frame: _Frame) -> Node:
        try:
            return frame.tree()
        except InvalidArgument as error:  # a bound of the tree
            raise error_at(self.lexer.source, frame.start, str(error), type(error)) from None

    def _not_joined(self, token: Token, stack: list[_Frame]) -> NoReturn:
        if token.kind == "end":
            self._fail(Token("mark", "(", stack[-1].start), "this parenthesis is never closed")
        if token.text == ")":
            self._fail(token, "this parenthesis closes nothing")
        self._fail(token, f"expected and, or, or the end, got {token}{near(token.text, ('and', 'or'))}")

    def _check_params(self) -> None:
        for name in self.params:
            if name not in self.used:
                named = sorted("$" + one for one in self.used)
                raise InvalidArgument(
                    f"filter_params gives {short_repr(name)}, which the filter does not name (it names "
                    f"{', '.join(named[:10]) or 'none'}): leave it out, or write it as a $ and its name"
                )

    # -- conditions --------------------------------------------------------------------------------

    def _condition(self) -> Node:
        token = self.lexer.token
        self.conditions += 1
        if self.conditions > limits.filter_terms_max:
            self._fail(token, f"a filter has at most {limits.filter_terms_max:,} conditions: use in", LimitExceeded)
        if self.lexer.take_word("true"):
            everything: Node = And(())
            return everything
        if self.lexer.take_word("false"):
            nothing: Node = Or(())
            return nothing
        if self.lexer.take_word("exists"):
            opened = self.lexer.take_mark("(")
            name = self._field()
            if opened:
                self._mark(")")
            return self._checked(token, lambda: Not(IsNull(name)))
        return self._after_field(self._field(), token)

    def _field(self) -> str:
        token = self.lexer.token
        if token.kind == "quoted":
            self.lexer.take()
            return token.text[1:-1].replace('""', '"')
        if token.kind == "name" and token.text.lower() not in STARTING_WORDS:
            self.lexer.take()
            return token.text
        hint = ""
        if token.kind == "name":
            hint = f': a field of that name is written "{token.text}"'
        elif token.kind in ("text", "number", "param", "bytes"):
            hint = ": the field stands first, the value behind the operator"
        self._fail(token, f"expected a field, got {token}{hint}")

    def _after_field(self, name: str, first: Token) -> Node:
        token = self.lexer.token
        if token.kind == "op":
            self.lexer.take()
            value = self._value()
            if token.text in ("!=", "<>"):
                return self._checked(first, lambda: Not(equals(name, value)))
            op = _OPS[token.text]
            return self._checked(first, lambda: equals(name, value) if op == "==" else order(name, op, value))
        if self.lexer.take_word("is"):
            negated = self.lexer.take_word("not")
            if not self.lexer.take_word("null"):
                self._fail(self.lexer.token, f"expected null, got {self.lexer.token}: for other values write = or !=")
            return self._checked(first, lambda: Not(IsNull(name)) if negated else IsNull(name))
        negated = self.lexer.take_word("not")
        node = self._word_condition(name, first)
        return Not(node) if negated else node

    def _word_condition(self, name: str, first: Token) -> Node:
        token = self.lexer.token
        if self.lexer.take_word("in"):
            values = self._list()
            return self._checked(first, lambda: is_in(name, values))
        if self.lexer.take_word("exists"):
            return self._checked(first, lambda: Not(IsNull(name)))
        if self.lexer.take_word("like"):
            pattern = self._value()
            return self._checked(first, lambda: Like(name, pattern))
        if self.lexer.take_word("prefix"):
            start = self._value()
            return self._checked(first, lambda: Prefix(name, start))
        if self.lexer.take_word("starts"):
            if not self.lexer.take_word("with"):
                self._fail(self.lexer.token, f"expected with, got {self.lexer.token}: starts with '...'")
            start = self._value()
            return self._checked(first, lambda: Prefix(name, start))
        if self.lexer.take_word("between"):
            low = self._value()
            if not self.lexer.take_word("and"):
                self._fail(self.lexer.token, f"expected and, got {self.lexer.token}: between 1 and 9")
            high = self._value()
            return self._checked(first, lambda: between(name, low, high))
        if self.lexer.take_word("contains"):
            return self._contains(name, first)
        words = sorted(FOLLOWING_WORDS | {"exists"})
        hint = near(token.text, words) if token.kind == "name" else ""
        if token.kind == "number" and token.text.startswith("."):
            hint = ": a path with such a name stands in double quotes"
        self._fail(token, f"expected {_AFTER_FIELD} behind the field {short_repr(name)}, got {token}{hint}")

    def _contains(self, name: str, first: Token) -> Node:
        every = self.lexer.token.is_word("all")
        if self.lexer.take_word("any", "all"):
            values = self._list()
            return self._checked(first, lambda: Contains(name, values, every))
        if self.lexer.token.text == "(":
            self._fail(self.lexer.token, "several values: write contains any (...) or contains all (...)")
        value = self._value()
        return self._checked(first, lambda: Contains(name, (value,), False))

    def _checked(self, first: Token, make: Any) -> Node:
        """What `make` builds; an error of it says where the condition stands."""
        try:
            node: Node = make()
        except InvalidArgument as error:
            raise error_at(self.lexer.source, first.start, str(error), type(error)) from None
        return node

    # -- values ------------------------------------------------------------------------------------

    def _list(self) -> Any:
        token = self.lexer.token
        if token.kind == "param":
            return self._param()
        if not self.lexer.take_mark("("):
            self._fail(token, f"expected a list as (1, 2) or $name, got {token}")
        values: list[Any] = []
        if self.lexer.take_mark(")"):
            return values
        while True:
            values += self.lexer.take_run(limits.filter_values_max - len(values))
            token = self.lexer.token
            values.append(self._value())
            if token.kind == "param" and isinstance(values[-1], (list, tuple)):
                self._fail(token, f"{token.text} is a list: write it without parentheses, in {token.text}")
            if len(values) > limits.filter_values_max:
                self._fail(token, f"a filter holds at most {limits.filter_values_max:,} values", LimitExceeded)
            if self.lexer.take_mark(")"):
                return values
            self._mark(",", " or )")

    def _value(self) -> Any:
        token = self.lexer.take()
        kind = token.kind
        if kind == "text":
            return token.text[1:-1].replace("''", "'")
        if kind == "number":
            return self._number(token)
        if kind == "param":
            return self._param_of(token)
        if kind == "bytes":
            try:
                return bytes.fromhex(token.text[2:-1])
            except ValueError:
                self._fail(token, "bytes are pairs of hexadecimal digits: x'00ff'")
        if kind == "name":
            return self._value_word(token)
        hint = ": texts stand in single quotes, names of fields in double ones" if kind == "quoted" else ""
        self._fail(token, f"expected {_VALUE}, got {token}{hint}")

    def _value_word(self, token: Token) -> Any:
        word = token.text.lower()
        constants = {"true": True, "false": False, "null": None}
        if word in constants:
            return constants[word]
        if word in ("date", "timestamp") and self.lexer.token.kind == "text":
            return self._time(word, self.lexer.take())
        hint = near(word, constants) or ": texts stand in single quotes"
        self._fail(token, f"expected {_VALUE}, got {token}{hint}")

    def _number(self, token: Token) -> int | float:
        text = token.text
        if len(text) > _NUMBER_CHARS_MAX:
            self._fail(token, f"a number is at most {_NUMBER_CHARS_MAX:,} characters", LimitExceeded)
        if text.lstrip("+-").isdigit():
            return int(text)
        number = float(text)
        if number in (float("inf"), float("-inf")) and not text.endswith("inf"):
            self._fail(token, "this number is larger than every float: write inf or -inf")
        return number

    def _time(self, word: str, token: Token) -> dt.date:
        time = read_time(token.text[1:-1])
        if time is None or (word == "date" and isinstance(time, dt.datetime)):
            self._fail(
                token,
                f"{token} is no {word}: write date '2020-01-31', or timestamp '2020-01-31T10:30:00' "
                "with Z or +01:00 behind it",
            )
        if word == "timestamp" and not isinstance(time, dt.datetime):
            return dt.datetime.combine(time, dt.time())
        return time

    def _param(self) -> Any:
        return self._param_of(self.lexer.take())

    def _param_of(self, token: Token) -> Any:
        name = token.text[1:]
        if name not in self.params:
            given = [one for one in self.params if isinstance(one, str)]
            shown = ", ".join(short_repr(one) for one in given[:10]) or "none"
            self._fail(token, f"filter_params gives no {short_repr(name)}, it gives {shown}{near(name, given)}")
        self.used.add(name)
        return self.params[name]

    # -- errors ------------------------------------------------------------------------------------

    def _mark(self, mark: str, other: str = "") -> None:
        if not self.lexer.take_mark(mark):
            self._fail(self.lexer.token, f"expected {mark}{other}, got {self.lexer.token}")

    def _fail(self, token: Token, message: str, kind: type[InvalidArgument] = InvalidArgument) -> NoReturn:
        raise error_at(self.lexer.source, token.start, message, kind)
