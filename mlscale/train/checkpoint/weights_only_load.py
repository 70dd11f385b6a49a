"""Load the content of a checkpoint after verifying its digest: tensors and plain values alone, never code."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import torch

from mlscale.config.names.suggest import format_override
from mlscale.errors import MLScaleError
from mlscale.runs.checkpoint_files.checkpoint_digest import verify_checkpoint
from mlscale.runs.checkpoint_files.checkpoint_record import describe_checkpoint_state
from mlscale.runs.checkpoint_files.checkpoint_search import find_latest_valid
from mlscale.runs.checkpoint_files.sharded_folder import STATE
from mlscale.train.checkpoint.shard_reader import read_sharded

if TYPE_CHECKING:
    from torch.serialization import MAP_LOCATION


OTHER_WEIGHTS = "init_from=<a checkpoint of another run>; this folder has no other one"


def load_checkpoint_file(
    path: str | Path, map_location: MAP_LOCATION = "cpu", *, otherwise: str = OTHER_WEIGHTS
) -> dict[str, Any]:
    """Return the content of a checkpoint after verifying its digest; other programs' files, without one, are read too.

    A sharded one, of any number of ranks, is read whole.

    Args:
        path: the file, or the folder of a sharded one.
        map_location: the device of the tensors; those of a sharded one are on the CPU.
        otherwise: the fix where the file is no use and its folder has no other one; each command has keys of its own.

    Raises:
        MLScaleError: it does not exist, is torn or altered, or holds objects that only code can build.
    """
    file = Path(path).expanduser()
    try:
        checked = verify_checkpoint(file)
        if checked.is_corrupt:
            raise MLScaleError(
                f"the checkpoint can't be used: {describe_checkpoint_state(checked)}",
                where=str(file),
                fix=_suggest_checkpoint(file, otherwise),
            )
        if file.is_dir():
            return read_sharded(file)
        return cast("dict[str, Any]", torch.load(file, map_location=map_location, weights_only=True))
    except OSError as error:
        raise MLScaleError(
            "the checkpoint can't be read",
            where=str(file),
            why=error.strerror or str(error),
            fix=_suggest_checkpoint(file, otherwise),
        ) from error
    except Exception as error:
        if isinstance(error, MLScaleError):
            raise
        foreign: list[str] = []
        # What another program wrote may be no pickle that can be searched for the classes that it names.
        with contextlib.suppress(Exception):
            foreign = find_unsafe_globals(file / STATE if file.is_dir() else file)
        if not foreign:
            raise MLScaleError(
                "the checkpoint can't be read",
                where=str(file),
                why=str(error).split("\n")[0],
                fix=_suggest_checkpoint(file, otherwise),
            ) from error
        raise MLScaleError(
            "the checkpoint holds more than tensors and plain values",
            where=str(file),
            why=f"to read {', '.join(foreign)} would run code out of the file",
            fix=SAVE_PLAIN_VALUES,
        ) from error


SAVE_PLAIN_VALUES = (
    "save plain values alone: self.save_hyperparameters(ignore=[…]), and tensors and numbers in state_dict() and "
    "on_save_checkpoint()"
)


def find_unsafe_globals(path: Path) -> list[str]:
    """Return the classes and functions named in a checkpoint that a weights-only load refuses, sorted."""
    return sorted(torch.serialization.get_unsafe_globals_in_checkpoint(path))


def _suggest_checkpoint(file: Path, otherwise: str) -> str:
    path, _ = find_latest_valid(file.parent) if file.parent.is_dir() else (None, [])
    if path is None:
        return otherwise
    # A checkpoint of the run that is named goes by its name, another program's weights by their file.
    named = f"checkpoint={path.stem}" if otherwise != OTHER_WEIGHTS else format_override("init_from", str(path))
    return f"{named}, the latest one there whose digest holds"
