"""The weights that a run starts from: which file holds them, and the digest by which it is known again."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mlscale.errors import MLScaleError
from mlscale.runs import checkpoints
from mlscale.runs.files import sha256
from mlscale.runs.find import find
from mlscale.runs.folder import RUN, RunFolder


@dataclass(frozen=True)
class Initial:
    """Where a run's first weights are.

    Attributes:
        checkpoint: the file, absolute.
        sha256: of its content, in hex.
        run: the id of the run that saved it; None where the file lies in no run folder.
    """

    checkpoint: Path
    sha256: str
    run: str | None

    def document(self) -> dict[str, Any]:
        """What run.json keeps."""
        return {"checkpoint": str(self.checkpoint), "sha256": self.sha256, "run": self.run}

    @classmethod
    def of(cls, document: Mapping[str, Any] | None) -> Initial | None:
        """What `document` gave; None for none.

        Raises:
            MLScaleError: it is damaged.
        """
        try:
            return cls(Path(document["checkpoint"]), document["sha256"], document["run"]) if document else None
        except (KeyError, TypeError) as error:
            raise MLScaleError("run.json is damaged", where="run.json: init", why=repr(error)) from error

    def check(self) -> None:
        """See that the file holds what it held when the run began.

        Raises:
            MLScaleError: it does not, or is gone.
        """
        if not self.checkpoint.is_file() or sha256(self.checkpoint) != self.sha256:
            raise MLScaleError(
                "the weights that the run starts from are not there any more",
                where=str(self.checkpoint),
                why="the file has changed since the run began" if self.checkpoint.exists() else "the file is gone",
                fix="start a new run: init_from=<a checkpoint or run>",
            )


def find_initial(text: str, root: str | Path = "runs") -> Initial:
    """The weights that `text` means: a checkpoint by its path, or the best one of a run (its last one, if it has
    measured none).

    Raises:
        MLScaleError: there is no such file or run, the run has no checkpoint, or its digest does not hold.
    """
    path = Path(text).expanduser()
    if not path.is_file() or path.name == RUN:
        if text.endswith(checkpoints.SUFFIX):
            raise MLScaleError(
                "there is no such checkpoint", where=f"init_from={text}", fix="mlscale runs checkpoints last"
            )
        path = _best(find(text, root))
    found = checkpoints.verify(path)
    if found.bad:
        raise MLScaleError(
            "a run can't start from this checkpoint",
            where=str(path),
            why=checkpoints.explain(found),
            fix=f"mlscale runs checkpoints {path.absolute().parents[1]} shows which are whole"
            if path.parent.name == "checkpoints"
            else "init_from=<another checkpoint, or a run>",
        )
    path = path.absolute()
    return Initial(path, sha256(path), _run_of(path))


def _best(run: RunFolder) -> Path:
    folder, document = run.path / "checkpoints", run.run
    best = checkpoints.best(folder, document["metric"] or "", document["mode"] or "max")
    for path in (best, folder / f"last{checkpoints.SUFFIX}"):
        if path is not None and path.is_file():
            return path
    raise MLScaleError(
        f"the run {run.path.name} has no checkpoint to start from",
        where=str(folder),
        fix="init_from=<another run, or a checkpoint>",
    )


def _run_of(path: Path) -> str | None:
    folder = path.parents[1] if path.parent.name == "checkpoints" else None
    return RunFolder.open(folder).id if folder and (folder / RUN).is_file() else None
