"""Whether a host is this machine: client and server allow plain text only there, since others could read it."""

from __future__ import annotations

import ipaddress


def is_local(host: str) -> bool:
    """Whether a host, without port and brackets, is this machine's loopback."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
