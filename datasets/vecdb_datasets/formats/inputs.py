"""InputFile: a path as bytes that can be read at any place.

    a plain file                                 as it is
    "-" (standard input), a pipe, a device       copied to a temporary file
    gzip, bzip2, xz, zstd, lz4, zip of one file  unpacked into one
    UTF-16 with its mark, another `encoding`     written into one as UTF-8; so are lines that end with CR alone

Temporary files lie in the folder that TMPDIR names, and go when the input is closed.
"""

from __future__ import annotations

import bz2
import codecs
import gzip
import io
import lzma
import os
import re
import shutil
import stat
import sys
import tempfile
import zipfile
import zlib
from collections.abc import Callable
from typing import IO, Any

from vecdb import Corruption, InvalidArgument, NotFound

from .optional import optional_module

STDIN = "-"
copy_bytes = 1 << 20
_ZIP = b"PK\x03\x04"
_PACKED = (
    (b"\x1f\x8b", "gzip"),
    (b"BZh", "bzip2"),
    (b"\xfd7zXZ\x00", "xz"),
    (b"\x28\xb5\x2f\xfd", "zstd"),
    (b"\x04\x22\x4d\x18", "lz4"),
)
_SUFFIXES = (".gz", ".bz2", ".xz", ".zst", ".lz4", ".zip")


