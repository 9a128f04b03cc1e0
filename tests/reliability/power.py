"""A file system that forgets: replays a recorded run up to any moment and says what a power cut then may leave
on the disk.

strace log --parse--> events --apply--> Disk: per file   what was synced, and the writes since
                                              per folder the names that were synced, and the changes since
Disk.image(rng)  a folder tree: everything synced, any subset of the 512-byte sectors written since, of each
folder's changes
                 since its last sync the first few in order
"""

from __future__ import annotations

import os
import random
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

SECTOR, PAGE = 512, 4096
TRACE = (
    "openat,open,close,pwrite64,pwritev,write,writev,lseek,fdatasync,fsync,rename,ren"
    "ameat,renameat2,ftruncate,unlink,unlinkat,mkdir,mkdirat,rmdir,fallocate"
)


@dataclass
class File:
    synced: bytearray = field(default_factory=bytearray)
    since: list[tuple[int, bytes | None]] = field(
        default_factory=list
    )  # (offset, data), or (length, None) for a truncation
    length: int = 0

    def write(self, offset: int, data: bytes) -> None:
        """A write that reached the page cache: kept page by page."""
        self.length = max(self.length, offset + len(data))
        at = offset
        while at < offset + len(data):
            stop = min((at // PAGE + 1) * PAGE, offset + len(data))
            self.since.append((at, data[at - offset : stop - offset]))
            at = stop

    def sync_page(self, page: int) -> None:
        """A write of a descriptor that syncs each write takes its page to the disk, with what else waits there."""
        mine = [op for op in self.since if op[1] is not None and op[0] // PAGE == page]
        self.since = [op for op in self.since if op[1] is None or op[0] // PAGE != page]
        for offset, data in mine:
            assert data is not None
            _put(self.synced, offset, data)

    def sync(self) -> None:
        for offset, data in self.since:
            if data is None:
                _resize(self.synced, offset)
            else:
                _put(self.synced, offset, data)
        self.since = []

    def image(self, rng: random.Random, mode: str) -> bytes:
        out = bytearray(self.synced)
        for offset, data in self.since:
            if data is None:
                if mode == "all" or (mode == "some" and rng.random() < 0.5):
                    _resize(out, offset)
                continue
            at = offset
            while at < offset + len(data):
                stop = min((at // SECTOR + 1) * SECTOR, offset + len(data))
                if mode == "all" or (mode == "some" and rng.random() < 0.5):
                    _put(out, at, data[at - offset : stop - offset])
                at = stop
        if mode == "some" and self.length > len(out) and rng.random() < 0.5:
            _resize(out, self.length)  # the length reached the disk, the bytes did not
        return bytes(out)


def _resize(data: bytearray, length: int) -> None:
    del data[length:]
    data.extend(bytes(length - len(data)))


def _put(data: bytearray, offset: int, piece: bytes) -> None:
    if len(data) < offset + len(piece):
        data.extend(bytes(offset + len(piece) - len(data)))
    data[offset : offset + len(piece)] = piece


@dataclass
class Folder:
    now: dict[str, File | Folder] = field(default_factory=dict)
    synced: dict[str, File | Folder] = field(default_factory=dict)
    since: list[tuple[str, str | None, File | Folder | None]] = field(default_factory=list)

    def change(self, name: str, to: str | None, node: File | Folder | None) -> None:
        """name appears as `node`; or goes (node None); or becomes `to`."""
        _change(self.now, name, to, node)
        self.since.append((name, to, node))

    def sync(self) -> None:
        self.synced, self.since = dict(self.now), []


def _change(entries: dict[str, File | Folder], name: str, to: str | None, node: File | Folder | None) -> None:
    if to is not None:
        if name in entries:
            entries[to] = entries.pop(name)
    elif node is None:
        entries.pop(name, None)
    else:
        entries[name] = node


@dataclass
class Event:
    call: str
    fd: int
    path: str  # of the descriptor or the first argument
    target: str = ""
    data: bytes = b""
    offset: int = 0
    flags: str = ""
    result: int = 0


class Disk:
    """State of everything below `root` after some events."""

    def __init__(self, root: Path, ledger: Path) -> None:
        self.root, self.ledger = str(root), str(ledger)
        self.top = Folder()
        self.at_once: set[int] = set()  # descriptors that sync each write
        self.place: dict[int, int] = {}  # where a descriptor stands, once it was put there
        self.book = b""

    def _find(self, path: str) -> tuple[Folder, str] | None:
        if not path.startswith(self.root + "/"):
            return None
        parts = path[len(self.root) + 1 :].split("/")
        folder = self.top
        for part in parts[:-1]:
            inner = folder.now.get(part)
            if not isinstance(inner, Folder):
                return None
            folder = inner
        return folder, parts[-1]

    def _file(self, path: str) -> File | None:
        found = self._find(path)
        node = found[0].now.get(found[1]) if found else None
        return node if isinstance(node, File) else None

    def apply(self, event: Event) -> None:
        if event.path == self.ledger:
            if event.call == "write":
                self.book += event.data
            return
        if event.result < 0:
            return
        if event.call == "close":
            self.at_once.discard(event.fd)
            return
        if event.path == self.root and event.call in ("fsync", "fdatasync"):
            self.top.sync()
            return
        found = self._find(event.path)
        if found is None:
            return
        folder, name = found
        if event.call in ("openat", "open"):
            node = folder.now.get(name)
            if node is None and "O_CREAT" in event.flags:
                folder.change(name, None, File())
            elif isinstance(node, File) and "O_TRUNC" in event.flags:
                node.since.append((0, None))
                node.length = 0
            if "O_DSYNC" in event.flags or "O_SYNC" in event.flags:
                self.at_once.add(event.result)
        elif event.call == "lseek":
            self.place[event.fd] = event.result
        elif event.call in ("pwrite64", "pwritev", "write", "writev"):
            file = self._file(event.path)
            assert file is not None, event.path
            offset = event.offset
            if event.call in ("write", "writev"):
                offset = self.place[event.fd]
                self.place[event.fd] += event.result
            file.write(offset, event.data[: event.result])
            if event.fd in self.at_once:
                file.sync_page(offset // PAGE)
        elif event.call in ("ftruncate", "fallocate"):
            file = self._file(event.path)
            if file is not None and (event.call == "ftruncate" or event.offset > file.length):
                file.since.append((event.offset, None))
                file.length = event.offset
        elif event.call in ("fdatasync", "fsync"):
            node = folder.now.get(name)
            if node is not None:
                node.sync()
        elif event.call in ("mkdir", "mkdirat"):
            folder.change(name, None, Folder())
        elif event.call in ("unlink", "unlinkat", "rmdir"):
            folder.change(name, None, None)
        elif event.call.startswith("rename"):
            other = self._find(event.target)
            assert other is not None and other[0] is folder, f"rename across folders: {event}"
            folder.change(name, other[1], None)

    def image(self, target: Path, rng: random.Random, mode: str) -> None:
        """What a power cut may leave: mode none (synced alone), all (everything), some (any subset)."""
        target.mkdir(parents=True)
        self._write(self.top, target, rng, mode)

    def _write(self, folder: Folder, target: Path, rng: random.Random, mode: str) -> None:
        entries = dict(folder.synced)
        kept = {"none": 0, "all": len(folder.since)}.get(mode, rng.randint(0, len(folder.since)))
        for change in folder.since[:kept]:
            _change(entries, *change)
        for name, node in entries.items():
            if isinstance(node, File):
                (target / name).write_bytes(node.image(rng, mode))
            else:
                (target / name).mkdir()
                self._write(node, target / name, rng, mode)


# -- the log -----------------------------------------------------------------------------------------

_LINE = re.compile(r"^(\d+)\s+(.*)$")
_CALL = re.compile(r"^(\w+)\((.*)\)\s+= (-?\d+)")
_FD = re.compile(r"^(\d+)<(.*?)>(?:, |$)", re.DOTALL)
_HEX = re.compile(r'"((?:\\x[0-9a-f]{2})*)"')


def parse(log: Path) -> Iterator[Event]:
    """Events in the order of their ends ; in a run where one thread at a time writes, that is also their order
    of effect."""
    begun: dict[str, str] = {}
    for raw in log.read_text().splitlines():
        line = _LINE.match(raw)
        assert line, raw[:200]
        pid, text = line.groups()
        if text.startswith(("+++", "---")):
            continue
        if text.endswith("<unfinished ...>"):
            begun[pid] = text[: -len("<unfinished ...>")].rstrip()
            continue
        if text.startswith("<... "):
            text = begun.pop(pid) + text.split("resumed>", 1)[1]
        call = _CALL.match(text)
        if not call:
            continue
        event = _event(call.group(1), call.group(2), int(call.group(3)))
        if event is not None:
            yield event


def _text(quoted: str) -> bytes:
    return bytes.fromhex(quoted.replace("\\x", ""))


def _path(raw: str) -> str:
    return _text(raw).decode() if raw.startswith("\\x") else raw


def _event(call: str, arguments: str, result: int) -> Event | None:
    fd = _FD.match(arguments)
    strings = [_text(found) for found in _HEX.findall(arguments)]
    if call in ("openat", "open"):
        flags = re.search(r"O_[A-Z_|]+", arguments)
        return Event(call, -1, strings[0].decode(), flags=flags.group() if flags else "", result=result)
    if call in ("mkdir", "mkdirat", "unlink", "rmdir"):
        return Event(call, -1, strings[0].decode(), result=result)
    if call == "unlinkat":
        base = _path(re.match(r"^(?:AT_FDCWD|\d+)<?([^>]*)>?", arguments).group(1))  # type: ignore[union-attr]
        name = strings[0].decode()
        return Event(call, -1, name if name.startswith("/") else f"{base}/{name}", result=result)
    if call.startswith("rename"):
        return Event(call, -1, strings[0].decode(), strings[1].decode(), result=result)
    if fd is None:
        return None
    number, path = int(fd.group(1)), _path(fd.group(2))
    last = arguments.rsplit(", ", 1)[-1]
    if call == "pwrite64":
        return Event(call, number, path, data=strings[0], offset=int(last), result=result)
    if call == "pwritev":
        return Event(call, number, path, data=b"".join(strings), offset=int(last), result=result)
    if call in ("write", "writev"):
        return Event(call, number, path, data=b"".join(strings), result=result)
    if call == "ftruncate":
        return Event(call, number, path, offset=int(last), result=result)
    if call in ("fdatasync", "fsync", "close", "lseek"):
        return Event(call, number, path, result=result)
    if call == "fallocate":
        mode, offset, length = (part.strip() for part in arguments.rsplit(", ", 3)[1:])
        assert mode == "0", f"fallocate with mode {mode} is not modelled"
        return Event(call, number, path, offset=int(offset) + int(length), result=result)
    return None


def folder_bytes(path: Path) -> int:
    return sum(os.path.getsize(Path(base) / name) for base, _, names in os.walk(path) for name in names)
