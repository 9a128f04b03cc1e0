"""Network namespaces on one bridge, whose links are cut and healed: processes in them meet the host, and so the store
that listens on the bridge, over a real network, and one another through files alone.

    host   bridge 10.213.<n>.1 -- port -- namespace <name> 10.213.<n>.<m>
           neighbour entries say which address is where, so that a packet that nobody takes is lost in silence, as on a
           real network, and not refused by ARP

    BOTH      the port leaves the bridge: nothing passes
    ANSWERS   the host sends what is for the namespace to nobody: requests arrive, answers do not
    REQUESTS  the namespace sends what is for the host to nobody
"""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import cache

BOTH, ANSWERS, REQUESTS = "both", "answers", "requests"
WAYS = (BOTH, ANSWERS, REQUESTS)
_NOBODY = "02:00:00:00:00:99"
_FIRST_MEMBER = 2


class NoNetwork(Exception):
    """This process may not make namespaces."""


def ip(*words: str) -> str:
    """What `ip` prints. Raises NoNetwork where it fails."""
    try:
        done = subprocess.run(("ip", *words), capture_output=True, text=True, check=False)
    except FileNotFoundError:
        raise NoNetwork("there is no `ip`") from None
    if done.returncode:
        raise NoNetwork(f"ip {' '.join(words)}: {done.stderr.strip()}")
    return done.stdout


class Link:
    """A namespace and its link to the bridge. start processes with `prefix` before their words."""

    def __init__(self, bridge: str, subnet: str, name: str, member: int) -> None:
        self.name = f"{bridge}-{name}"
        self.address = f"{subnet}.{member}"
        self.prefix = ("ip", "netns", "exec", self.name)
        self._bridge, self._host = bridge, f"{subnet}.1"
        self._port, self._inside = f"{bridge}p{member}", f"{bridge}i{member}"
        self._mac, self._host_mac = f"02:00:00:00:01:{member:02x}", "02:00:00:00:01:01"
        self.is_cut: str | None = None

    def make(self) -> None:
        ip("netns", "add", self.name)
        ip("link", "add", self._port, "type", "veth", "peer", "name", self._inside, "netns", self.name)
        self._in("link", "set", self._inside, "address", self._mac)
        self._in("addr", "add", f"{self.address}/24", "dev", self._inside)
        self._in("link", "set", self._inside, "up")
        self._in("link", "set", "lo", "up")
        ip("link", "set", self._port, "up")
        self.heal()

    def cut(self, way: str = BOTH) -> None:
        """Lose what is sent from now on, also on connections that are open."""
        self.heal()
        if way == BOTH:
            ip("link", "set", self._port, "nomaster")
        elif way == ANSWERS:
            self._host_sends_to(_NOBODY)
        else:
            self._namespace_sends_to(_NOBODY)
        self.is_cut = way

    def heal(self) -> None:
        ip("link", "set", self._port, "master", self._bridge)
        self._host_sends_to(self._mac)
        self._namespace_sends_to(self._host_mac)
        self.is_cut = None

    def remove(self) -> None:
        with suppress(NoNetwork):
            ip("link", "del", self._port)
        with suppress(NoNetwork):
            ip("netns", "del", self.name)

    def _host_sends_to(self, mac: str) -> None:
        ip("neigh", "replace", self.address, "lladdr", mac, "nud", "permanent", "dev", self._bridge)

    def _namespace_sends_to(self, mac: str) -> None:
        self._in("neigh", "replace", self._host, "lladdr", mac, "nud", "permanent", "dev", self._inside)

    def _in(self, *words: str) -> None:
        ip("-n", self.name, *words)


class Network:
    """A bridge, and namespaces by name."""

    def __init__(self, *names: str) -> None:
        number = os.getpid() % 65_536
        self._bridge = f"vt{number:x}"
        subnet = f"10.213.{number % 256}"
        self.host = f"{subnet}.1"  # the address of the host on the bridge
        self.links = {
            name: Link(self._bridge, subnet, name, member) for member, name in enumerate(names, _FIRST_MEMBER)
        }

    def make(self) -> None:
        """Raises NoNetwork where this process may not."""
        ip("link", "add", self._bridge, "type", "bridge")
        ip("link", "set", self._bridge, "address", "02:00:00:00:01:01")
        ip("addr", "add", f"{self.host}/24", "dev", self._bridge)
        ip("link", "set", self._bridge, "up")
        for link in self.links.values():
            link.make()

    def remove(self) -> None:
        for link in self.links.values():
            link.remove()
        with suppress(NoNetwork):
            ip("link", "del", self._bridge)

    def __getitem__(self, name: str) -> Link:
        return self.links[name]


@contextmanager
def network(*names: str) -> Iterator[Network]:
    """A network of so many namespaces, removed at the end whatever happens. Raises NoNetwork."""
    made = Network(*names)
    try:
        made.make()
        yield made
    finally:
        made.remove()


@cache
def why_none() -> str | None:
    """Why this process can have no network of namespaces; None where it can."""
    try:
        with network("a") as made:
            made["a"].cut()
            made["a"].heal()
    except NoNetwork as reason:
        return str(reason)
    return None
