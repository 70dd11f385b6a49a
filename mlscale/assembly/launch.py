"""The processes of a run on one machine: this process, or one per device, started from the run folder."""

from __future__ import annotations

from pathlib import Path

from mlscale.assembly.run_data import RunData
from mlscale.assembly.worker import rank_main, train_run_folder
from mlscale.launch.local_launch import launch_ranks


def launch_training(
    folder: Path,
    world_size: int,
    checkpoint: Path | None = None,
    run_data: RunData | None = None,
    *,
    as_children: bool = False,
) -> None:
    """Train what `folder` describes, in `world_size` processes, from the start or from `checkpoint`.

    Args:
        run_data: has the data module that this process has built before; a single process trains with it.
        as_children: also a single process is another one than this.

    Raises:
        MLScaleError: the error of a rank, or the signal that stopped it; or the rank that died, and the cause.
    """
    # In this process, where a breakpoint or a profiler works as in any script (docs/decisions/launching.md).
    if world_size == 1 and not as_children:
        train_run_folder(folder, checkpoint, run_data)
    else:
        if run_data is not None:
            run_data.release_module()
        launch_ranks(rank_main, folder, world_size, checkpoint)
