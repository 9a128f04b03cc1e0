"""Rounds of kill, pause and takeover under durability="remote", with a ledger: whatever was acknowledged is in the
database that is left, and nothing is acknowledged by a writer that was replaced.
"""

from __future__ import annotations

import os
import signal
import sys
import traceback
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

import vecdb
from tests.model.driver import SEED
from tests.support.replication.copies import assert_same, brought_up
from vecdb import limits
from vecdb.embedded.open import open_database, promote

VECTORS = np.random.default_rng(9).normal(size=(64, 8)).astype(np.float32)
REFUSED = 5


@pytest.fixture(autouse=True)
def _at_once(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(limits, "log_wait_s", 0.0)
    monkeypatch.setattr(limits, "log_poll_s", 0.002)
    monkeypatch.setattr(limits, "snapshot_log_bytes", 20_000)


class Writer:
    """A process that writes until it ends. A line of the ledger follows each acknowledgement, then a byte."""

    def __init__(self, path: Path, url: str, ledger: Path, first: int) -> None:
        self._reading, writing = os.pipe()
        self.pid = os.fork()
        if self.pid == 0:
            code = 1
            try:
                os.close(self._reading)
                lines = os.open(ledger, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
                db = open_database(path, log=url, durability="remote", maintenance=False)
                docs = db.create_collection("docs", 8, "l2", vecdb.Flat(), exist_ok=True)
                for number in range(first, first + 100_000):
                    docs.upsert([number], VECTORS[number % 64][None])
                    os.write(lines, b"%d\n" % number)
                    os.write(writing, b".")
                    if number % 50 == 49:
                        docs.delete(range(number - 40, number - 20))
                        docs.upsert(range(number - 40, number - 20), VECTORS[:20])
                        docs.vacuum()
            except vecdb.Unavailable as refused:
                code = REFUSED if "fenced" in str(refused) else 1
                print("refused:", refused, file=sys.stderr)
            except BaseException:
                traceback.print_exc()
            finally:
                os._exit(code)
        os.close(writing)

    def acknowledged(self, count: int) -> None:
        """Wait for so many acknowledgements."""
        while count:
            got = os.read(self._reading, count)
            assert got, "the writer has ended"
            count -= len(got)

    def send(self, number: signal.Signals) -> None:
        os.kill(self.pid, number)

    def ended(self) -> int:
        code = os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])
        os.close(self._reading)  # not before: it may acknowledge once more
        return code


def rounds(count: int, tmp_path: Path) -> None:
    print(f"VECDB_SEED={SEED}")
    rng, url, ledger = np.random.default_rng(SEED), f"file://{tmp_path}/bucket", tmp_path / "ledger"
    home, takeovers = tmp_path / "home-0", 0
    for at in range(count):
        writer = Writer(home, url, ledger, 1_000_000 * at)
        writer.acknowledged(int(rng.integers(1, 70)))
        if rng.random() < 0.5:
            writer.send(signal.SIGKILL)
            assert writer.ended() == -signal.SIGKILL
        else:
            writer.send(signal.SIGSTOP)
            takeovers += 1
            home = tmp_path / f"home-{takeovers}"
            open_database(home, follow=url, staleness_s=None).close()
            promote(home, url)
            if rng.random() < 0.5:  # another writes before the old one finds out
                with open_database(home, log=url, durability="remote", maintenance=False) as db:
                    db["docs"].upsert([-1 - at], VECTORS[:1])
            writer.send(signal.SIGCONT)
            assert writer.ended() == REFUSED
        with open_database(home, log=url, durability="remote", maintenance=False) as db:
            numbers = [int(line) for line in ledger.read_text().split()]
            there = db["docs"].get(numbers)
            assert None not in there, [one for one, found in zip(numbers, there, strict=True) if found is None]
            assert db.check() == []
            with open_database(tmp_path / "copy", follow=url) as copy:
                brought_up(db, copy)
                if at % 5 == 0 or at == count - 1:
                    assert_same(db, copy)
    assert takeovers


def test_nothing_acknowledged_is_lost_and_a_replaced_writer_is_refused(tmp_path: Path) -> None:
    rounds(5, tmp_path)


@pytest.mark.slow
def test_hundreds_of_rounds_lose_nothing(tmp_path: Path) -> None:
    rounds(300, tmp_path)
