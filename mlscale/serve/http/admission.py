"""Limits on connections: in total and for each client address; some are reserved for health and metrics.

A client over a limit may still check health and metrics: its connection takes a reserved slot. Where all of these are
in use, the oldest is closed, so that nobody can block health checks by holding them.
"""

from __future__ import annotations

import ipaddress
from collections import Counter
from typing import Protocol

RESERVED = 16
_PREFIX = 64
"""Bits of an IPv6 address that identify a client: whoever has one address has all of its /64."""


class Closable(Protocol):
    """A connection that can be closed to free its slot."""

    def abort(self) -> None:
        """Close the connection at once."""


class Admission:
    """Counts connections, and decides on new ones.

    Args:
        limit: the most connections at once, without the reserved ones.
        per_address: the most connections of one address; None: no limit.
    """

    def __init__(self, limit: int, per_address: int | None) -> None:
        self._limit, self._per_address = limit, per_address
        self._admitted: dict[Closable, str] = {}
        self._addresses: Counter[str] = Counter()
        self._reserved: dict[Closable, None] = {}

    def accept_connection(self, connection: Closable, peer: object) -> bool:
        """Count a connection from `peer`, a socket's address; return False if it is for health and metrics only."""
        address = _identify_client(peer)
        full = self._per_address is not None and self._addresses[address] >= self._per_address
        if full or len(self._admitted) >= self._limit:
            if len(self._reserved) >= RESERVED:
                # A dict keeps the order of insertion: its first key is the oldest connection.
                oldest = next(iter(self._reserved))
                # Removed here: `release_connection` is called later, when the connection has closed.
                del self._reserved[oldest]
                oldest.abort()
            self._reserved[connection] = None
            return False
        self._admitted[connection] = address
        self._addresses[address] += 1
        return True

    def release_connection(self, connection: Closable) -> None:
        """Remove a connection that was closed."""
        self._reserved.pop(connection, None)
        address = self._admitted.pop(connection, None)
        if address is not None:
            self._addresses[address] -= 1
            # Without this the counter would keep an entry for every address that ever connected.
            if not self._addresses[address]:
                del self._addresses[address]


def _identify_client(peer: object) -> str:
    """Return a text that identifies the client with the address `peer`."""
    host = str(peer[0]) if isinstance(peer, tuple) and peer else ""
    if ":" not in host:
        return host
    address = ipaddress.IPv6Address(host.partition("%")[0])
    # A dual-stack socket reports IPv4 clients as ::ffff:a.b.c.d; as IPv6, all of them would share one /64.
    if address.ipv4_mapped is not None:
        return str(address.ipv4_mapped)
    return str(ipaddress.IPv6Network((address, _PREFIX), strict=False))
