"""Who may connect: so many clients at once, so many of one address; some places are for health and metrics alone.

A client that is over a limit may still ask whether the server is alive: its connection takes a reserved place. Where
these are taken, too, the oldest is closed, so that nobody can keep health checks out by holding them.
"""

from __future__ import annotations

import ipaddress
from collections import Counter
from typing import Protocol

RESERVED = 16
_PREFIX = 64
"""Bits of an IPv6 address: whoever has one address has all of its /64."""


class Closable(Protocol):
    """A connection, as far as its place is concerned."""

    def abort(self) -> None:
        """Close it at once."""


class Admission:
    """Counts connections.

    Args:
        limit: connections at once, besides the reserved ones.
        per_address: of one address; None: no limit of its own.
    """

    def __init__(self, limit: int, per_address: int | None) -> None:
        self._limit, self._per_address = limit, per_address
        self._admitted: dict[Closable, str] = {}
        self._addresses: Counter[str] = Counter()
        self._reserved: dict[Closable, None] = {}

    def enter(self, connection: Closable, peer: object) -> bool:
        """Count a connection from `peer`, a socket's address; whether it may ask for everything."""
        address = _address(peer)
        full = self._per_address is not None and self._addresses[address] >= self._per_address
        if full or len(self._admitted) >= self._limit:
            if len(self._reserved) >= RESERVED:
                oldest = next(iter(self._reserved))
                del self._reserved[oldest]
                oldest.abort()
            self._reserved[connection] = None
            return False
        self._admitted[connection] = address
        self._addresses[address] += 1
        return True

    def leave(self, connection: Closable) -> None:
        """A connection is closed."""
        self._reserved.pop(connection, None)
        address = self._admitted.pop(connection, None)
        if address is not None:
            self._addresses[address] -= 1
            if not self._addresses[address]:
                del self._addresses[address]


def _address(peer: object) -> str:
    """The client that `peer` belongs to, as one text."""
    host = str(peer[0]) if isinstance(peer, tuple) and peer else ""
    if ":" not in host:
        return host
    address = ipaddress.IPv6Address(host.partition("%")[0])
    if address.ipv4_mapped is not None:
        return str(address.ipv4_mapped)
    return str(ipaddress.IPv6Network((address, _PREFIX), strict=False))
