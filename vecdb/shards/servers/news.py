"""What people are told of servers while they run: who does not answer, and why, and who answers again."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any


class ServerNews:
    """Remembers what was said, and says each thing once. Threads: one at a time."""

    def __init__(self) -> None:
        self._answered: set[tuple[int, int]] = set()
        self._said: dict[tuple[int, int], str] = {}

    def of(self, servers: Sequence[dict[str, Any]]) -> list[str]:
        """A sentence for each server that has something new.

        servers : facts of each (`Member.facts`), with "shard" and "number" within it; of one that does not say, these
        two alone.
        """
        found = []
        for one in servers:
            key = one["shard"], one["number"]
            name = f"shard {one['shard']}, server {one['number']}" + (
                f" ({one['address']})" if "address" in one else ""
            )
            if one.get("serves"):
                if self._said.pop(key, None) is not None:
                    found.append(f"{name} answers again" if key in self._answered else f"{name} answers")
                self._answered.add(key)
                continue
            trouble = one.get("trouble") or ("it does not answer" if key in self._answered else "")
            if trouble and self._said.get(key) != trouble:
                self._said[key] = trouble
                found.append(f"{name}: {trouble}")
        return found