class InputFile:
    """name : what messages call it.   path : where its bytes lie.   hint : its name without `.gz` and the like."""

    def __init__(self, name: str, encoding: str | None = None) -> None:
        self.name = name
        self.path = name
        self.hint = name
        self._folder: tempfile.TemporaryDirectory[str] | None = None
        try:
            self._settle(encoding)
        except BaseException:
            self.close()
            raise

    def _settle(self, encoding: str | None) -> None:
        if self.name == STDIN:
            if sys.stdin is None:
                raise InvalidArgument("standard input is closed: name a file")
            self._copy(lambda: sys.stdin.buffer)
        else:
            self._look()
        packed = _packing(self.path)
        if packed == "zip":
            self._unzip()
        elif packed:
            self._unpack(packed)
        if any(self.hint.lower().endswith(suffix) for suffix in _SUFFIXES):
            self.hint = os.path.splitext(self.hint)[0]
        if encoding is None and _head(self.path)[:2] in (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE):
            encoding = "utf-16"
        if encoding is not None or _ends_lines_with_cr(_head(self.path)):
            self._transcode(encoding or "utf-8")

    @classmethod
    def folder(cls, name: str) -> InputFile:
        """A directory as an input, for readers that know what lies in it."""
        made = cls.__new__(cls)
        made.name = made.path = made.hint = name
        made._folder = None
        return made

    def member(self, opened: Callable[[], Any]) -> InputFile:
        """This input, with what a stream holds in place of its bytes."""
        self._copy(opened)
        return self

    def rewrite(self, write: Callable[[str], None]) -> InputFile:
        """This input, with what `write(path)` writes in place of its bytes."""
        path = self._fresh()
        write(path)
        self._replace(path)
        return self

    def _look(self) -> None:
        try:
            mode = os.stat(self.name).st_mode
        except (FileNotFoundError, NotADirectoryError):
            raise NotFound(f"{self.name}: no such file") from None
        except ValueError as error:
            raise InvalidArgument(f"{self.name!r} is no path ({error})") from None
        if stat.S_ISDIR(mode):
            raise InvalidArgument(
                f"{self.name} is a directory: name its files, such as '{self.name}/*.parquet'; it is none of Chroma, "
                "Qdrant or Lance, which are imported as a whole"
            )
        if stat.S_ISREG(mode):
            return
        if stat.S_ISSOCK(mode):
            raise InvalidArgument(f"{self.name} is a socket, expected a file or a pipe")
        self._copy(lambda: open(self.name, "rb"))  # noqa: SIM115 - closed by _copy()

    def _fresh(self) -> str:
        if self._folder is None:
            self._folder = tempfile.TemporaryDirectory(prefix="vecdb-input-")
        descriptor, path = tempfile.mkstemp(dir=self._folder.name)
        os.close(descriptor)
        return path

    def _copy(self, opened: Callable[[], Any]) -> None:
        """Make what a stream holds the bytes of this input."""
        path = self._fresh()
        with opened() as source, open(path, "wb") as sink:
            shutil.copyfileobj(source, sink, copy_bytes)
        self._replace(path)

    def _replace(self, path: str) -> None:
        if self.path != self.name:
            os.unlink(self.path)
        self.path = path

    def _unpack(self, kind: str) -> None:
        openers: dict[str, Callable[[], Any]] = {
            "gzip": lambda: gzip.open(self.path, "rb"),  # noqa: SIM115 - each is closed by _copy()
            "bzip2": lambda: bz2.open(self.path, "rb"),  # noqa: SIM115
            "xz": lambda: lzma.open(self.path, "rb"),  # noqa: SIM115
            "zstd": lambda: _arrow_stream(self.path, "zstd"),
            "lz4": lambda: _arrow_stream(self.path, "lz4"),
        }
        try:
            self._copy(openers[kind])
        except gzip.BadGzipFile as error:
            raise InvalidArgument(f"{self.name}: it begins like gzip and is none ({error})") from error
        except (EOFError, zlib.error, lzma.LZMAError) as error:
            raise Corruption(f"{self.name}: {kind} content that cannot be unpacked: {error}") from error
        except OSError as error:
            if error.errno is not None:  # of the disk
                raise
            raise Corruption(f"{self.name}: {kind} content that cannot be unpacked: {error}") from error

    def _unzip(self) -> None:
        try:
            with zipfile.ZipFile(self.path) as archive:
                names = [name for name in archive.namelist() if not name.endswith("/")]
                if names and all(name.endswith(".npy") for name in names):
                    return  # an npz, which is read as it is
                if len(names) != 1:
                    raise InvalidArgument(f"{self.name}: a zip of {len(names)} files: unzip it and name its files")
                self._copy(lambda: archive.open(names[0]))
                self.hint = names[0]
        except (zipfile.BadZipFile, NotImplementedError, RuntimeError, EOFError, zlib.error) as error:
            raise Corruption(f"{self.name}: zip content that cannot be unpacked: {error}") from error

    def _transcode(self, encoding: str) -> None:
        try:
            codecs.lookup(encoding)
        except LookupError:
            raise InvalidArgument(f"encoding {encoding!r} is unknown: expected one such as latin-1 or utf-16") from None
        path, line = self._fresh(), 0
        try:
            with open(self.path, encoding=encoding, newline=None) as source, open(path, "w", encoding="utf-8") as sink:
                while text := source.readline(copy_bytes):
                    sink.write(text)
                    line += text.endswith("\n")
        except UnicodeError as error:
            raise Corruption(f"{self.name}: not {encoding} soon after line {line} ({error})") from error
        self._replace(path)

    def close(self) -> None:
        """Remove the temporary files."""
        if self._folder is not None:
            self._folder.cleanup()
            self._folder = None


def _head(path: str, count: int = 4_096) -> bytes:
    with open(path, "rb") as handle:
        return handle.read(count)


def _packing(path: str) -> str | None:
    head = _head(path, 8)
    if head.startswith(_ZIP):
        return "zip"
    return next((name for magic, name in _PACKED if head.startswith(magic)), None)


def _ends_lines_with_cr(head: bytes) -> bool:
    """Whether this is text whose lines end with CR alone, as old spreadsheets write it."""
    return bool(re.match(rb"[^\r\n\x00-\x08]+\r[^\n]", head)) and b"\n" not in head and b"\x00" not in head


def _arrow_stream(path: str, codec: str) -> IO[bytes]:
    arrow = optional_module("pyarrow", f"unpacking {codec}")
    stream = arrow.CompressedInputStream(arrow.OSFile(path, "rb"), codec)
    return io.BufferedReader(stream)
