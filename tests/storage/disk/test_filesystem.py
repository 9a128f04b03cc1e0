"""Goal: the seam to the system keeps its word: whole writes, old file or new, memory that costs nothing, one writer."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from vecdb.errors import Locked, Unavailable
from vecdb.storage.disk import filesystem, mapped_memory


def test_a_short_write_is_gone_on_with(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real, lengths = os.pwrite, iter([1, 2, 3, 0, 7])

    def short(fd: int, data: Any, offset: int) -> int:
        return real(fd, memoryview(data)[: next(lengths, 1000)], offset)

    monkeypatch.setattr(os, "pwrite", short)
    fd = filesystem.open_append(tmp_path / "f", create=True)
    filesystem.pwrite(fd, np.arange(100, dtype=np.uint8), 5)
    filesystem.close(fd)
    assert (tmp_path / "f").read_bytes() == bytes(5) + bytes(range(100))


def test_a_short_read_is_gone_on_with_to_the_end_of_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "f").write_bytes(bytes(range(50)))
    real = os.pread
    monkeypatch.setattr(os, "pread", lambda fd, length, offset: real(fd, min(length, 7), offset))
    fd = filesystem.open_read(tmp_path / "f")
    assert filesystem.pread(fd, 20, 10) == bytes(range(10, 30))
    assert filesystem.pread(fd, 100, 40) == bytes(range(40, 50))
    filesystem.close(fd)


@pytest.mark.parametrize("failing", ["pwrite", "fsync", "replace"])
@pytest.mark.parametrize("nth", [1, 2])
def test_an_atomic_write_that_fails_leaves_the_old_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, failing: str, nth: int
) -> None:
    path = tmp_path / "f"
    filesystem.write_atomic(path, [b"old"])
    real, calls = getattr(os, failing), 0

    def fail(*arguments: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls == nth:
            raise OSError(errno.EIO, "injected")
        return real(*arguments)

    monkeypatch.setattr(os, failing, fail)
    if failing == "replace" and nth == 2:
        assert filesystem.write_atomic(path, [b"ne", b"w"]) == 3
        assert path.read_bytes() == b"new"
        return
    with pytest.raises(OSError, match="injected"):
        filesystem.write_atomic(path, [b"ne", b"w"])
    # the second fsync is that of the folder: the new file is in its place, whole
    assert path.read_bytes() == (b"new" if (failing, nth) == ("fsync", 2) else b"old")


def test_an_atomic_write_syncs_the_file_before_it_takes_its_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    order: list[str] = []
    for name in ("fsync", "replace"):
        real = getattr(os, name)
        monkeypatch.setattr(os, name, lambda *a, real=real, name=name: (order.append(name), real(*a))[1])
    filesystem.write_atomic(tmp_path / "f", [b"x"])
    assert order == ["fsync", "replace", "fsync"]
    order.clear()
    filesystem.write_atomic(tmp_path / "f", [b"x"], sync=False)
    assert order == ["replace"]


def test_reserved_memory_is_zero_aligned_and_costs_nothing_until_touched() -> None:
    def resident() -> int:
        return int(Path("/proc/self/statm").read_text().split()[1]) * 4096

    before = resident()
    array = mapped_memory.reserve_memory((1 << 30, 8), np.uint64)  # 64 GiB
    assert array.shape == (1 << 30, 8) and array.ctypes.data % 64 == 0
    assert array[1 << 29, 3] == 0
    array[5, 5] = 7
    assert array[5].tolist() == [0, 0, 0, 0, 0, 7, 0, 0]
    assert resident() - before < 16 << 20
    assert mapped_memory.reserve_memory(0, np.int32).shape == (0,)


def test_a_mapping_past_the_end_shows_what_is_appended_later(tmp_path: Path) -> None:
    fd = filesystem.open_append(tmp_path / "f", create=True)
    filesystem.pwrite(fd, b"abc", 0)
    mapped = mapped_memory.map_reserved(fd, 1 << 30)
    assert len(mapped) == 1 << 30 and mapped[:3].tobytes() == b"abc"
    filesystem.pwrite(fd, b"x" * 10_000, 3)
    assert mapped[3:10_003].tobytes() == b"x" * 10_000
    with pytest.raises(ValueError, match="read-only"):
        mapped[0] = 1
    part = mapped[4:8]
    del mapped
    filesystem.close(fd)
    assert part.tobytes() == b"xxxx", "a view keeps the mapping alive"


def test_an_empty_file_maps_to_nothing(tmp_path: Path) -> None:
    (tmp_path / "f").write_bytes(b"")
    assert len(mapped_memory.map_readonly(tmp_path / "f")) == 0


def test_creating_a_file_that_exists_fails(tmp_path: Path) -> None:
    (tmp_path / "f").write_bytes(b"x")
    with pytest.raises(FileExistsError):
        filesystem.open_append(tmp_path / "f", create=True)


def test_a_lock_names_its_owner_and_goes_with_its_descriptor(tmp_path: Path) -> None:
    fd = filesystem.lock_directory(tmp_path)
    with pytest.raises(Locked, match=f"open in this process \\({os.getpid()}\\)"):
        filesystem.lock_directory(tmp_path)
    code = "import sys, pathlib; from vecdb.storage.disk import filesystem\n"
    code += "filesystem.lock_directory(pathlib.Path(sys.argv[1]))"
    path = os.pathsep.join(sys.path)
    other = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path)],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": path},
    )
    assert other.returncode == 1 and f"open for writing by process {os.getpid()}" in other.stderr
    filesystem.close(fd)
    filesystem.close(filesystem.lock_directory(tmp_path))


def test_a_copy_of_a_source_that_ends_early_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"12345")
    source, target = filesystem.open_read(tmp_path / "a"), filesystem.open_append(tmp_path / "b", create=True)
    with pytest.raises(OSError, match="ended at byte 5, expected 6"):
        filesystem.copy_range(source, target, 6)
    filesystem.copy_range(source, target, 4)
    assert (tmp_path / "b").read_bytes()[:4] == b"1234"
    filesystem.close(source)
    filesystem.close(target)


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO])
def test_errors_of_the_system_say_what_was_being_done(code: int) -> None:
    error = filesystem.to_vecdb_error(OSError(code, os.strerror(code)), "writing 3 vectors")
    assert isinstance(error, Unavailable) and "writing 3 vectors" in str(error) and "nothing was written" in str(error)
    assert ("no space" in str(error)) == (code != errno.EIO)


def test_disk_bytes_counts_blocks_not_lengths(tmp_path: Path) -> None:
    with open(tmp_path / "sparse", "wb") as file:
        file.truncate(1 << 30)
    (tmp_path / "deep").mkdir()
    (tmp_path / "deep" / "f").write_bytes(bytes(8192))
    assert 8192 <= filesystem.disk_bytes(tmp_path) < 1 << 20
    assert [file.name for file in filesystem.walk_files(tmp_path)] == ["sparse", "f"]
    filesystem.remove(tmp_path / "never there")
    assert filesystem.list_dir(tmp_path / "never there") == []
