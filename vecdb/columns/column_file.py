"""The sealed file of columns: a view as bytes, and back.

    file    := the container of sealed_file.py, sections "layout", "data" and "fine"
    layout  := msgpack of ViewLayout: what every column is, where its arrays lie in data
    data    := arrays of codes and of rows of elements, each from a multiple of 64 bytes on, little-endian
    fine    := lower halves of codes that need 64 bits, in the same way

Codes of full blocks are used where they are mapped; tails are copied, since rows are appended to them. What is in
"fine" is read again when a comparison needs it: its pages are given back once its checksum was looked at. Version 1
has no "fine", and whole codes of 64 bits.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from vecdb.columns.blocks import CodeBlock
from vecdb.columns.column import Column, ElementBlock, Elements
from vecdb.columns.column_set import ColumnView, PathColumns
from vecdb.columns.dictionary import Dictionary, HashedTexts
from vecdb.errors import Corruption
from vecdb.index.common import sealed_file
from vecdb.storage.disk import mapped_memory

_MAGIC, _VERSION, _WITHOUT_FINE = b"VDBCOLS\0", 2, 1
_ALIGN = 64


class Place(msgspec.Struct, array_like=True, frozen=True):
    """An array in data: where, its type, how many."""

    offset: int
    dtype: str
    count: int


class BlockLayout(msgspec.Struct, array_like=True, frozen=True):
    codes: Place
    base: int
    lowest: int
    highest: int
    whole: bool
    rows: Place | None = None  # of elements
    fine: Place | None = None


class ColumnLayout(msgspec.Struct, array_like=True, frozen=True):
    """texts : of its dictionary, in the order of their codes; None where it has none, or is hashed."""

    kind: str
    blocks: list[BlockLayout | None]
    tail: Place
    tail_rows: Place | None
    count: int
    hashed: bool
    texts: list[Any] | None  # str or bytes, as the kind says


class PathLayout(msgspec.Struct, array_like=True, frozen=True):
    path: str
    columns: list[ColumnLayout]
    elements: list[ColumnLayout]


class ViewLayout(msgspec.Struct, array_like=True, frozen=True):
    row_count: int
    sequence: int
    missing: bool
    paths: list[PathLayout]


_pack = msgspec.msgpack.Encoder().encode
_unpack = msgspec.msgpack.Decoder(ViewLayout).decode


def write(path: Path, view: ColumnView, facts: dict[str, Any]) -> int:
    """Write the file as a whole, synced. facts : what its header says of the collection.   Returns its bytes."""
    writer = _ArrayWriter()
    paths = [
        PathLayout(
            name,
            [writer.column(one) for one in known.columns.values()],
            [writer.elements(one) for one in known.elements.values()],
        )
        for name, known in view.paths.items()
    ]
    layout = _pack(ViewLayout(view.row_count, view.sequence, view.missing, paths))
    sections = {"layout": np.frombuffer(layout, np.uint8), "data": writer.data.section(), "fine": writer.fine.section()}
    return sealed_file.write(path, _MAGIC, {"version": _VERSION, **facts}, sections)


def read(path: Path, facts: dict[str, Any]) -> ColumnView:
    """The view in a file. facts : what its header must say. Raises Corruption, FileNotFoundError."""
    header, arrays = sealed_file.read(path, _MAGIC, _VERSION, _WITHOUT_FINE)
    sealed_file.check_header(path, header, facts)
    try:
        layout = _unpack(arrays["layout"].tobytes())
        reader = _ArrayReader(arrays["data"], arrays.get("fine", arrays["data"][:0]))
        paths = {
            one.path: PathColumns(
                {column.kind: reader.column(column) for column in one.columns},
                {column.kind: reader.elements(column) for column in one.elements},
            )
            for one in layout.paths
        }
    except (msgspec.MsgspecError, ValueError, KeyError) as error:
        raise Corruption(f"{path}: its layout cannot be read ({error}); it can be made again from the rows") from None
    if "fine" in arrays:
        mapped_memory.drop_mapped_pages(arrays["fine"])
    return ColumnView(paths, layout.row_count, layout.sequence, layout.missing)


class _Arrays:
    """Collects arrays of one section and says where each will lie."""

    def __init__(self) -> None:
        self._parts: list[NDArray[Any]] = []
        self._end = 0

    def place(self, array: NDArray[Any]) -> Place:
        place = Place(self._end, array.dtype.str, len(array))
        self._parts.append(array)
        self._end += -(-array.nbytes // _ALIGN) * _ALIGN
        return place

    def section(self) -> NDArray[np.uint8]:
        data = np.zeros(self._end, np.uint8)
        at = 0
        for array in self._parts:
            data[at : at + array.nbytes] = np.ascontiguousarray(array).view(np.uint8)
            at += -(-array.nbytes // _ALIGN) * _ALIGN
        return data


class _ArrayWriter:
    """Layouts of columns, whose arrays it collects."""

    def __init__(self) -> None:
        self.data, self.fine = _Arrays(), _Arrays()

    def column(self, column: Column) -> ColumnLayout:
        blocks = [None if one is None else self._block(one, None) for one in column.blocks]
        return self._layout(column, blocks, self.data.place(column.tail[: column.used]), None)

    def elements(self, elements: Elements) -> ColumnLayout:
        blocks = [None if one is None else self._block(one.codes, one.rows) for one in elements.blocks]
        tail, rows = elements.tail_codes[: elements.used], elements.tail_rows[: elements.used]
        return self._layout(elements, blocks, self.data.place(tail), self.data.place(rows))

    def _block(self, block: CodeBlock, rows: NDArray[np.uint16] | None) -> BlockLayout:
        place = None if rows is None else self.data.place(rows)
        fine = None if block.fine is None else self.fine.place(block.fine)
        codes = self.data.place(block.codes)
        return BlockLayout(codes, block.base, block.lowest, block.highest, block.whole, place, fine)

    def _layout(
        self, column: Column | Elements, blocks: list[BlockLayout | None], tail: Place, tail_rows: Place | None
    ) -> ColumnLayout:
        dictionary = column.dictionary
        hashed = dictionary is not None and dictionary.hashed
        texts = None if dictionary is None or hashed else list(dictionary.values[1:])
        return ColumnLayout(column.kind, blocks, tail, tail_rows, column.count, hashed, texts)


class _ArrayReader:
    def __init__(self, data: NDArray[np.uint8], fine: NDArray[np.uint8]) -> None:
        self._data, self._fine = data, fine

    def _array(self, place: Place) -> NDArray[Any]:
        return _array_at(self._data, place)

    def column(self, layout: ColumnLayout) -> Column:
        blocks = tuple(None if one is None else self._block(one) for one in layout.blocks)
        tail = self._array(layout.tail).copy()
        return Column(layout.kind, blocks, tail, len(tail), layout.count, _dictionary(layout))

    def elements(self, layout: ColumnLayout) -> Elements:
        blocks = tuple(None if one is None else self._element_block(one) for one in layout.blocks)
        if layout.tail_rows is None:
            raise ValueError("elements without rows")
        tail, rows = self._array(layout.tail).copy(), self._array(layout.tail_rows).copy()
        return Elements(layout.kind, blocks, rows, tail, len(tail), layout.count, _dictionary(layout))

    def _block(self, one: BlockLayout) -> CodeBlock:
        fine = None if one.fine is None else _array_at(self._fine, one.fine)
        codes = self._array(one.codes)
        return CodeBlock(codes, one.base, one.lowest, one.highest, one.whole, fine, fine_on_disk=fine is not None)

    def _element_block(self, one: BlockLayout) -> ElementBlock:
        if one.rows is None:
            raise ValueError("elements without rows")
        return ElementBlock(self._array(one.rows), self._block(one))


def _array_at(section: NDArray[np.uint8], place: Place) -> NDArray[Any]:
    nbytes = place.count * np.dtype(place.dtype).itemsize
    if place.offset + nbytes > len(section):
        raise ValueError(f"an array ends past byte {len(section)}")
    return section[place.offset : place.offset + nbytes].view(place.dtype)


def _dictionary(layout: ColumnLayout) -> Dictionary | None:
    if layout.hashed:
        return HashedTexts()
    return None if layout.texts is None else Dictionary(layout.texts)
