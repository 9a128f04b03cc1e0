"""The process of test_kills.py that is killed: goes on with a history, and says after each operation where it is.

stdin    pickle of (setup, Twin.saved(), state of the driver's generator)
stdout   after each operation its length and a pickle of (Twin.saved(), state of the generator)
"""

from __future__ import annotations

import pickle
import sys

import pytest

from tests.model.driver import Driver
from tests.model.setups import small_limits
from tests.model.twin import Twin


def main() -> None:
    small_limits(pytest.MonkeyPatch())
    setup, saved, state = pickle.load(sys.stdin.buffer)  # noqa: S301 - our own parent's
    twin = Twin(setup, saved)
    driver = Driver(twin, 0)
    driver.rng.bit_generator.state = state
    while True:
        driver.step()
        done = pickle.dumps((twin.saved(), driver.rng.bit_generator.state))
        sys.stdout.buffer.write(len(done).to_bytes(8, "little") + done)
        sys.stdout.buffer.flush()


if __name__ == "__main__":
    main()
