"""Addresses of remote shards: what may be shown of them, what identifies a shard, and which hosts are never contacted.

Signed addresses and passwords are secrets, and the metadata service of a cloud gives out the machine's own: an address
comes out of a config, which may be from anyone, so it must not lead there, by a redirect or by a name neither.

A socket is not opened to it either, whatever name led there.
"""

from __future__ import annotations

import ipaddress
import posixpath
import re
import socket
from typing import Any
from urllib.parse import parse_qsl, unquote, urlencode, urlsplit, urlunsplit

from mlscale.errors import Exit, MLScaleError

HTTP = ("http", "https")
BUCKETS = {
    **dict.fromkeys(("s3", "s3a"), ("s3", "s3fs")),
    **dict.fromkeys(("gs", "gcs"), ("gs", "gcsfs")),
    **dict.fromkeys(("az", "abfs", "abfss"), ("az", "adlfs")),
}
"""For each scheme of an object store its extra and the package that reads it."""
SCHEMES = (*HTTP, *BUCKETS)

_SCHEME = re.compile(r"^([a-z][a-z0-9+.-]+)://", re.IGNORECASE)
# AWS signatures of version 4 and 2, Google's, Azure's shared access signatures, and CloudFront's.
_SIGNATURES = re.compile(
    r"^(x-amz-.*|x-goog-.*|awsaccesskeyid|googleaccessid|signature|expires|policy|key-pair-id|sig|se|sp|sv|sr|st|spr|"
    r"ske?|skoid|sktid|skt|sks|skv|token|access_token|api_?key)$",
    re.IGNORECASE,
)
_BLOCKED_NAMES = frozenset(
    {"metadata", "metadata.google.internal", "metadata.goog", "instance-data", "instance-data.ec2.internal"}
)
_BLOCKED_NETWORKS = (
    # AWS, Google, Azure, OpenStack, DigitalOcean, Oracle: all metadata services are link-local, in IPv6 too.
    ipaddress.ip_network("169.254.0.0/16"),
    ipaddress.ip_network("fe80::/10"),
    ipaddress.ip_network("fd00:ec2::/32"),
    # Those that are not: of Google, Oracle, Scaleway, Linode and Alibaba in IPv6.
    ipaddress.ip_network("fd20:ce::254/128"),
    ipaddress.ip_network("fd00:c1::a9fe:a9fe/128"),
    ipaddress.ip_network("fd00:42::42/128"),
    ipaddress.ip_network("fd00:a9fe:a9fe::1/128"),
    ipaddress.ip_network("fd00:100::100:200/128"),
    # Alibaba's; Azure's agent; that of Oracle's first cloud.
    ipaddress.ip_network("100.100.100.200/32"),
    ipaddress.ip_network("168.63.129.16/32"),
    ipaddress.ip_network("192.0.0.192/32"),
)
_EMBEDDING_NETWORKS = (
    # Gateways to IPv4, of the internet and of a site, and the first form of IPv4 in IPv6: the last 32 bits.
    ipaddress.ip_network("64:ff9b::/96"),
    ipaddress.ip_network("64:ff9b:1::/48"),
    ipaddress.ip_network("::/96"),
)


class BlockedAddressError(PermissionError):
    """A connection to the metadata service of a cloud, which was not opened."""


def get_scheme(entry: str) -> str | None:
    """Return the scheme of an address, in lower case; None for a path."""
    match = _SCHEME.match(entry)
    return None if match is None else match[1].lower()


def mask_address(address: str) -> str:
    """Return an address as messages show it: without user, password and query."""
    parts = urlsplit(address)
    return urlunsplit((parts.scheme, parts.netloc.rpartition("@")[2], parts.path, "***" if parts.query else "", ""))


def identify_shard(address: str) -> str:
    """Return what stays the same when an address is signed anew: that of the shard without its secrets."""
    parts = urlsplit(address)
    query = [(name, value) for name, value in parse_qsl(parts.query) if not _SIGNATURES.match(name)]
    return urlunsplit((parts.scheme, parts.netloc.rpartition("@")[2], parts.path, urlencode(query), ""))


def get_file_name(address: str) -> str:
    """Return the name of the file that an address leads to."""
    path = urlsplit(address).path
    # In a bucket '%' and '?' are letters of a key like others.
    return posixpath.basename(unquote(path) if get_scheme(address) in HTTP else _get_key(address))


def join_address(address: str, name: str) -> str:
    """Return the address of a neighbour of a file, with the same query: `name` is relative to the file's folder."""
    if get_scheme(address) not in HTTP:
        return posixpath.join(posixpath.dirname(address), name)
    parts = urlsplit(address)
    return urlunsplit(parts._replace(path=posixpath.join(posixpath.dirname(parts.path), name)))


def expect_public_host(address: str, where: str) -> None:
    """Refuse an address whose host is, by its name or number, the metadata service of a cloud.

    Raises:
        MLScaleError: it is; or the address has no host.
    """
    host = urlsplit(address).hostname or ""
    if not host:
        raise MLScaleError(
            f"the address {mask_address(address)!r} has no host", where=where, fix=f"{where}=https://<host>/<path>"
        )
    if is_blocked_host(host):
        raise build_blocked_error(address, where)


def is_blocked_host(host: str) -> bool:
    """Return True for the name or number of a metadata service. Other names are looked at once they are resolved."""
    name = host.lower().rstrip(".").strip("[]")
    return name in _BLOCKED_NAMES or is_blocked_number(name)


def is_blocked_number(text: str) -> bool:
    """Return True for an IP address of a metadata service; False for what is not an IP address."""
    try:
        # A scope may follow: fe80::1%eth0.
        number = ipaddress.ip_address(text.partition("%")[0])
    except ValueError:
        return False
    # ::ffff:169.254.169.254, and the same behind a NAT64 gateway, are IPv4 addresses.
    if isinstance(number, ipaddress.IPv6Address):
        number = _unpack_ipv4(number) or number
    return any(number in network for network in _BLOCKED_NETWORKS)


def build_blocked_error(address: str, where: str) -> MLScaleError:
    """Return the error of an address that leads to a metadata service."""
    return MLScaleError(
        f"the address {mask_address(address)!r} leads to the metadata service of a cloud",
        where=where,
        why="it gives out the machine's own credentials, and an address may come from anyone",
        fix=f"{where}=<an address of the data>",
        exit=Exit.USER,
    )


def _unpack_ipv4(number: ipaddress.IPv6Address) -> ipaddress.IPv4Address | None:
    if number.ipv4_mapped is not None:
        return number.ipv4_mapped
    if number.sixtofour is not None:
        return number.sixtofour
    if any(number in network for network in _EMBEDDING_NETWORKS):
        return ipaddress.IPv4Address(int(number) & 0xFFFFFFFF)
    return None


def _get_key(address: str) -> str:
    return address.partition("://")[2]


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
