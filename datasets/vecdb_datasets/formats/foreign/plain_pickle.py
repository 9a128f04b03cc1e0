"""Values in a pickle, without running what it says: None, bool, int, float, text, bytes, lists, tuples, sets, dicts,
and objects of named classes as the dict of their attributes.

A pickle is a program; whoever unpickles a foreign one runs it. This reads the instructions that build such values, as
the module pickletools of Python's library describes them, and refuses all others: no class is imported, nothing is
called. So are values that a pickle uses twice, which could grow without end: texts and bytes alone may be, up to 16 MiB
in all. Keys of dicts and items of sets are texts: to hash a tuple within a tuple, and so on, takes the stack of C.

    PROTO FRAME   numbers, text, bytes   MARK   EMPTY_LIST APPEND(S)   EMPTY_DICT SETITEM(S)   EMPTY_SET ADDITEMS
    TUPLE ...   MEMOIZE, BINGET of texts and names   STACK_GLOBAL or GLOBAL, NEWOBJ, BUILD of an allowed class   STOP
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

_FLOAT = struct.Struct(">d")
_SHORT_NAMES_MAX = 1_000
_AGAIN_BYTES_MAX = 16 << 20


@dataclass(frozen=True, slots=True)
class ClassName:
    """A class that a pickle names."""

    module: str
    name: str


@dataclass(slots=True)
class PlainObject:
    """An object in a pickle: the name of its class, and its attributes."""

    kind: str
    values: dict[str, Any] = field(default_factory=dict)


class PlainPickle:
    """One pickle. allowed : whether a class may be in it.

    Raises ValueError from `value` for what is no pickle, and for what it does not read.
    """

    def __init__(self, raw: bytes, allowed: Callable[[ClassName], bool]) -> None:
        self._raw, self._allowed = raw, allowed
        self._at = 0
        self._stack: list[Any] = []
        self._marks: list[int] = []
        self._memo: dict[int, Any] = {}
        self._again_bytes = 0

    def value(self) -> Any:
        """The value that the pickle holds."""
        try:
            while True:
                code = self._raw[self._at]
                self._at += 1
                if code == 0x2E:  # STOP
                    [found] = self._stack
                    return found
                if code == 0x47:  # BINFLOAT, most of a vector
                    self._stack.append(_FLOAT.unpack_from(self._raw, self._at)[0])
                    self._at += 8
                    continue
                step = _STEPS.get(code)
                if step is None:
                    raise ValueError(f"instruction {code:#04x} of a pickle, which is not followed")
                step(self)
        except (IndexError, struct.error, UnicodeDecodeError, TypeError, KeyError) as error:
            raise ValueError(f"no whole pickle of plain values ({type(error).__name__})") from None

    # -- reading what follows an instruction -------------------------------------------------------

    def _take(self, count: int) -> bytes:
        end = self._at + count
        if end > len(self._raw):
            raise IndexError
        part = self._raw[self._at : end]
        self._at = end
        return part

    def _skip(self, count: int) -> None:
        self._at += count

    def _number(self, width: int, *, signed: bool = False) -> int:
        return int.from_bytes(self._take(width), "little", signed=signed)

    def _long(self, width: int) -> None:
        self._stack.append(int.from_bytes(self._take(self._number(width)), "little", signed=True))

    def _int(self, width: int, signed: bool) -> None:
        self._stack.append(self._number(width, signed=signed))

    def _text(self, width: int) -> None:
        self._stack.append(self._take(self._number(width)).decode("utf-8", "surrogatepass"))

    def _bytes(self, width: int) -> None:
        self._stack.append(self._take(self._number(width)))

    def _line(self) -> str:
        end = self._raw.index(b"\n", self._at)
        line = self._raw[self._at : end].decode()
        self._at = end + 1
        return line

    # -- building ----------------------------------------------------------------------------------

    def _popped(self) -> list[Any]:
        """What lies above the last mark."""
        mark = self._marks.pop()
        items = self._stack[mark:]
        del self._stack[mark:]
        return items

    def _top(self, kind: type) -> Any:
        found = self._stack[-1]
        if type(found) is not kind:
            raise TypeError
        return found

    def _append(self) -> None:
        item = self._stack.pop()
        self._top(list).append(item)

    def _appends(self) -> None:
        items = self._popped()
        self._top(list).extend(items)

    def _set_item(self) -> None:
        value, name = self._stack.pop(), self._stack.pop()
        self._top(dict)[_hashed(name)] = value

    def _set_items(self) -> None:
        items = self._popped()
        if len(items) % 2:
            raise IndexError
        self._top(dict).update(zip(map(_hashed, items[::2]), items[1::2]))

    def _add_items(self) -> None:
        items = self._popped()
        self._top(set).update(map(_hashed, items))

    def _tuple(self, count: int) -> None:
        items = tuple(self._stack[len(self._stack) - count :]) if count else ()
        if len(items) != count:
            raise IndexError
        del self._stack[len(self._stack) - count :]
        self._stack.append(items)

    def _name(self, module: Any, name: Any) -> None:
        if type(module) is not str or type(name) is not str:
            raise TypeError
        found = ClassName(module, name)
        if not self._allowed(found):
            raise ValueError(f"{module[:_SHORT_NAMES_MAX]}.{name[:_SHORT_NAMES_MAX]}, which is no plain value")
        self._stack.append(found)

    def _stack_global(self) -> None:
        name, module = self._stack.pop(), self._stack.pop()
        self._name(module, name)

    def _new_object(self) -> None:
        arguments, made = self._stack.pop(), self._stack.pop()
        if type(made) is not ClassName or arguments != ():
            raise TypeError
        self._stack.append(PlainObject(made.name))

    def _build(self) -> None:
        state = self._stack.pop()
        attributes = state.get("__dict__", state) if type(state) is dict else None
        if type(attributes) is not dict:
            raise TypeError
        self._top(PlainObject).values = attributes

    def _keep(self, place: int) -> None:
        self._memo[place] = self._stack[-1]

    def _again(self, place: int) -> None:
        found = self._memo[place]
        if isinstance(found, list | dict | set | tuple | PlainObject) and found != ():
            raise ValueError("a value that it uses twice")
        self._again_bytes += _size_bytes(found)
        if self._again_bytes > _AGAIN_BYTES_MAX:
            raise ValueError(f"more than {_AGAIN_BYTES_MAX:,} bytes of texts and bytes that it uses twice")
        self._stack.append(found)


def _hashed(item: Any) -> str:
    """A key of a dict, or an item of a set."""
    if type(item) is not str:
        raise ValueError(f"a key of a dict or an item of a set that is no text, but {type(item).__name__}")
    return item


def _size_bytes(found: Any) -> int:
    if isinstance(found, str):
        return len(found.encode("utf-8", "surrogatepass"))
    return len(found) if isinstance(found, bytes) else found.bit_length() // 8 if isinstance(found, int) else 0


_STEPS: dict[int, Callable[[PlainPickle], None]] = {
    0x80: lambda p: p._skip(1),  # PROTO
    0x95: lambda p: p._skip(8),  # FRAME
    ord("N"): lambda p: p._stack.append(None),
    0x88: lambda p: p._stack.append(True),
    0x89: lambda p: p._stack.append(False),
    ord("K"): lambda p: p._int(1, False),
    ord("M"): lambda p: p._int(2, False),
    ord("J"): lambda p: p._int(4, True),
    0x8A: lambda p: p._long(1),
    0x8B: lambda p: p._long(4),
    0x8C: lambda p: p._text(1),
    ord("X"): lambda p: p._text(4),
    0x8D: lambda p: p._text(8),
    ord("C"): lambda p: p._bytes(1),
    ord("B"): lambda p: p._bytes(4),
    0x8E: lambda p: p._bytes(8),
    ord("("): lambda p: p._marks.append(len(p._stack)),
    ord("]"): lambda p: p._stack.append([]),
    ord("a"): PlainPickle._append,
    ord("e"): PlainPickle._appends,
    ord("}"): lambda p: p._stack.append({}),
    ord("s"): PlainPickle._set_item,
    ord("u"): PlainPickle._set_items,
    0x8F: lambda p: p._stack.append(set()),
    0x90: PlainPickle._add_items,
    ord(")"): lambda p: p._stack.append(()),
    0x85: lambda p: p._tuple(1),
    0x86: lambda p: p._tuple(2),
    0x87: lambda p: p._tuple(3),
    ord("t"): lambda p: p._stack.append(tuple(p._popped())),
    ord("q"): lambda p: p._keep(p._number(1)),
    ord("r"): lambda p: p._keep(p._number(4)),
    0x94: lambda p: p._keep(len(p._memo)),
    ord("h"): lambda p: p._again(p._number(1)),
    ord("j"): lambda p: p._again(p._number(4)),
    ord("c"): lambda p: p._name(p._line(), p._line()),
    0x93: PlainPickle._stack_global,
    0x81: PlainPickle._new_object,
    ord("b"): PlainPickle._build,
}
