"""A client whose certificate authority is not the server's gets one error, and nothing is written beside it."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

from tests.support.server.certificates import Authority, write
from tests.support.server.driver import Running

ASK = """
import os, sys, vecdb
try:
    vecdb.open(sys.argv[1], tls=sys.argv[2], timeout=5).collections()
except vecdb.VecdbError as error:
    print(type(error).__name__)
print("GRPC_VERBOSITY" in os.environ)
"""


def test_a_handshake_that_fails_is_one_error_and_no_line_on_standard_error(
    serving: Callable[..., Running], tmp_path: Path
) -> None:
    cert, key = write(tmp_path, Authority("ours").issue("server"))
    running = serving(tls_cert=cert, tls_key=key)
    (tmp_path / "ca.pem").write_bytes(Authority("another").pem)
    address = f"grpcs://{running.address}"
    asked = subprocess.run(
        [sys.executable, "-c", ASK, address, str(tmp_path / "ca.pem")], capture_output=True, text=True, timeout=100
    )
    assert asked.stdout.split() == ["Unavailable", "False"] and asked.stderr == ""
