"""A program in a process of its own, compiled for another processor than this one where its features say so."""

from __future__ import annotations

import os
import subprocess
import sys


def run_on(program: str, name: str | None, features: str | None) -> str:
    """What the program prints. name, features : of the processor, as numba takes them; None: this one."""
    environment = {k: v for k, v in os.environ.items() if k not in ("NUMBA_CPU_NAME", "NUMBA_CPU_FEATURES")}
    if name is not None and features is not None:
        environment.update(NUMBA_CPU_NAME=name, NUMBA_CPU_FEATURES=features)
    done = subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout
