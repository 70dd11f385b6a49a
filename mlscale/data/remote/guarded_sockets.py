"""Sockets that are not opened to the metadata service of a cloud, whatever name led there."""

from __future__ import annotations

import socket
from typing import Any

from mlscale.data.remote.addresses import BlockedAddressError, is_blocked_number


def open_guarded_socket(address_info: tuple[Any, ...]) -> socket.socket:
    """Return a new socket for a number that a name was resolved to.

    This is the last step before a connection is opened, and the number is the one that is connected to: a name that
    is resolved to another number a moment later gains nothing.

    Raises:
        BlockedAddressError: the number is that of a metadata service.
    """
    family, kind, protocol, _, number = address_info
    if is_blocked_number(str(number[0])):
        # Its name is in its text, since libraries join the errors of several numbers to one text.
        raise BlockedAddressError(f"{BlockedAddressError.__name__}: {number[0]} is not connected to")
    return socket.socket(family, kind, protocol)
