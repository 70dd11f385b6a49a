"""Aliases: names that move from version to version. All aliases of a model are in one file, replaced by one rename."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from mlscale.atomic_files import read_json, write_json
from mlscale.contracts import expect_format, get_format_tag
from mlscale.errors import MLScaleError
from mlscale.runs.identity import get_current_time
from mlscale.versions.version_reference import CHALLENGER, CHAMPION, PREVIOUS

FILE = "aliases.json"
_MOVES = 1000  # of a model; older ones are dropped, so that the file stays small


class CorruptAliasesError(MLScaleError):
    """The aliases of the model of a folder can't be read; a promotion of a version sets them aside."""

    def __init__(self, folder: Path, why: str) -> None:
        super().__init__(
            "the aliases of a model are corrupt",
            where=str(folder / FILE),
            why=why,
            fix=f"mlscale versions promote {folder.name}:v<the champion>, and give the others again",
        )


@dataclass(frozen=True)
class AliasMove:
    """The move of an alias from one version to another.

    Attributes:
        time: ISO 8601, with its time zone.
        act: publish, promote or rollback.
        alias: the alias that moved.
        before, after: numbers of versions; None where it had none, or was removed.
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
        moves: the history of moves, oldest first.
    """

    of: Mapping[str, int] = field(default_factory=dict)
    moves: tuple[AliasMove, ...] = ()

    @classmethod
    def read_aliases(cls, folder: Path) -> Aliases:
        """Return the aliases in the folder of a model; empty where no version was ever given one.

        Raises:
            CorruptAliasesError: the file is cut short or corrupt.
            MLScaleError: it can't be read, as without permission, or is of a later format.
        """
        path = folder / FILE
        if not path.exists():
            return cls()
        try:
            document = read_json(path)
        except MLScaleError as error:
            if isinstance(error.__cause__, OSError):  # a disk or a server that is away: the file may be whole
                raise
            raise CorruptAliasesError(folder, error.why or error.what) from error
        expect_format("aliases", document, str(path))
        try:
            of = {str(alias): int(number) for alias, number in document["aliases"].items()}
            # Other keys are ignored: a later mlscale may add some.
            moves = tuple(AliasMove(**{key: move[key] for key in _FIELDS}) for move in document["moves"])
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            raise CorruptAliasesError(folder, repr(error)) from error
        return cls(of, moves)

    def write_aliases(self, folder: Path) -> None:
        """Replace the aliases in the folder of a model atomically."""
        write_json(folder / FILE, self.build_aliases_document())

    def build_aliases_document(self) -> dict[str, Any]:
        """Return the content of aliases.json."""
        return {
            "format": get_format_tag("aliases"),
            "aliases": dict(sorted(self.of.items())),
            "moves": [asdict(move) for move in self.moves[-_MOVES:]],
        }

    def assign_alias(self, alias: str, number: int, act: str) -> Aliases:
        """Return the aliases with `alias` on the version `number`. The champion before becomes `previous`; a champion
        stops being the challenger."""
        # Unchanged: promoting the champion again must not make it its own `previous`.
        if self.of.get(alias) == number:
            return self
        wanted: dict[str, int | None] = {alias: number}
        if alias == CHAMPION:
            if CHAMPION in self.of:
                wanted[PREVIOUS] = self.of[CHAMPION]
            if self.of.get(CHALLENGER) == number:
                wanted[CHALLENGER] = None
        return self._move_aliases(wanted, act)

    def swap_champion(self, where: str) -> Aliases:
        """Return the aliases with champion and previous exchanged.

        Raises:
            MLScaleError: no previous champion is known.
        """
        if CHAMPION not in self.of or PREVIOUS not in self.of:
            raise MLScaleError(
                "no earlier champion to go back to",
                where=where,
                why="the second promotion of a model makes the first one 'previous'",
                fix="mlscale versions promote <version>",
            )
        return self._move_aliases({CHAMPION: self.of[PREVIOUS], PREVIOUS: self.of[CHAMPION]}, "rollback")

    def list_aliases_of(self, number: int) -> list[str]:
        """Return the aliases of one version, sorted."""
        return sorted(alias for alias, held in self.of.items() if held == number)

    def _move_aliases(self, wanted: Mapping[str, int | None], act: str) -> Aliases:
        time = get_current_time()
        # All moves of one act have the same time, so that they can be recognised as one.
        moves = [AliasMove(time, act, alias, self.of.get(alias), number) for alias, number in wanted.items()]
        merged = {**self.of, **wanted}
        of = {alias: number for alias, number in merged.items() if number is not None}
        return replace(self, of=of, moves=(*self.moves, *moves))


_FIELDS = ("time", "act", "alias", "before", "after")
