"""Access control: programs that know the key may send requests, web pages of other sites may not.

A browser sends requests on behalf of any page, also to servers of this machine and its network. It states the page's
origin (Origin, Sec-Fetch-Site) and the name that it has looked up (Host): a name that an attacker makes point here (DNS
rebinding) is not this server's. Both are checked before a body is read.
"""

from __future__ import annotations

import base64
import contextlib
import hmac
import ipaddress
import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache

from mlscale.errors import MLScaleError
from mlscale.serve.http.request_error import Refused

_LOCAL = re.compile(r"(.+\.)?localhost")
_SHORTEST_KEY = 16
_SAFE = (b"GET", b"HEAD", b"OPTIONS")
_DEFAULT_PORTS = {"http": ":80", "https": ":443"}


@dataclass(frozen=True)
class Access:
    """The rules that a request has to meet.

    Attributes:
        key: the content of `Authorization: Bearer` or `x-api-key`; b"": no key is required.
        hosts: more names of the server than localhost and IP addresses, whose pages may use it; "*" for any.
        bound: the name that the server listens on.
        check_host: True to refuse other names.
    """

    key: bytes = b""
    hosts: frozenset[str] = frozenset()
    bound: str = "localhost"
    check_host: bool = True

    def check_request(self, method: bytes, headers: Mapping[bytes, bytes], *, key: bool = True) -> None:
        """Raise unless a request may be answered; `key`: True if it needs the key.

        Raises:
            Refused: for another host or of another origin (403), or without the key (401).
        """
        stated = (headers.get(b"host", b""), headers.get(b"origin", b""), headers.get(b"sec-fetch-site", b"none"))
        _check_sender(self, method in _SAFE, *stated)
        # Constant-time comparison: the time of a plain one would reveal the key byte by byte.
        if key and self.key and not hmac.compare_digest(_read_key(headers), self.key):
            raise Refused(
                "this needs the key of the server: send 'Authorization: Bearer <key>' or 'x-api-key: <key>'",
                401,
                # A browser asks for the key by the second, as the password; Chromium reads one of a line alone.
                b'WWW-Authenticate: Bearer\r\nWWW-Authenticate: Basic realm="the key as password"\r\n',
            )

    def is_server_name(self, host: str) -> bool:
        """Return whether a `Host` header names this server."""
        name = _parse_host_name(host)
        return (
            bool(_LOCAL.fullmatch(name))
            or name == self.bound
            or not {name, "*"}.isdisjoint(self.hosts)
            or _is_address(name)
        )


@lru_cache(256)  # a client states the same with each request; a refusal is not kept
def _check_sender(access: Access, is_safe: bool, stated_host: bytes, stated_origin: bytes, site: bytes) -> None:
    host, origin = stated_host.decode("latin-1"), stated_origin.decode("latin-1").lower()
    if access.check_host and host and not access.is_server_name(host):
        name = _parse_host_name(host)[:200]
        raise Refused(f"'{name}' is not a name of this server; hosts=[{name}] at its start would make it one", 403)
    scheme, _, authority = origin.partition("://")
    # A browser leaves the default port out of Origin, but may have it in Host.
    same = bool(authority) and authority == host.lower().removesuffix(_DEFAULT_PORTS.get(scheme, ":"))
    # A page that only reads is kept out by the same-origin policy: its browser does not show it the response.
    if is_safe or same or (authority and _parse_host_name(authority) in access.hosts):
        return
    # Programs send neither header; "none" is a page that a person has opened.
    if origin or site not in (b"none", b"same-origin"):
        raise Refused(f"this was sent by a web page of another site: {origin[:200] or 'unknown'}", 403)


def encode_key(key: str | None) -> bytes:
    """Return a key as bytes, to compare it with those of requests.

    Raises:
        MLScaleError: it is too short, or can't be sent in a header.
    """
    if key is None:
        return b""
    fix = "python -c 'import secrets; print(secrets.token_urlsafe(32))', which makes one"
    if len(key) < _SHORTEST_KEY:
        raise MLScaleError(
            f"api_key has {len(key)} characters", where="api_key", why=f"it has at least {_SHORTEST_KEY}", fix=fix
        )
    if not key.isascii() or not key.isprintable() or " " in key:
        raise MLScaleError(
            "api_key can't be sent in a header", where="api_key", why="it has other characters than ASCII's", fix=fix
        )
    return key.encode()


def check_exposure(address: str, *, loopback: bool, key: bytes, tls: bool, behind_proxy: bool) -> None:
    """Raise unless other machines need the key, and can't overhear it.

    Raises:
        MLScaleError: they could.
    """
    if loopback or behind_proxy or (key and tls):
        return
    missing = [name for name, is_given in (("api_key", key), ("tls_cert with tls_key", tls)) if not is_given]
    raise MLScaleError(
        f"host={address} lets other machines send requests without {' and '.join(missing)}",
        where="host",
        why="anybody who reaches the port could send requests and labels, read answers, or overhear the key; a proxy "
        "that terminates TLS and authenticates prevents that, too",
        fix="host=127.0.0.1\napi_key='${oc.env:SERVE_KEY}' tls_cert=cert.pem tls_key=key.pem\nbehind_proxy=true",
    )


def _read_key(headers: Mapping[bytes, bytes]) -> bytes:
    scheme, _, token = headers.get(b"authorization", b"").partition(b" ")
    if scheme.lower() == b"basic":
        with contextlib.suppress(ValueError):
            return base64.b64decode(token).partition(b":")[2]
    return token.strip() if scheme.lower() == b"bearer" else headers.get(b"x-api-key", b"")


def _parse_host_name(host: str) -> str:
    """Return the name in `name:port`, lower case."""
    if host.startswith("["):  # an IPv6 address
        return host[1:].partition("]")[0].lower() if ":" in host.partition("]")[0] else ""
    return host.partition(":")[0].lower().removesuffix(".")


def _is_address(name: str) -> bool:
    """Return whether a host is an IP address, which DNS rebinding can't forge: it needs a name."""
    try:
        ipaddress.ip_address(name.partition("%")[0])
    except ValueError:
        return False
    return True
