"""Aliases: names that move from version to version. All aliases of a model are one file, replaced by one rename."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from mlscale.contracts import expect, stamp
from mlscale.errors import MLScaleError
from mlscale.files import read_json, write_json
from mlscale.runs.identity import now
from mlscale.versions.version_reference import CHALLENGER, CHAMPION, PREVIOUS

FILE = "aliases.json"
_MOVES = 1000  # kept: the latest


@dataclass(frozen=True)
class Move:
    """That an alias went from one version to another.

    Attributes:
        time: ISO 8601, with its time zone.
        act: publish, promote or rollback.
        alias: which.
        before, after: numbers of versions; None where it had none, or was taken away.
    """

    time: str
    act: str
    alias: str
    before: int | None
    after: int | None


@dataclass(frozen=True)
class Aliases:
    """The aliases of a model.

    Attributes:
        of: alias to the number of its version.
        moves: how they came there, oldest first.
    """

    of: Mapping[str, int] = field(default_factory=dict)
    moves: tuple[Move, ...] = ()

    @classmethod
    def read(cls, folder: Path) -> Aliases:
        """Those in the folder of a model; none where nothing was ever given one.

        Raises:
            MLScaleError: the file is damaged, or of a later format.
        """
        path = folder / FILE
        if not path.exists():
            return cls()
        document = read_json(path)
        expect("aliases", document, str(path))
        try:
            of = {str(alias): int(number) for alias, number in document["aliases"].items()}
            moves = tuple(Move(**{key: move[key] for key in _FIELDS}) for move in document["moves"])
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            raise MLScaleError(
                "the aliases of a model are damaged",
                where=str(path),
                why=repr(error),
                fix=f"restore it from a copy; or rm {path}, and mlscale versions promote {folder.name}:v1",
            ) from error
        return cls(of, moves)

    def write(self, folder: Path) -> None:
        """Replace those in the folder of a model, whole or not at all."""
        write_json(folder / FILE, self.document())

    def document(self) -> dict[str, Any]:
        """aliases.json."""
        return {
            "format": stamp("aliases"),
            "aliases": dict(sorted(self.of.items())),
            "moves": [asdict(move) for move in self.moves[-_MOVES:]],
        }

    def given(self, alias: str, number: int, act: str) -> Aliases:
        """`alias` on the version `number`. What was champion before becomes `previous`; who is champion is no
        challenger any more."""
        if self.of.get(alias) == number:
            return self
        wanted: dict[str, int | None] = {alias: number}
        if alias == CHAMPION:
            if CHAMPION in self.of:
                wanted[PREVIOUS] = self.of[CHAMPION]
            if self.of.get(CHALLENGER) == number:
                wanted[CHALLENGER] = None
        return self._moved(wanted, act)

    def swapped(self, where: str) -> Aliases:
        """Champion and previous, exchanged.

        Raises:
            MLScaleError: there is none to go back to.
        """
        if CHAMPION not in self.of or PREVIOUS not in self.of:
            raise MLScaleError(
                "there is no champion before this one to go back to",
                where=where,
                why="the second promotion of a model makes the first one 'previous'",
                fix="mlscale versions promote <version>",
            )
        return self._moved({CHAMPION: self.of[PREVIOUS], PREVIOUS: self.of[CHAMPION]}, "rollback")

    def on(self, number: int) -> list[str]:
        """The aliases of one version, sorted."""
        return sorted(alias for alias, held in self.of.items() if held == number)

    def _moved(self, wanted: Mapping[str, int | None], act: str) -> Aliases:
        time = now()
        moves = [Move(time, act, alias, self.of.get(alias), number) for alias, number in wanted.items()]
        merged = {**self.of, **wanted}
        of = {alias: number for alias, number in merged.items() if number is not None}
        return replace(self, of=of, moves=(*self.moves, *moves))


_FIELDS = ("time", "act", "alias", "before", "after")
