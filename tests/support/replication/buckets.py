"""What was sent to buckets, and something that happens in the middle of a backup."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from vecdb.replication.bucket import ObjectBucket
from vecdb.replication.folder_bucket import FolderBucket


class Sent:
    """Every object that is written to any bucket of this process: [(key, bytes)]."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.objects: list[tuple[str, int]] = []
        write, put = FolderBucket._write, ObjectBucket._put

        def writing(bucket: Any, key: str, parts: Any, version: Any) -> None:
            whole = b"".join(parts)
            self.objects.append((key, len(whole)))
            write(bucket, key, [whole], version)

        def putting(bucket: Any, key: str, data: bytes, mode: Any) -> str:
            self.objects.append((key, len(data)))
            return put(bucket, key, data, mode)

        monkeypatch.setattr(FolderBucket, "_write", writing)
        monkeypatch.setattr(ObjectBucket, "_put", putting)

    def take(self) -> list[tuple[str, int]]:
        """Those since the last call."""
        taken, self.objects = self.objects, []
        return taken


def bytes_of(objects: list[tuple[str, int]], folder: str = "") -> int:
    return sum(size for key, size in objects if folder in key)


def once_before(monkeypatch: pytest.MonkeyPatch, owner: Any, name: str, what: Callable[[], object]) -> list[bool]:
    """Let something happen before the next call of a method, once. Returns a list that is not empty when it has."""
    method, happened = getattr(owner, name), []

    def calling(*values: Any, **named: Any) -> Any:
        if not happened:
            happened.append(True)
            what()
        return method(*values, **named)

    monkeypatch.setattr(owner, name, calling)
    return happened
