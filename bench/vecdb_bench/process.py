"""Process: a contestant in a process of its own, asked by lines (contestants/contest.py answers them)."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import vecdb

ONE_THREAD = dict.fromkeys(
    ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "RAYON_NUM_THREADS", "LANCE_CPU_THREADS", "LANCE_IO_THREADS"), "1"
)


class Process:
    """script : a file of contestants/.   folder : holds base.npy and queries.npy, and what the contestant builds in a
    folder of its name.   python : the interpreter that has its engine; None: this one.
    """

    def __init__(
        self,
        name: str,
        script: str,
        folder: Path,
        spec: dict[str, Any],
        python: str | None = None,
        *,
        one_thread: bool = False,
    ) -> None:
        path = Path(__file__).parent / "contestants" / script
        arguments = [str(folder / name), str(folder / "base.npy"), str(folder / "queries.npy"), json.dumps(spec)]
        self._process = subprocess.Popen(
            [python or sys.executable, str(path), *arguments], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
            stderr=subprocess.DEVNULL, env=os.environ | (ONE_THREAD if one_thread else {}),
        )  # fmt: skip
        self.name = name

    def ask(self, **question: Any) -> dict[str, Any]:
        assert self._process.stdin is not None and self._process.stdout is not None
        self._process.stdin.write(json.dumps(question) + "\n")
        self._process.stdin.flush()
        line = self._process.stdout.readline()
        if not line:
            raise vecdb.Unavailable(
                f"contestant {self.name} ended without an answer; run its script by hand to see why"
            )
        answer: dict[str, Any] = json.loads(line)
        return answer

    def close(self) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait()

    def __enter__(self) -> Process:
        return self

    def __exit__(self, *of: object) -> None:
        self.close()
