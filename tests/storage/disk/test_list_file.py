"""Goal: extents come back as they were appended; a file that is cut, foreign or changed is refused before it is used,
and no descriptor stays open.
"""

from __future__ import annotations

import gc
import os
import zlib
from pathlib import Path

import numpy as np
import pytest

from vecdb.errors import Corruption
from vecdb.storage.disk import filesystem, list_file, mapped_memory
from vecdb.storage.disk.list_file import PAGE, ListFile

UID = 0x123456789ABCDEF
ENTRY = 24


def some(count: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, count * PAGE, dtype=np.uint8)


def filled(path: Path, count: int = 3) -> np.ndarray:
    made = ListFile.create(path, UID, ENTRY)
    data = some(count)
    made.append(data)
    made.sync()
    made.close()
    return data


def open_files() -> set[str]:
    found = set()
    for name in os.listdir("/proc/self/fd"):
        try:
            found.add(os.readlink(f"/proc/self/fd/{name}"))
        except OSError:
            continue
    return found


def test_the_header_and_the_pages_are_where_the_layout_says(tmp_path: Path) -> None:
    path = tmp_path / "lists.1"
    made = ListFile.create(path, UID, ENTRY)
    assert made.page_count == 1
    one, two = some(2), some(5, 1)
    made.append(one)
    made.append(two)
    assert made.page_count == 8
    raw = path.read_bytes()
    assert len(raw) == 8 * PAGE and raw[PAGE:] == one.tobytes() + two.tobytes()
    assert raw[:4] == b"VLST" and int.from_bytes(raw[8:16], "little") == UID
    assert int.from_bytes(raw[16:20], "little") == ENTRY
    assert int.from_bytes(raw[20:24], "little") == zlib.crc32(raw[:20]) and not any(raw[24:PAGE])
    buffer = mapped_memory.reserve_memory(7 * PAGE, np.uint8)
    assert os.preadv(made.fd, [buffer.data], PAGE) == 7 * PAGE and np.array_equal(buffer, np.concatenate([one, two]))
    made.close()


@pytest.mark.parametrize("writable", [False, True])
def test_an_opened_file_has_the_pages_that_the_directory_counts(tmp_path: Path, writable: bool) -> None:
    path = tmp_path / "lists.1"
    data = filled(path)
    opened = ListFile.open(path, UID, ENTRY, 4, writable=writable)
    assert opened.page_count == 4 and len(opened.verified) >= 4 and not opened.verified.any()
    buffer = mapped_memory.reserve_memory(PAGE, np.uint8)
    assert os.preadv(opened.fd, [buffer.data], 2 * PAGE) == PAGE and np.array_equal(buffer, data[PAGE : 2 * PAGE])
    if writable:
        more = some(2, 7)
        opened.append(more)
        opened.sync()
        assert opened.page_count == 6 and path.read_bytes()[4 * PAGE :] == more.tobytes()
    opened.close()


def test_what_lies_behind_the_pages_in_use_is_never_taken_for_theirs(tmp_path: Path) -> None:
    """Leavings of a crash, even half a page of them: what is appended next is found where `page_count` said."""
    path = tmp_path / "lists.1"
    data = filled(path, 5)
    with open(path, "ab") as file:
        file.write(b"torn")
    opened = ListFile.open(path, UID, ENTRY, 3, writable=True)
    first = opened.page_count
    more = some(4, 9)
    opened.append(more)
    raw = path.read_bytes()
    assert first >= 3 and opened.page_count == first + 4
    assert raw[PAGE : 3 * PAGE] == data[: 2 * PAGE].tobytes()
    assert raw[first * PAGE : (first + 4) * PAGE] == more.tobytes()
    opened.close()
    again = ListFile.open(path, UID, ENTRY, first + 4, writable=False)
    assert again.page_count == first + 4
    again.close()


def test_a_foreign_file_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "lists.1"
    filled(path)
    with pytest.raises(Corruption, match="header"):
        ListFile.open(path, UID + 1, ENTRY, 4, writable=False)
    with pytest.raises(Corruption, match="header"):
        ListFile.open(path, UID, ENTRY + 8, 4, writable=False)
    with pytest.raises(FileNotFoundError):
        ListFile.open(tmp_path / "lists.2", UID, ENTRY, 4, writable=False)


