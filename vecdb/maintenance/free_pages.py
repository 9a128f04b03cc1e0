"""LMDB's file gets smaller: a copy without free pages takes its place.

    maintenance thread    a copy is made beside reads and commits
    commit thread         the copy takes the file's name, if nothing was committed since (Store.swap_for)

The copy may take seconds, the swap takes milliseconds: so commits wait for the swap alone.
"""

from __future__ import annotations

from vecdb.commit.committer import SwapLmdbFile
from vecdb.commit.write_path import WritePath
from vecdb.storage.disk import filesystem
from vecdb.storage.kv.store import Store

_COPIES_MAX = 2  # a commit that comes during a copy makes it old


def give_back_free_pages(store: Store, writes: WritePath) -> bool:
    """Give the free pages of LMDB's file back to the file system, where they are worth it. Returns whether it was done:
    not where others read the file, and not where writes never pause for as long as a copy takes: they fill the pages.
    """
    try:
        for _ in range(_COPIES_MAX):
            with store.compacted_copy() as copy:
                if copy is None:
                    return False
                if writes.submit(SwapLmdbFile(copy)):
                    return True
    except OSError as error:
        if not filesystem.is_full(error):  # a full disk has no room for the copy
            raise filesystem.to_vecdb_error(error, "shrinking LMDB's file", "nothing was lost") from error
    return False
