"""What gRPC says where no connection came about, in words that tell what to do.

    failed to connect to all addresses; last error: STATUS: ipv4:127.0.0.1:7711: what went wrong

A name may have several addresses, of which gRPC tells the last that it tried.
"""

from __future__ import annotations

import re
from urllib.parse import unquote

_LAST = re.compile(r"last error: [A-Z_]+: (?:ipv[46]:(\S+): )?(?:Failed to connect to remote host: )?(.*)")
_REASON = re.compile(r"OPENSSL_internal:([A-Z0-9_]+)(?:: ([^:]+))?")

# what its text has : what that means. Another try would end as this one did
_FINAL = {
    "certificate has expired": "its certificate has expired: it needs a new one",
    "certificate is not yet valid": "its certificate is not valid yet: compare the clocks of both machines",
    "Hostname Verification Check failed": "its certificate is made out to other names: connect by one of those, or "
    "give it one for this name",
    "CERTIFICATE_VERIFY_FAILED": "its certificate is not trusted here ({reason}): give the certificate of the "
    "authority that signed it, tls='ca.pem'",
    "WRONG_VERSION_NUMBER": "it does not speak TLS: use grpc://, without `tls`",
    "Tls handshake failed": "the TLS handshake failed ({reason})",
}
_PASSING = {
    "Connection refused": "nothing listens at {address}: is the server running, and is it this port?",
    "lookup failed": "there is no host of that name",
}
_CLOSED = ("Socket closed", "Connection reset", "Broken pipe")
_WANTS_TLS = "TLS, use grpcs:// or `tls`"
_WANTS_CERTIFICATE = "a certificate of its clients, or another one, give tls=(CA, certificate, key)"


def is_final(text: str) -> bool:
    """Whether a connection failed in a way that does not pass."""
    return any(sign in text for sign in _FINAL)


def unreachable(text: str, *, secure: bool) -> str:
    """text : details of an UNAVAILABLE.   secure : whether TLS was tried."""
    last = _LAST.search(text)
    address = unquote(last[1]) if last is not None and last[1] else "this address"
    for sign, words in (_FINAL | _PASSING).items():
        if sign in text:
            return words.format(reason=_reason(text), address=address)
    if last is None:
        return text
    if last[2].startswith(_CLOSED):
        wanted = _WANTS_CERTIFICATE if secure else _WANTS_TLS
        return f"it closed the connection at once: where it wants {wanted}"
    return last[2]


def _reason(text: str) -> str:
    found = _REASON.search(text)
    return "no reason was given" if found is None else (found[2] or found[1].replace("_", " ").lower())
