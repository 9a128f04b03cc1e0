"""Text of records and files as a terminal may see it: control characters are shown, not sent.

Escape sequences in an id or a field could otherwise move the cursor, hide text, set the title or fill the clipboard;
marks of writing direction reorder what stands beside them.
"""

from __future__ import annotations

import re

_CONTROLS = (
    "\x00-\x1f\x7f-\x9f"  # C0, DEL, C1: among them ESC and CSI
    "\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069"  # marks, embeddings, overrides and isolates of direction
    "\u2028\u2029\ufeff\ud800-\udfff"  # line and paragraph ends, the byte order mark, halves of characters
)
_CONTROL = re.compile(f"[{_CONTROLS}]")
_CONTROL_IN_LINES = re.compile(f"[{_CONTROLS}]".replace("\x00-\x1f", "\x00-\x09\x0b-\x1f"))


def visible(text: str, *, lines: bool = False) -> str:
    """The text with signs in place of controls: \u241b for ESC, <U+202E> for one that has no sign. lines : line ends
    are kept.
    """
    pattern = _CONTROL_IN_LINES if lines else _CONTROL
    return pattern.sub(lambda match: _sign_of(ord(match[0])), text)


def _sign_of(code: int) -> str:
    if code < 0x20:
        return chr(0x2400 + code)  # Unicode's pictures of control characters
    return "\u2421" if code == 0x7F else f"<U+{code:04X}>"


def visible_json(document: str) -> str:
    """A JSON document, in which controls stand within strings only, with all of them as JSON escapes them."""
    return _CONTROL.sub(lambda match: match[0] if match[0] in "\t\r\n" else f"\\u{ord(match[0]):04x}", document)