def test_every_flipped_bit_of_the_header_page_is_noticed(tmp_path: Path) -> None:
    path = tmp_path / "lists.1"
    filled(path, 1)
    whole = path.read_bytes()
    for place in (*range(40), 100, 1000, PAGE - 1):
        damaged = bytearray(whole)
        damaged[place] ^= 1 << (place % 8)
        path.write_bytes(damaged)
        with pytest.raises(Corruption, match="header"):
            ListFile.open(path, UID, ENTRY, 2, writable=True)


@pytest.mark.parametrize("length", [0, 20, PAGE - 1, PAGE, 3 * PAGE, 4 * PAGE - 1])
def test_a_truncated_file_is_refused(tmp_path: Path, length: int) -> None:
    path = tmp_path / "lists.1"
    filled(path)
    os.truncate(path, length)
    with pytest.raises(Corruption, match=r"lists\.1"):
        ListFile.open(path, UID, ENTRY, 4, writable=False)


def test_marks_of_verified_pages_survive_growth(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = ListFile.create(tmp_path / "lists.1", UID, ENTRY)
    made.verified = np.zeros(2, np.uint8)
    made.verified[1] = 1
    held = made.verified
    made.append(some(40))
    assert len(made.verified) >= made.page_count == 41
    assert made.verified[1] == 1 and made.verified[2:].sum() == 0 and len(held) == 2
    made.close()


def test_an_append_that_fails_counts_for_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "lists.1"
    made = ListFile.create(path, UID, ENTRY)
    with monkeypatch.context() as patch:

        def full(fd: int, data: object, offset: int) -> None:
            raise OSError(28, "no space left on device")

        patch.setattr(filesystem, "pwrite", full)
        with pytest.raises(OSError, match="no space"):
            made.append(some(2))
    assert made.page_count == 1
    one = some(1, 3)
    made.append(one)
    assert made.page_count == 2 and path.read_bytes()[PAGE : 2 * PAGE] == one.tobytes()
    made.close()


def test_descriptors_are_closed_by_close_by_refusal_and_with_the_last_holder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "lists.1"
    filled(path)
    assert str(path) not in open_files()
    opened = ListFile.open(path, UID, ENTRY, 4, writable=True)
    assert str(path) in open_files()
    opened.close()
    opened.close()
    assert opened.fd == -1 and str(path) not in open_files()
    for uid, count in ((UID + 1, 4), (UID, 99)):
        with pytest.raises(Corruption):
            ListFile.open(path, uid, ENTRY, count, writable=True)
        assert str(path) not in open_files()
    held = ListFile.open(path, UID, ENTRY, 4, writable=True)
    del held
    gc.collect()
    assert str(path) not in open_files()
    with monkeypatch.context() as patch:

        def refuse(path: Path, *, create: bool = False) -> int:
            raise PermissionError(13, "read-only file system")

        patch.setattr(filesystem, "open_append", refuse)
        with pytest.raises(PermissionError):
            ListFile.open(path, UID, ENTRY, 4, writable=True)
    gc.collect()
    assert str(path) not in open_files()


def test_extents_take_whole_pages() -> None:
    counts = np.array([0, 1, 168, 169, 338, 339, 1 << 27], np.int32)
    expected = [-(-(64 + int(count) * ENTRY) // PAGE) for count in counts]
    assert list_file.pages_of(counts, ENTRY).tolist() == expected
    assert expected[:4] == [1, 1, 1, 2]


def test_headers_of_extents_say_where_they_are_and_whose() -> None:
    raw = list_file.headers(np.array([1, 7]), np.array([5, 1 << 20]), UID, ENTRY, 99)
    assert raw.shape == (2, 64)
    fields = raw.view(list_file.EXTENT)[:, 0]
    assert fields["crc"].tolist() == [0, 0] and fields["magic"].tolist() == [b"VEXT"] * 2
    assert fields["page"].tolist() == [1, 7] and fields["count"].tolist() == [5, 1 << 20]
    assert fields["uid"].tolist() == [UID] * 2 and fields["entry_bytes"].tolist() == [ENTRY] * 2
    assert fields["sequence"].tolist() == [99] * 2 and not raw[:, 40:].any()
