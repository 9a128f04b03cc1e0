"""What a run has done so far, so that one that was killed goes on, and leaves nothing out without a word.

    FOLDER/run-<digest of the plan>.partial.json
        {"plan": ..., "doing": "building faiss" | null, "peer": "faiss" | null, "absent": {peer: why}, "points": [...]}

A run that finds the partial result of the same plan takes its points, builds the peers again, and measures the rest. If
the process ended within a peer's code, that peer is absent from then on, with what it was doing. The file goes when the
run is finished.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any


class RunJournal:
    """folder : None for a run that keeps nothing.

    absent : peers that are not measured, and why.   points : what is measured.
    """

    def __init__(self, folder: Path | None, plan: Mapping[str, Any]) -> None:
        self._plan = json.loads(json.dumps(plan))
        digest = hashlib.blake2b(json.dumps(self._plan, sort_keys=True).encode(), digest_size=8).hexdigest()
        self.path = None if folder is None else folder / f"run-{digest}.partial.json"
        self.absent: dict[str, str] = {}
        self.points: list[dict[str, Any]] = []
        self.resumed = False
        self._load()

    def _load(self) -> None:
        if self.path is None or not self.path.exists():
            return
        try:
            found = json.loads(self.path.read_text(encoding="utf-8"))
            same = found["plan"] == self._plan
        except (ValueError, KeyError, TypeError):
            return
        if not same:
            return
        self.resumed, self.absent, self.points = True, found["absent"], found["points"]
        if found["peer"] is not None:
            self.absent[found["peer"]] = f"the process ended while {found['doing']}"

    @contextmanager
    def within(self, peer: str, doing: str) -> Iterator[None]:
        """Work of one peer: what it raises makes it absent, and is raised again."""
        with self.noting(peer, doing):
            try:
                yield
            except Exception as error:
                self.absent[peer] = f"{doing}: {type(error).__name__}: {error}"
                raise

    @contextmanager
    def noting(self, peer: str, doing: str) -> Iterator[None]:
        """Work of one peer that makes it absent only if the process ends there."""
        self._write(peer, doing)
        try:
            yield
        finally:
            self._write(None, None)

    def add(self, points: list[dict[str, Any]]) -> None:
        self.points.extend(points)
        self._write(None, None)

    def drop(self, peer: str) -> None:
        """Forget what was measured of a peer that is absent."""
        self.points = [point for point in self.points if point["peer"] != peer]

    def finish(self) -> None:
        if self.path is not None:
            self.path.unlink(missing_ok=True)

    def _write(self, peer: str | None, doing: str | None) -> None:
        if self.path is None:
            return
        self.path.parent.mkdir(parents=True, exist_ok=True)
        part = self.path.with_name(f"{self.path.name}.{os.getpid()}")
        state = {"plan": self._plan, "doing": doing, "peer": peer, "absent": self.absent, "points": self.points}
        part.write_text(json.dumps(state, default=float), encoding="utf-8")
        part.replace(self.path)
