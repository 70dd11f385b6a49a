"""Parse references to versions: `resnet`, `resnet:v7`, `resnet:latest`, `resnet@champion`."""

from __future__ import annotations

import re
from dataclasses import dataclass

from mlscale.errors import MLScaleError

LATEST = "latest"
CHAMPION, CHALLENGER, PREVIOUS = "champion", "challenger", "previous"
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,79}")
_ALIAS = re.compile(r"[a-z][a-z0-9_-]{0,39}")
_NUMBER = re.compile(r"v([1-9][0-9]{0,8})")
_NEAR_NUMBER = re.compile(r"(?i)(?:v|ver|version)?[-_. ]?0*([1-9][0-9]{0,8})")  # 7, V7, v07, version-7


@dataclass(frozen=True)
class VersionReference:
    """A parsed reference to a version.

    Attributes:
        name: the model.
        number: after `:v`; None without one.
        alias: after `@`, or `latest`; None without one.
    """

    name: str
    number: int | None = None
    alias: str | None = None

    @property
    def is_bare(self) -> bool:
        """True if it is only a model's name, which means its champion, or without one its latest version."""
        return self.number is None and self.alias is None

    def rename(self, name: str) -> str:
        """Return the text of the same reference to another model."""
        if self.number is not None:
            return f"{name}:v{self.number}"
        return name if self.alias is None else f"{name}:{LATEST}" if self.alias == LATEST else f"{name}@{self.alias}"


def parse_reference(text: str) -> VersionReference:
    """Return the reference in `text`.

    Raises:
        MLScaleError: it is not a reference.
    """
    match = re.fullmatch(r"([^:@]+)(?:(:)([^:@]+)|(@)([^:@]+))?", text)
    if match is None or not _NAME.fullmatch(match[1]):
        raise _make_invalid_reference_error(text)
    name, after_colon, after_at = match[1], match[3], match[5]
    # `latest` is not stored as an alias: it is computed, after a colon or an at sign.
    if after_colon == LATEST or after_at == LATEST:
        return VersionReference(name, alias=LATEST)
    number = _NUMBER.fullmatch(after_colon or after_at or "")
    if number:
        return VersionReference(name, number=int(number[1]))
    if after_at and _ALIAS.fullmatch(after_at):
        return VersionReference(name, alias=after_at)
    if after_colon:
        fix = f"{name}@{after_colon}" if _ALIAS.fullmatch(after_colon) else ""
        near_number = _NEAR_NUMBER.fullmatch(after_colon)
        fix = f"{name}:v{near_number[1]}" if near_number else fix
        raise _make_invalid_reference_error(text, fix)
    if after_at:
        lower = after_at.lower()
        raise _make_invalid_reference_error(text, f"{name}@{lower}" if _ALIAS.fullmatch(lower) else "")
    return VersionReference(name)


def check_model_name(name: str) -> str:
    """Return `name` if it is allowed as the name of a model.

    Raises:
        MLScaleError: it is not.
    """
    if _NAME.fullmatch(name):
        return name
    near = re.sub(r"[^A-Za-z0-9_.-]+", "-", name).strip("-._")[:80]
    raise MLScaleError(
        f"'{name}' is not a valid name of a model",
        where=f"name={name}",
        why="letters, digits, '_', '-' and '.', at most 80, a letter or a digit first",
        fix=f"name={near}" if near else "name=resnet",
    )


def check_alias(alias: str) -> str:
    """Return `alias` if it may be given to a version.

    Raises:
        MLScaleError: it may not, or the registry itself sets it.
    """
    if alias == PREVIOUS:
        raise MLScaleError(
            "'previous' is kept by the registry",
            where=f"alias={alias}",
            why="it is what was champion before",
            fix="mlscale versions rollback <name>",
        )
    # As an alias it would be ambiguous: `resnet@v7` means the version 7.
    if alias == LATEST or _NUMBER.fullmatch(alias):
        raise MLScaleError(
            f"'{alias}' can't be moved", where=f"alias={alias}", why="it names a version itself", fix="alias=champion"
        )
    if not _ALIAS.fullmatch(alias):
        near = re.sub(r"^[^a-z]+|[^a-z0-9_-]+", "-", alias.lower()).strip("-_")[:40]
        raise MLScaleError(
            f"'{alias}' is not a valid alias",
            where=f"alias={alias}",
            why="small letters, digits, '_' and '-', at most 40, a letter first",
            fix=f"alias={near or CHAMPION}",
        )
    return alias


def _make_invalid_reference_error(text: str, fix: str = "") -> MLScaleError:
    return MLScaleError(
        f"'{text}' names no version",
        where=f"ref={text}",
        why="a version is called resnet:v7, resnet:latest or resnet@champion",
        fix=fix or "mlscale versions ls",
    )
