"""Which format is this file? Content decides; the extension only chooses among formats that the content allows.

magic bytes            npy, npz, hdf5, parquet, arrow; what is packed is unpacked before (inputs.py)
of other libraries     faiss, usearch; what is known and cannot be read is named (foreign/recognise.py)
a header               safetensors, binary word2vec
printable text         jsonl when the first line is an object, json when it is the beginning of one or an array, words
                           when every line is a word with numbers, else csv
header arithmetic      an fvecs-like file is whole records that repeat one dim; an fbin-like one is
                           8 + n * dim * width bytes
several fit            the extension; else 4-byte values that are plainly integers or floats; else InvalidArgument
"""

from __future__ import annotations

import os
import re

import numpy as np

from vecdb import Corruption, InvalidArgument
from vecdb_datasets.formats.headers import BINS, VECS, bin_file_bytes, file_dim_max, truth_file_bytes, vecs_record_bytes

from .foreign import recognise
from .foreign.copy_text import looks_like_copy
from .inputs import InputFile
from .tables.words import looks_like_binary_words, looks_like_words

FORMATS: tuple[str, ...] = (
    *VECS, *BINS, "npy", "npz", "safetensors", "hdf5", "parquet", "arrow", "csv", "jsonl", "json", "words", "word2vec",
    "faiss", "usearch", "copy", "snapshot", "chroma", "qdrant", "lance",
)  # fmt: skip
DIRECTORIES = ("chroma", "qdrant", "lance")
EXTENSIONS: dict[str, str] = {
    **{f".{name}": name for name in FORMATS if name not in DIRECTORIES},
    ".h5": "hdf5",
    ".hdf": "hdf5",
    ".pq": "parquet",
    ".tsv": "csv",
    ".ndjson": "jsonl",
    ".feather": "arrow",
    ".ipc": "arrow",
    ".arrows": "arrow",
    ".vec": "words",
}
_MAGIC = (
    (b"\x93NUMPY", "npy"),
    (b"\x89HDF\r\n\x1a\n", "hdf5"),
    (b"PAR1", "parquet"),
    (b"PK\x03\x04", "npz"),
    (b"ARROW1", "arrow"),
    (b"\xff\xff\xff\xff", "arrow"),
)
_TWINS = ({"fvecs", "ivecs"}, {"fbin", "ibin"})  # the same arithmetic; their values decide

head_bytes = 1 << 16
sampled_rows = 64


def format_of_extension(path: str) -> str | None:
    """The format that the file's name claims, or None."""
    return EXTENSIONS.get(os.path.splitext(path)[1].lower())


def sniff(path: str) -> str:
    """Name the format of a file, one of `FORMATS`.

    Raises
    ------
    NotFound
        No such file.
    Corruption
        The extension names a format, and the file's size contradicts its header.
    InvalidArgument
        Unknown, compressed, or several formats fit; the message lists them.
    """
    file = InputFile(path)
    try:
        return detect(file)
    finally:
        file.close()


def detect(file: InputFile) -> str:
    """Name the format of an input; see `sniff`."""
    path, name = file.path, file.name
    size = os.path.getsize(path)
    claimed = format_of_extension(file.hint)
    with open(path, "rb") as handle:
        head = handle.read(head_bytes)
    if not head:
        if claimed in ("csv", "jsonl", "copy"):
            return claimed
        raise Corruption(f"{name}: 0 bytes, expected vectors")
    for magic, format in _MAGIC:
        if head.startswith(magic):
            return format
    if head.startswith(b"FEA1"):
        raise InvalidArgument(f"{name}: Feather of version 1, which pyarrow no longer writes: write it with version 2")
    foreign = recognise.file(path, head, size)
    if foreign is not None:
        recognise.require_readable(name, foreign)
        return foreign.format
    if claimed == "copy" or looks_like_copy(head):
        return "copy"
    if _is_safetensors(head, size):
        return "safetensors"
    if looks_like_binary_words(head):
        return "word2vec"
    fitting = _fitting(path, size)
    if claimed in fitting:
        return str(claimed)
    text = _text_format(head, is_json=claimed == "json")
    if text and (claimed not in {*VECS, *BINS} or not fitting):
        return text
    if claimed in ("csv", "jsonl", "json", "words", "copy"):
        return claimed  # its reader says at which line it is no such text
    family = VECS if claimed in VECS else BINS if claimed in BINS else {}
    if claimed and (not fitting or family.keys() & set(fitting)):
        also = f" (its size would suit {' or '.join(fitting)})" if fitting else ""
        raise Corruption(f"{name}: not a whole {claimed} file: {_arithmetic(path, size, claimed)}{also}")
    for twins in _TWINS:
        if set(fitting) == twins:
            return _by_values(path, name, fitting)
    if len(fitting) == 1:
        return fitting[0]
    if fitting:
        raise InvalidArgument(
            f"{name}: {size:,} bytes fit {' and '.join(fitting)} equally well; "
            "say which with format=, or name the file so"
        )
    raise InvalidArgument(
        f"{name}: no known format ({_explain(path, size)}); say which with format=. "
        "If hnswlib saved it, import it with hnswlib=True"
    )


def is_document(file: InputFile) -> bool:
    """Whether a text is one JSON value over all of it, not a value a line."""
    with open(file.path, "rb") as handle:
        return _text_format(handle.read(head_bytes)) == "json"


def _fitting(path: str, size: int) -> list[str]:
    """Every binary format whose arithmetic agrees with this file's size and headers."""
    if size < 5:
        return []
    first, second = _first_words(path)
    found = [name for name in VECS if _vecs_fit(path, size, name, first)]
    if size >= 8 and 1 <= second <= file_dim_max:
        found += [name for name in BINS if bin_file_bytes(name, first, second) == size]
    return found


