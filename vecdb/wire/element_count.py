"""How many elements a message has, before it is parsed: each costs a parser up to a hundred times its bytes."""

from __future__ import annotations

from typing import Any

import numpy as np

from vecdb.kernels import wire_elements


class ElementCounter:
    """Of messages of one type. descriptor : protobuf's, of the type."""

    def __init__(self, descriptor: Any) -> None:
        kinds = {descriptor.full_name: 0}
        waiting, found = [descriptor], []
        while waiting:
            one = waiting.pop(0)
            for field in one.fields:
                if field.message_type is None or field.number >= wire_elements.NUMBERS_MAX:
                    continue
                if field.message_type.full_name not in kinds:
                    kinds[field.message_type.full_name] = len(kinds)
                    waiting.append(field.message_type)
                found.append((kinds[one.full_name], field.number, kinds[field.message_type.full_name]))
        self._children = np.full((len(kinds), wire_elements.NUMBERS_MAX), -1, np.int32)
        for kind, number, child in found:
            self._children[kind, number] = child

    def exceeds(self, data: bytes, most: int) -> bool:
        """Whether a message of these bytes has more than `most` elements. Each has a byte at least."""
        return len(data) > most and wire_elements.count_elements(data, self._children, most) > most
