"""The names and addresses of a real node, and the commands that make its network; nothing is run here."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable
from dataclasses import dataclass

from whimbrel_testbed.cache import TestbedError

INSIDE = "node0"
"""The name of the veth pair's end in the node."""

_NUMBERS = range(1, 255)


@dataclass(frozen=True)
class Network:
    """Addresses out of 198.18.0.0/15, which RFC 2544 keeps for benchmarks: nothing outside the machine has one."""

    number: int

    @property
    def link(self) -> str:
        """The name of the veth pair's end in the machine."""
        return f"whimbrel{self.number}"

    @property
    def group(self) -> str:
        """The name of the control group below which the node makes its own."""
        return f"whimbrel-{self.number}"

    @property
    def machine(self) -> str:
        """The machine's address, where the API server listens."""
        return f"198.18.{self.number}.1"

    @property
    def node(self) -> str:
        """The node's address, where kubelet listens."""
        return f"198.18.{self.number}.2"

    @property
    def pods(self) -> str:
        """The pods' range."""
        return f"198.19.{self.number}.0/24"

    def between(self, pid: int) -> list[list[str]]:
        """Return the commands, for the machine, that join it to the network namespace of a process."""
        return [
            ["ip", "link", "add", self.link, "type", "veth", "peer", "name", INSIDE, "netns", str(pid)],
            ["ip", "address", "add", f"{self.machine}/30", "dev", self.link],
            ["ip", "link", "set", self.link, "up"],
            ["ip", "route", "add", self.pods, "via", self.node],
        ]

    def inside(self) -> list[list[str]]:
        """Return the commands for the node's own namespace, after those of the machine's half but its last."""
        return [
            ["ip", "link", "set", "lo", "up"],
            ["ip", "address", "add", f"{self.node}/30", "dev", INSIDE],
            ["ip", "link", "set", INSIDE, "up"],
            ["ip", "route", "add", "default", "via", self.machine],
        ]


def free_network(taken: Iterable[str]) -> Network:
    """Return a network that overlaps none of those that the machine has a route to or an address in.

    >>> free_network(["127.0.0.0/8", "198.18.1.0/30"]).machine
    '198.18.2.1'
    """
    others = [ipaddress.ip_network(each, strict=False) for each in taken if each != "default"]
    for number in _NUMBERS:
        found = Network(number)
        own = [ipaddress.ip_network(f"{found.machine}/30", strict=False), ipaddress.ip_network(found.pods)]
        if not any(mine.overlaps(other) for mine in own for other in others):
            return found
    raise TestbedError("Every network of 198.18.0.0/15 is in use on this machine: `ip -4 route` shows by whom.")