def _first_words(path: str) -> tuple[int, int]:
    """The first two u32 of a file; 0 for what is not there."""
    words = np.fromfile(path, "<u4", 2).tolist()
    first, second = words + [0] * (2 - len(words))
    return first, second


def _vecs_fit(path: str, size: int, name: str, dim: int) -> bool:
    if not 1 <= dim <= file_dim_max or size % vecs_record_bytes(name, dim):
        return False
    record = vecs_record_bytes(name, dim)
    n = size // record
    with open(path, "rb") as handle:
        for row in np.unique(np.linspace(0, n - 1, sampled_rows).astype(np.int64)):
            handle.seek(int(row) * record)
            if handle.read(4) != dim.to_bytes(4, "little"):
                return False
    return True


def _by_values(path: str, name: str, twins: list[str]) -> str:
    """Floats or integers: small integers read as floats are denormal, ordinary floats read as integers are huge."""
    words = np.fromfile(path, "<i4", 1 << 16)[2:]
    if "ivecs" in twins:
        dim = int(np.fromfile(path, "<i4", 1)[0])
        words = np.delete(words, np.arange(dim - 1, len(words), dim + 1))  # the repeated dims are integers in both
    integers, floats = ("ivecs", "fvecs") if "ivecs" in twins else ("ibin", "fbin")
    magnitude = np.abs(words.astype(np.int64))
    if words.any() and (magnitude < 1 << 23).all():
        return integers
    values = np.abs(words.view("<f4"))
    if words.any() and ((values == 0) | ((values > 1e-30) & (values < 1e30))).all():
        return floats
    raise InvalidArgument(
        f"{name}: the size fits {integers} and {floats}, and the values do not tell which; say which with format="
    )


def _text_format(head: bytes, *, is_json: bool = False) -> str | None:
    """The format of a text. is_json : its name says that it is a document, not a row a line."""
    body = head.removeprefix(b"\xef\xbb\xbf")
    try:
        text = body.decode()
    except UnicodeDecodeError as error:
        if error.start < len(body) - 3:  # not merely a character cut at the end of the head
            return None
        text = body[: error.start].decode()
    if any(ord(c) < 32 and c not in "\t\r\n" for c in text):
        return None
    begin = text.lstrip()
    if begin.startswith("{"):
        return "jsonl" if _first_line_is_whole(text, is_json) else "json"
    if re.match(r"\[\s*[\[{]", begin):
        return "json"
    if re.match(r"\[[^\n]*\][^\S\n]*+(\n\s*+\[|\s*+$)", begin):
        return "jsonl"  # a vector a line
    if looks_like_words(body):
        return "words"
    if re.match(r"\s*[-+]?[0-9.]+(e[-+]?[0-9]+)?( +[-+]?[0-9.]+(e[-+]?[0-9]+)?)+\s*\n", text, re.IGNORECASE):
        return "csv"  # numbers with spaces between, as numpy.savetxt writes them
    lines = "".join(text.split("\n")[:2])  # a header may name one column only
    return "csv" if any(mark in lines for mark in ",;\t|") else None


_HOLDS_ROWS = re.compile(r'\{[^{\[]*"\w+"\s*:\s*\[\s*[\[{]')  # an object whose first list is of objects or of lists
_HOLDS_ROWS_DEEP = re.compile(r'\{[^\[]*"\w+"\s*:\s*\[\s*[\[{]')
_FLAT_LIST = re.compile(r":\s*\[[^\[\]{}]*\]")
_GOES_ON = re.compile(r"\{\s*|\{[^\n]*[,:\[{]\s*")  # a line that ends where a pretty-printed document is broken


def _first_line_is_whole(text: str, is_json: bool) -> bool:
    """Whether the first line is a row by itself, not the beginning of a document, nor a document that holds rows."""
    line, _, rest = text.lstrip().partition("\n")
    if rest.strip():
        return not _GOES_ON.fullmatch(line.rstrip())
    holds_rows = _HOLDS_ROWS_DEEP if is_json else _HOLDS_ROWS
    return not holds_rows.match(_FLAT_LIST.sub(":0", line))


def _is_safetensors(head: bytes, size: int) -> bool:
    length = int.from_bytes(head[:8], "little")
    return 2 <= length <= size - 8 and bool(re.match(rb'\{\s*"', head[8:200]))


def _arithmetic(path: str, size: int, name: str) -> str:
    """What the header of a binary format says the size should be, and the size of the file."""
    if size < 8:
        return f"{size} bytes, too short for a header and a row"
    first, second = _first_words(path)
    if name in BINS:
        expected = bin_file_bytes(name, first, second)
        return (
            f"header says {first:,} x {second:,} {BINS[name].name}, expected {expected:,} bytes, the file has {size:,}"
        )
    if name in VECS and 1 <= first <= file_dim_max:
        record = vecs_record_bytes(name, first)
        if size % record:
            return f"dim {first} makes records of {record:,} bytes, and {size:,} bytes end {size % record:,} into one"
        return f"row 0 says dim {first}, a later row says another"
    return f"the content is something else ({_explain(path, size)})"


def _explain(path: str, size: int) -> str:
    if size < 8:
        return f"{size} bytes"
    first, second = _first_words(path)
    if first and second and size == truth_file_bytes(first, second):
        return f"it looks like ground truth, {first:,} x {second:,} rows then distances: read it with read_truth_file"
    return f"{size:,} bytes; first words {first:,} and {second:,}"
