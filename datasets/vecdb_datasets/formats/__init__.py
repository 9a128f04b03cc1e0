"""Files of vectors and directories of other databases, opened by their content and read by slices; writers of files.

inputs.py     what a path leads to: a file, a pipe, a packed file
detect.py     which of `FORMATS` a file is
source.py     the contract of readers
many.py       several files read as one
beside.py     what an export wrote beside a file
arrays/       readers of plain arrays
tables/       readers of tables
foreign/      readers of files and directories of other databases and libraries
records/      writers of files of whole collections
writers.py    writers of files of vectors
headers.py    the arithmetic of formats without a magic number
optional.py   packages that some formats need
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence

from vecdb import InvalidArgument, NotFound
from vecdb_datasets.formats.detect import DIRECTORIES, FORMATS, detect, is_document, sniff
from vecdb_datasets.formats.headers import BINS, VECS

from .arrays.archives import open_npz, open_safetensors
from .arrays.hdf5 import Hdf5Source
from .arrays.memory_mapped import open_bin, open_npy, open_vecs
from .beside import facts_beside, with_what_lies_beside
from .foreign import recognise
from .foreign.chroma import ChromaSource
from .foreign.copy_text import CopySource
from .foreign.faiss_index import FaissSource
from .foreign.lance import LanceSource
from .foreign.qdrant import QdrantSource
from .foreign.qdrant_snapshot import SnapshotSource
from .foreign.usearch_index import UsearchSource
from .inputs import STDIN, InputFile
from .many import ManySource, expand
from .records.facts import CollectionFacts
from .records.pick import create_records
from .source import VectorSource
from .tables.arrow_ipc import ArrowIpcSource
from .tables.columns import Choice
from .tables.csv_file import CsvSource
from .tables.json_document import write_lines
from .tables.jsonl import JsonlSource
from .tables.parquet import ParquetSource
from .tables.words import BinaryWordSource, WordSource
from .writers import VectorWriter, create_vectors, write_vectors

_TABLES = ("parquet", "arrow", "csv", "jsonl", "json", "copy")
_NAMED_ARRAYS = ("hdf5", "npz", "safetensors")


def open_vectors(
    path: str | os.PathLike[str] | Sequence[str | os.PathLike[str]],
    *,
    format: str | None = None,
    key: str | None = None,
    vector_column: str | None = None,
    id_column: str | None = None,
    new_ids: bool = False,
    columns: Sequence[str] | None = None,
    encoding: str | None = None,
    check_finite: bool = True,
    lenient: bool = False,
) -> VectorSource:
    """Open a file of vectors, its format sniffed from the content first and the extension second.

    Parameters
    ----------
    path : path, "-" for standard input, a pattern such as "part-*.parquet", or a sequence of them, read one after the
        other. What is packed (gzip, bzip2, xz, zstd, lz4, a zip of one file) is unpacked into a temporary file. A
        directory of Chroma, of Qdrant's local mode, of LanceDB or a Lance table is read as a whole.
    format : one of `FORMATS`, to settle what the content leaves open.
    key : HDF5, npz, safetensors: the array to read; a usual name or the only matrix when None. Chroma, Qdrant, LanceDB,
        pg_dump: the collection or table to read; the only one when None.
    vector_column, id_column : tables, when names and types do not tell; a path such as "data.0.embedding" leads into
        nested values, and "f*" is f0, f1, f2 ... as one vector. Named arrays: `id_column` is an array beside `key`.
        Qdrant: `vector_column` is one of several named vectors.
    new_ids : take no column as the id.
    columns : tables: the fields to read; all others when None.
    encoding : of a text that is not UTF-8.
    check_finite : refuse NaN and infinity when a slice is read.
    lenient : rows that cannot be read are zeros, told by `VectorSource.bad_rows`, in place of an error.

    Returns
    -------
    VectorSource
        A context manager.

    Raises
    ------
    NotFound
        No such file, dataset or column.
    InvalidArgument
        Unknown or ambiguous content, no vector column, an argument that the format has no use for.
    Corruption
        Truncated, wrong size, damaged header.
    Unavailable
        The format needs a package of an extra, which the message names: [data], [chroma], [lance], [faiss], [usearch].
    """
    if format is not None and format not in FORMATS:
        raise InvalidArgument(f"format {format!r} is not one of {', '.join(FORMATS)}")
    choice = Choice(vector_column, id_column, new_ids, None if columns is None else tuple(columns))

    def open_one(name: str) -> VectorSource:
        return _open(name, format, key, choice, encoding, check_finite, lenient)

    given = [path] if isinstance(path, str | os.PathLike) else list(path)
    names = expand([os.fspath(one) for one in given])
    source = open_one(names[0]) if len(names) == 1 else ManySource(names, open_one)
    source.lenient = lenient
    return source


def _open(
    name: str,
    format: str | None,
    key: str | None,
    choice: Choice,
    encoding: str | None,
    check_finite: bool,
    lenient: bool,
) -> VectorSource:
    if format is not None and name != STDIN and not os.path.exists(name):
        raise NotFound(f"{name}: no such file")
    if os.path.isdir(name):
        found = recognise.directory(name)
        if found is not None:
            recognise.require_readable(name, found)
            return _open_directory(found.format, name, format, key, choice, encoding, check_finite)
    file = InputFile(name, encoding)
    try:
        kind = format or detect(file)
        if kind == "jsonl" and format is not None and is_document(file):
            kind = "json"  # rows of JSON all the same
        if kind in DIRECTORIES:
            raise InvalidArgument(f"{name}: format {kind!r} is a directory, this is a file")
        if key is not None and kind not in (*_NAMED_ARRAYS, "copy"):
            raise InvalidArgument(f"{name}: key={key!r} is for HDF5, npz and safetensors files, this one is {kind}")
        if choice.vector is not None and kind not in (*_TABLES, "snapshot"):
            raise InvalidArgument(f"{name}: vector_column and id_column are for tables, this one is {kind}")
        if choice.id is not None and kind not in (*_TABLES, *_NAMED_ARRAYS):
            raise InvalidArgument(f"{name}: vector_column and id_column are for tables, this one is {kind}")
        facts = facts_beside(name) if kind not in ("parquet", "arrow", "jsonl", "json") else None
        source = _reader(kind, file, key, choice, check_finite, lenient, facts)
        return source if kind in _TABLES else with_what_lies_beside(source, facts, choice)
    except BaseException:
        file.close()
        raise


def _open_directory(
    kind: str, name: str, format: str | None, key: str | None, choice: Choice, encoding: str | None, check_finite: bool
) -> VectorSource:
    if format not in (None, kind):
        raise InvalidArgument(f"{name} is of format {kind}, not {format}")
    if encoding is not None:
        raise InvalidArgument(f"{name}: encoding={encoding!r} is for texts")
    if choice.vector is not None and kind == "chroma":
        raise InvalidArgument(f"{name}: vector_column is for tables, this one is {kind}")
    if kind == "chroma":
        return ChromaSource(name, check_finite, key, choice)
    opener = QdrantSource if kind == "qdrant" else LanceSource
    return opener(name, check_finite, key, choice)


def _reader(
    kind: str,
    file: InputFile,
    key: str | None,
    choice: Choice,
    check_finite: bool,
    lenient: bool,
    facts: CollectionFacts | None,
) -> VectorSource:
    if kind in VECS:
        return open_vecs(file, kind, check_finite)
    if kind in BINS:
        return open_bin(file, kind, check_finite)
    if kind == "json":
        file.rewrite(lambda out: write_lines(file.path, file.name, out))
        return JsonlSource(file, check_finite, choice, numbered=False)
    readers: dict[str, Callable[[], VectorSource]] = {
        "npy": lambda: open_npy(file, check_finite),
        "npz": lambda: open_npz(file, check_finite, key, choice.id, choice.new_ids),
        "safetensors": lambda: open_safetensors(file, check_finite, key, choice.id, choice.new_ids),
        "hdf5": lambda: Hdf5Source(file, check_finite, key, choice.id, choice.new_ids),
        "parquet": lambda: ParquetSource(file, check_finite, choice),
        "arrow": lambda: ArrowIpcSource(file, check_finite, choice),
        "csv": lambda: CsvSource(file, check_finite, choice, lenient=lenient, facts=facts),
        "copy": lambda: CopySource(file, check_finite, choice, key, lenient=lenient),
        "faiss": lambda: FaissSource(file.path, check_finite, choice),
        "snapshot": lambda: SnapshotSource(file, check_finite, choice),
        "usearch": lambda: UsearchSource(file.path, check_finite, choice),
        "jsonl": lambda: JsonlSource(file, check_finite, choice),
        "words": lambda: WordSource(file, check_finite),
        "word2vec": lambda: BinaryWordSource(file, check_finite),
    }
    return readers[kind]()


__all__ = [
    "CollectionFacts",
    "FORMATS",
    "VectorSource",
    "VectorWriter",
    "create_records",
    "create_vectors",
    "open_vectors",
    "sniff",
    "write_vectors",
]
