"""Cursors of a tenant's token, sealed: a cursor names rows, commits and records near it, which a tenant must not learn,
and one that a tenant made up would tell where others' records lie.

    sealed := urlsafe base64 of (tag 16 bytes, cursor XOR stream)
    tag     = BLAKE2b of the tenant and the cursor under a key   stream = SHAKE-256 of the key and the tag

The key lives as long as the server, and is the same in all of its processes: who holds a cursor from before a restart
begins again. The tag depends on all that is sealed, so that no stream is used twice.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac

from vecdb import InvalidArgument
from vecdb.wire.filters import CURSOR_CHARS_MAX
from vecdb_server.security.auth import Caller

_TAG_BYTES = 16
_SEALED_CHARS_MAX = (CURSOR_CHARS_MAX + _TAG_BYTES) * 4 // 3 + 4


class CursorSeal:
    """key : 64 random bytes."""

    def __init__(self, key: bytes) -> None:
        self._tag_key, self._stream_key = key[:32], key[32:]

    def sealed(self, cursor: str | None, caller: Caller) -> str:
        """The cursor of a page as the caller may have it; empty where there is none."""
        if not cursor or caller.tenant is None:
            return cursor or ""
        plain = cursor.encode()
        tag = self._tag(caller.tenant, plain)
        return base64.urlsafe_b64encode(tag + self._crypted(tag, plain)).decode()

    def opened(self, after: str, caller: Caller) -> str | None:
        """The cursor that a caller sent; None where it sent none. Raises InvalidArgument."""
        if not after or caller.tenant is None:
            return after or None
        try:
            if len(after) > _SEALED_CHARS_MAX:
                raise ValueError("too long")
            raw = base64.b64decode(after.encode("ascii"), b"-_", validate=True)
            tag, plain = raw[:_TAG_BYTES], self._crypted(raw[:_TAG_BYTES], raw[_TAG_BYTES:])
            if not hmac.compare_digest(tag, self._tag(caller.tenant, plain)):
                raise ValueError("of another key or tenant")
            return plain.decode()
        except (ValueError, binascii.Error):
            raise InvalidArgument(
                "after is no cursor of this tenant's listings, or is from before the server was started anew: begin "
                "again without it"
            ) from None

    def _tag(self, tenant: str, plain: bytes) -> bytes:
        name = tenant.encode()
        digest = hashlib.blake2b(key=self._tag_key, digest_size=_TAG_BYTES)
        digest.update(len(name).to_bytes(4, "little") + name + plain)
        return digest.digest()

    def _crypted(self, tag: bytes, data: bytes) -> bytes:
        stream = hashlib.shake_256(self._stream_key + tag).digest(len(data))
        mixed = int.from_bytes(data, "little") ^ int.from_bytes(stream, "little")
        return mixed.to_bytes(len(data), "little")
