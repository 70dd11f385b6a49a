"""Paths of this machine, and what looks like the address of another place: that is never a local folder."""

from __future__ import annotations

import re

from mlscale.config.names.suggest import format_override
from mlscale.errors import MLScaleError

# `scheme:/…` of any scheme, which a letter alone is not; and `scheme:…` of those that are known.
_ADDRESS = re.compile(
    r"[a-z][a-z0-9+.-]+:/|(s3[an]?|gc?s|azure|az|abfss?|adl|wasbs?|https?|s?ftp|hdfs|webhdfs|dbfs|file|oss|oci|hf):",
    re.IGNORECASE,
)


PATH_PATTERN = f"^(?!{_ADDRESS.pattern})"
"""Of texts that are not addresses, for JSON schemas."""


def is_address(value: object) -> bool:
    """Return whether a value looks like an address, such as `s3://bucket/runs`; `./s3:` is a folder."""
    return isinstance(value, str) and _ADDRESS.match(value) is not None


def find_address(value: object) -> str:
    """Return the value if it looks like an address, else the first of a list that does; "" without one."""
    return next((str(item) for item in (value if isinstance(value, list) else [value]) if is_address(item)), "")


def create_address_error(key: str, address: str, where: str, why: str = "") -> MLScaleError:
    """Return the error for an address where a path of this machine is needed.

    Args:
        key: the setting or the environment variable.
        address: its value.
        where: that set it.
        why: what the setting is.
    """
    scheme, _, rest = address.partition(":")
    path = re.sub("^//(localhost)?(?=/)", "", rest) if scheme.lower() == "file" else ""
    return MLScaleError(
        f"{key} takes a path of this machine, not an address of '{scheme}:'",
        where=where,
        why="; ".join(filter(None, (why, "docs/remote.md has what takes addresses"))),
        fix=f"{'export ' * key.isupper()}{format_override(key, path) if path else f'{key}=<a path>'}",
    )


def expect_local_path(key: str, value: object, where: str, why: str = "") -> None:
    """Raise the error for an address, see `create_address_error`.

    Raises:
        MLScaleError: the value is one.
    """
    if is_address(value):
        raise create_address_error(key, str(value), where, why)
