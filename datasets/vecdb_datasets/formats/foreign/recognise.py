"""What is this directory, or this file? By the names in a directory and by the first bytes of a file; nothing of
another package is needed to say so, and nothing is changed.
"""

from __future__ import annotations

import json
import os
import re
import tarfile
from dataclasses import dataclass

from vecdb import InvalidArgument, NotFound

config_bytes_max = 16 << 20


@dataclass(frozen=True, slots=True)
class Foreign:
    """format : one of `FORMATS` where it can be read, else "".   what : in words.   advice : what to do if not."""

    format: str
    what: str
    advice: str = ""


CHROMA = Foreign("chroma", "a Chroma directory")
QDRANT = Foreign("qdrant", "a directory of Qdrant's local mode")
LANCE = Foreign("lance", "a Lance table")
LANCEDB = Foreign("lance", "a LanceDB database")
FAISS = Foreign("faiss", "a faiss index")
USEARCH = Foreign("usearch", "a usearch index")
_OLD_CHROMA = Foreign(
    "", "a directory of a Chroma before 0.4", "bring it to Chroma 1.x with the tool chroma-migrate, then import it"
)
_QDRANT_SERVER = Foreign(
    "", "the storage of a Qdrant server", "copy its collections with qdrant-client's migrate() into a local directory"
)
_FAISS_FOLDER = Foreign(
    "", "a folder that LangChain saved a faiss index in", "name the file index.faiss in it; index.pkl is never read"
)
VECDB = Foreign("", "a vecdb database", "`vecdb export` writes a collection of it to a file, which can be imported")

_SNAPSHOT = Foreign("snapshot", "a snapshot of Qdrant")
_TAR = Foreign("", "a tar archive", "unpack it and name its files")
_FILES = (
    (b"PGDMP", "an archive of pg_dump", "turn it into text with pg_restore --data-only -t TABLE -f OUT.sql"),
    (b"PGCOPY\n\xff\r\n\x00", "PostgreSQL's COPY in binary", "write it as text or csv: COPY t TO STDOUT"),
)
_FAISS_CODES = re.compile(rb"I[A-Za-z][A-Za-z0-9]{2}")


def directory(path: str) -> Foreign | None:
    """What a directory is; None where nobody knows. Raises NotFound where it cannot be listed."""
    try:
        names = set(os.listdir(path))
    except OSError as error:
        raise NotFound(f"{path} cannot be read ({error.strerror})") from None
    if "manifest.json" in names and "lmdb" in names:
        return VECDB
    if "chroma.sqlite3" in names:
        return CHROMA
    if "chroma-embeddings.parquet" in names:
        return _OLD_CHROMA
    if "meta.json" in names and "collections" in _json_keys(os.path.join(path, "meta.json")):
        return QDRANT
    if "_versions" in names and ("data" in names or "_transactions" in names):
        return LANCE
    if {"collections", "raft_state.json"} <= names:
        return _QDRANT_SERVER
    if {"index.faiss", "index.pkl"} <= names:
        return _FAISS_FOLDER
    return LANCEDB if any(name.endswith(".lance") for name in names) else None


def tables_of(path: str) -> list[str]:
    """Names of the tables in a LanceDB database."""
    return sorted(name.removesuffix(".lance") for name in os.listdir(path) if name.endswith(".lance"))


def file(path: str, head: bytes, size: int) -> Foreign | None:
    """What a file of another library is, by its first bytes; None for those that are none."""
    if head[257:262] == b"ustar":
        return _tar(path)
    for magic, what, advice in _FILES:
        if head.startswith(magic):
            return Foreign("", what, advice)
    if head.startswith(b"SQLite format 3\0"):
        return _sqlite(path)
    if re.match(rb"\x80[\x02-\x05][\x95}\]c\x8c(]", head):
        return Foreign(
            "", "a Python pickle", "vecdb reads none, for a pickle runs what it says: save the arrays instead"
        )
    if _is_faiss(head):
        return FAISS if head[1:2] != b"B" else Foreign("", "a faiss index of bits", "vecdb stores vectors of numbers")
    return USEARCH if _is_usearch(path, head, size) else None


def _tar(path: str) -> Foreign:
    try:
        with tarfile.open(path) as archive:
            names = []
            for member in archive:
                names.append(member.name.removeprefix("./"))
                if len(names) == 1_000:
                    break
    except (tarfile.TarError, OSError, EOFError):
        return _TAR
    of_qdrant = any(re.match(r"([0-9]+/)?segments(/|$)", name) for name in names)
    return _SNAPSHOT if of_qdrant else _TAR


def require_readable(path: str, found: Foreign) -> None:
    """Raise InvalidArgument for what is known and cannot be read."""
    if not found.format:
        raise InvalidArgument(f"{path} is {found.what}: {found.advice}")


def describe(path: str) -> str | None:
    """ "PATH is a Chroma directory", where a path leads to what others made and `open_vectors` may read; else None."""
    found = None
    if os.path.isdir(path):
        found = directory(path)
    elif os.path.isfile(path):
        with open(path, "rb") as handle:
            head = handle.read(4_096)
        found = file(path, head, os.path.getsize(path))
    return None if found is None or not found.format else f"{path} is {found.what}"


def _sqlite(path: str) -> Foreign:
    name = os.path.basename(path)
    if name == "chroma.sqlite3":
        return Foreign("", "a file of a Chroma directory", "name the directory that it lies in")
    if name == "storage.sqlite":
        return Foreign("", "a file of Qdrant's local mode", "name the directory in which meta.json lies")
    return Foreign("", "an SQLite database", "write its table as CSV or JSONL")


def _is_faiss(head: bytes) -> bool:
    """Four letters of a kind of index, its dim and its count, as faiss writes them."""
    if len(head) < 16 or not _FAISS_CODES.match(head):
        return False
    dim, count = int.from_bytes(head[4:8], "little"), int.from_bytes(head[8:16], "little")
    return 1 <= dim < 1 << 24 and count < 1 << 48


def _is_usearch(path: str, head: bytes, size: int) -> bool:
    """A matrix with its shape before it in 32 or 64 bits, or none; then the word "usearch"."""
    if head.startswith(b"usearch"):
        return True
    for width in (4, 8):
        rows, columns = (int.from_bytes(head[at : at + width], "little") for at in (0, width))
        end = 2 * width + rows * columns
        if rows and columns and end + 7 <= size:
            with open(path, "rb") as handle:
                handle.seek(end)
                if handle.read(7) == b"usearch":
                    return True
    return False


def _json_keys(path: str) -> set[str]:
    try:
        if os.path.getsize(path) > config_bytes_max:
            return set()
        with open(path, encoding="utf-8") as handle:
            found = json.load(handle)
    except (OSError, ValueError, RecursionError):
        return set()
    return set(found) if isinstance(found, dict) else set()
