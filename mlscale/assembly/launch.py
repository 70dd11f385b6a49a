"""Where a run runs, on one machine: in this process, or in one process per device started from the run folder."""

from __future__ import annotations

from pathlib import Path

from mlscale.assembly.worker import rank_main, train
from mlscale.launch.local_launch import launch_ranks


def launch(folder: Path, world_size: int, checkpoint: Path | None = None) -> None:
    """Train what `folder` describes, in `world_size` processes, from the beginning or from `checkpoint`.

    Raises:
        MLScaleError: what a rank raised, a signal that stopped it among it; or which rank died, and of what.
    """
    if world_size == 1:
        train(folder, checkpoint)
    else:
        launch_ranks(rank_main, folder, world_size, checkpoint)
