"""What a bulk build that is killed leaves for the next one: the tree that it grew, and the entries of the rows that
it had already taken past the heads.

    tree.<generation>.<sequence>        sealed: how rows become codes, and the heads (sealed_file.py)
    entries.<generation>.<sequence>     blocks of entries, appended to (entry_spool.py)

    magic    := "VDBTREE\\x01"
    header   := {version, kind, metric, dtype, dim, bits, head_ratio, replicas, rows, row_count, live_rows, uid,
                 lossless, scale, trained_rows, add_unit, rescale_unit, error}
    sections : mean, center, signs, head_codes, group_codes, group_ends

sequence is the commit up to which the dead were left out. An index that is built later has a higher one than any that
was sealed before it, and one that was made from this tree is sealed with no lower one: so a state tells by the
sequence of what it names whether the tree is still of use (`is_wanted`), although a crash may come between a seal and
the removal of these files.

A tree serves a collection of about the size that it was grown for; the answers are then those of a build that was not
interrupted, up to which rows the sample held. What is damaged or does not fit is logged and removed: it is derived.
"""

from __future__ import annotations

import logging
import secrets
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vecdb.errors import Corruption
from vecdb.index.clustering.cluster_tree import Heads
from vecdb.index.common import sealed_file
from vecdb.index.spann import list_directory
from vecdb.index.spann.entry_coder import EntryCoder
from vecdb.storage.disk import filesystem

MAGIC = b"VDBTREE\x01"
VERSION = 1
_GROWTH_MAX = 1.25  # of the live rows, up or down, since the tree was grown
_log = logging.getLogger("vecdb")


@dataclass(frozen=True, slots=True)
class SavedTree:
    """A grown tree. row_count : rows that it was grown for, dead ones included; the entries' buckets are cut by it.
    path : of its file, None where it was not worth one.   uid : what its entries are known by.
    """

    coder: EntryCoder
    heads: Heads
    row_count: int
    uid: int
    path: Path | None

    @property
    def entries_path(self) -> Path | None:
        return None if self.path is None else self.path.with_name("entries" + self.path.name.removeprefix("tree"))

    def file_names(self) -> tuple[str, ...]:
        return () if self.path is None or self.entries_path is None else (self.path.name, self.entries_path.name)


def is_wanted(name: str, generation: int, sealed_sequence: int | None) -> bool:
    """Whether the file `name` of a collection is such a one, and may serve the next build.

    generation : of the collection's state.   sealed_sequence : of the sealed index that the state names, if any.
    """
    kind, _, stamp = name.partition(".")
    number, _, sequence = stamp.partition(".")
    if kind not in ("tree", "entries") or number != str(generation) or not sequence.isdecimal():
        return False
    return sealed_sequence is None or int(sequence) > sealed_sequence


def save(
    folder: Path, coder: EntryCoder, heads: Heads, row_count: int, live_rows: int, facts: dict[str, Any], removed: int
) -> SavedTree:
    """Seal a tree. facts : all that it depends on, the row file's name as "rows" among them.   removed : the sequence.

    A tree that cannot be written serves this build alone.
    """
    uid = secrets.randbits(60)
    path: Path | None = folder / f"tree.{_generation(facts)}.{removed}"
    assert path is not None
    header, arrays = list_directory.tree_parts(coder, heads)
    header = {"version": VERSION, **facts, "row_count": row_count, "live_rows": live_rows, "uid": uid, **header}
    try:
        sealed_file.write(path, MAGIC, header, arrays)
    except OSError as error:
        _log.warning("%s: not written (%s); a build that is killed will start over", path, error)
        path = None
    return SavedTree(coder, heads, row_count, uid, path)


def find(folder: Path, metric: int, row_count: int, live_rows: int, facts: dict[str, Any]) -> SavedTree | None:
    """The tree that an earlier build left for one of `row_count` rows with `live_rows` alive. Removes all others."""
    found: SavedTree | None = None
    kept: tuple[str, ...] = ()
    names = [name for name in filesystem.list_dir(folder) if is_wanted(name, int(_generation(facts)), None)]
    for name in reversed([name for name in names if name.startswith("tree.")]):
        if found is None:
            try:
                found = _load(folder / name, metric, row_count, live_rows, facts)
                kept = found.file_names()
                _log.info("%s: the build goes on from the tree of an earlier one", folder / name)
            except (Corruption, FileNotFoundError) as error:
                _log.warning("the tree of an earlier build is of no use: %s", error)
    for name in set(names) - set(kept):
        filesystem.remove(folder / name)
    return found


def _generation(facts: dict[str, Any]) -> str:
    return str(facts["rows"]).partition(".")[2]


def _load(path: Path, metric: int, row_count: int, live_rows: int, facts: dict[str, Any]) -> SavedTree:
    header, sections = sealed_file.read(path, MAGIC, VERSION)
    sealed_file.check_header(path, header, facts)
    then = header["live_rows"]
    if not then <= _GROWTH_MAX * live_rows or not live_rows <= _GROWTH_MAX * then:
        raise sealed_file.corrupt_file_error(path, "header, live_rows", f"about {live_rows}", then)
    if header["row_count"] > row_count * _GROWTH_MAX:
        raise sealed_file.corrupt_file_error(path, "header, row_count", f"about {row_count}", header["row_count"])
    coder, heads = list_directory.tree_of(metric, header, sections)
    return SavedTree(coder, heads, header["row_count"], header["uid"], path)
