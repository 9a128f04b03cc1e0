"""Ground truth on disk, one file per (base, queries, metric, k, what zero vectors are), named by their digest.

    file   := magic "VDBTRUTH", version u32, nq u32, k u32, crc32 u32, digest u8[16],
              row i64[nq * k], distance f32[nq * k]
    crc32 covers rows and distances.

Little-endian. Written to a temporary neighbour, synced and renamed; read back only when everything agrees, else
computed again and overwritten. Any number of processes may share a folder.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .formats import VectorSource

_HEADER = struct.Struct("<8sIIII16s")
_MAGIC = b"VDBTRUTH"
_VERSION = 1
digest_chunk_bytes = 8 << 20

Pair = tuple[NDArray[np.int64], NDArray[np.float32]]


def cache_folder(of: str = "truth") -> Path:
    """$XDG_CACHE_HOME/vecdb/OF, or ~/.cache/vecdb/OF."""
    root = os.environ.get("XDG_CACHE_HOME")
    return Path(root if root else Path.home() / ".cache") / "vecdb" / of


def content_digest(
    base: NDArray[Any] | VectorSource, queries: NDArray[Any], metric: str, k: int, zero_vectors: str = "refuse"
) -> bytes:
    """16 bytes that identify values, shapes and dtypes of base and queries, the metric, k and what zero vectors are."""
    digest = hashlib.blake2b(digest_size=16)
    digest.update(f"{_VERSION} {metric} {k}{'' if zero_vectors == 'refuse' else f' {zero_vectors}'}".encode())
    for part in (base, queries):
        dtype = np.dtype(part.dtype).newbyteorder("<")
        digest.update(f" {part.shape} {dtype.str} ".encode())
        rows = max(1, digest_chunk_bytes // max(1, dtype.itemsize * part.shape[1]))
        for start in range(0, part.shape[0], rows):
            digest.update(np.ascontiguousarray(part[start : start + rows], dtype).view(np.uint8).data)
    return digest.digest()


class TruthCache:
    """A folder of truth files. If it cannot be written, truth is computed again each time."""

    def __init__(self, folder: str | os.PathLike[str] | None = None) -> None:
        self.folder = cache_folder() if folder is None else Path(folder)

    def path(self, key: bytes) -> Path:
        return self.folder / f"{key.hex()}.truth"

    def get(self, key: bytes, nq: int, k: int) -> Pair | None:
        """(int64[nq, k], float32[nq, k]) if the file is there and whole, else None."""
        try:
            raw = self.path(key).read_bytes()
        except OSError:
            return None
        if len(raw) != _HEADER.size + nq * k * 12:
            return None
        magic, version, stored_nq, stored_k, crc, digest = _HEADER.unpack_from(raw)
        body = memoryview(raw)[_HEADER.size :]
        if (magic, version, stored_nq, stored_k, digest) != (_MAGIC, _VERSION, nq, k, key) or zlib.crc32(body) != crc:
            return None
        ids = np.frombuffer(body, "<i8", nq * k).astype(np.int64).reshape(nq, k)
        return ids, np.frombuffer(body, "<f4", nq * k, nq * k * 8).astype(np.float32).reshape(nq, k)

    def put(self, key: bytes, ids: NDArray[np.int64], distances: NDArray[np.float32]) -> None:
        """Store truth for `key`, atomically."""
        body = ids.astype("<i8").tobytes() + distances.astype("<f4").tobytes()
        header = _HEADER.pack(_MAGIC, _VERSION, *ids.shape, zlib.crc32(body), key)
        part = self.path(key).with_suffix(f".part-{os.getpid()}")
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            with open(part, "wb") as handle:
                handle.write(header + body)
                handle.flush()
                os.fsync(handle.fileno())
            os.replace(part, self.path(key))
        except OSError:
            with contextlib.suppress(OSError):
                part.unlink(missing_ok=True)
