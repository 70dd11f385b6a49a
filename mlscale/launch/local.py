"""Where a run runs, on one machine: in this process, or in one process per device started from the run folder."""

from __future__ import annotations

import multiprocessing
import os
import signal
import uuid
from multiprocessing import forkserver
from pathlib import Path
from typing import Any

from mlscale.errors import Exit, MLScaleError
from mlscale.launch import failures
from mlscale.launch.worker import rank_main, train


def warm_up(devices: Any) -> None:
    """Start the fork server for more than one process now, so that it imports torch while this process does."""
    if isinstance(devices, int) and devices > 1:
        multiprocessing.set_forkserver_preload(["mlscale.launch.preload"])
        forkserver.ensure_running()


def launch(folder: Path, world_size: int) -> None:
    """Train what `folder` describes, in `world_size` processes.

    Ranks are forked from a fork server that has imported torch and Lightning and computed nothing: they start in a
    second or two whatever this process has done before. It may be older than the folder, so the secrets that the
    folder refers to travel with the call.

    Raises:
        MLScaleError: what a rank raised, a signal that stopped it among it; or which rank died, and of what.
    """
    if world_size == 1:
        train(folder)
        return
    warm_up(world_size)
    from torch.distributed.elastic.multiprocessing.api import SignalException
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
    from torch.distributed.launcher.api import LaunchConfig, elastic_launch

    config = LaunchConfig(
        min_nodes=1,
        max_nodes=1,
        nproc_per_node=world_size,
        rdzv_backend="c10d",
        rdzv_endpoint="localhost:0",
        run_id=uuid.uuid4().hex,
        start_method="forkserver",
        max_restarts=0,
        monitor_interval=0.1,
    )
    try:
        elastic_launch(config, rank_main)(str(folder), dict(os.environ))
    except ChildFailedError as error:
        raise failures.cause(folder, world_size, error) from None
    except SignalException as stop:
        # The ranks were told; what they could save, they saved.
        code = Exit.INTERRUPTED if stop.sigval == signal.SIGINT else Exit.TERMINATED
        raise MLScaleError(
            f"stopped by {stop.sigval.name}", where=str(folder), fix=f"mlscale runs show {folder.name}", exit=code
        ) from None
