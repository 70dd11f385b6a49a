"""One process of a run: reads the run folder, trains, and writes its result or its error there."""

from __future__ import annotations

import errno
import multiprocessing
import os
import signal
import sys
import threading
import time
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from mlscale.assembly.end_notification import tell_end
from mlscale.atomic_files import unwritable
from mlscale.config.composition import frozen
from mlscale.culprit import unforeseen
from mlscale.errors import MLScaleError
from mlscale.launch import debugger
from mlscale.launch import garbage_collection as garbage
from mlscale.launch import hung_process as hung
from mlscale.launch import rank as this_process
from mlscale.launch import rank_failures as failures
from mlscale.runs import processes as process
from mlscale.runs.folder import RunFolder
from mlscale.runs.initial_source import Initial
from mlscale.secrets.mask import Masker, masked_output

if TYPE_CHECKING:
    from mlscale.train.callbacks.stall_report import Report

# A checkpoint or a log that could not be written: the disk, a quota or a limit of the process is full.
_FULL = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS})

# An orphaned rank may hold its GPU for that long.
_WATCH_SECONDS = 0.5


def rank_main(folder: str, environment: Mapping[str, str], checkpoint: str, launcher: int) -> None:
    """Run a rank that the launcher started; its error goes into the run folder, for the parent to report.

    Args:
        environment: of the launching process; what this process has already, such as its rank, stays.
        checkpoint: to resume from; empty for a new run.
        launcher: the launching process.
    """
    # First: from here on code that is imported must see that it runs in a rank.
    this_process.enter()
    end_with(launcher)
    multiprocessing.set_start_method(None, force=True)  # a user's loaders start their workers as in one process
    # The fork server has the environment of its own start: variables that were set later, such as protected secrets,
    # come from the launching process.
    os.environ.update({name: value for name, value in environment.items() if name not in os.environ})
    path, rank = Path(folder), int(os.environ["RANK"])
    if rank:
        # The output of one rank is enough; errors come through the run folder.
        sys.stdout = open(os.devnull, "w")  # noqa: SIM115
    try:
        train(path, Path(checkpoint) if checkpoint else None)
    except MLScaleError as error:
        failures.write(path, rank, error)
        raise
    except Exception as error:
        # A collective fails in every rank when one rank ends: the error to report is that rank's.
        if what := failures.of_another_rank(error):
            failures.write_of_another(path, rank, what, error)
        else:
            failures.write(path, rank, unforeseen(error, f"rank {rank}"))
        raise


def train(folder: Path, checkpoint: Path | None = None) -> None:
    """Train what `folder` describes, from the start or from `checkpoint`; rank 0 writes `results/fit.json`.

    Raises:
        MLScaleError: what went wrong, such as out of memory; or the signal that stopped the run.
    """
    from mlscale.assembly.run import fit
    from mlscale.train import graceful_stop as signals
    from mlscale.train.callbacks import stall
    from mlscale.train.process_memory import explain

    os.umask(0o077)  # checkpoints and logs hold what the run saw: they are the user's alone
    cfg = frozen.load(folder)
    initial = None if checkpoint else Initial.of(RunFolder.open(folder).run.get("init"))  # a checkpoint has later ones
    masker = Masker.of(cfg)
    ours = garbage.claimed() or "RANK" in os.environ  # not a notebook's kernel, which a stalled run must not end
    rank = int(os.environ.get("RANK", "0"))

    def end_hung(error: MLScaleError, told: Report) -> None:
        hung.end(folder, error, told.hung, partial(tell_end, cfg))

    with (
        masked_output(masker),
        debugger.ready(cfg.get("debugger") or {}, rank, cfg.derived.world_size),
        # The handlers only note a signal, and the run stops at the next step boundary; once another rank has failed,
        # SIGTERM ends this one at once.
        signals.noted(over=lambda: failures.any_in(folder), ends_process=garbage.claimed()),
        stall.ended_by(end_hung if ours else None),
    ):
        try:
            outcome = fit(cfg, str(checkpoint) if checkpoint else None, initial)
        except MLScaleError:
            raise
        except Exception as error:
            told = explain(
                error,
                per_device_batch=cfg.derived.per_device_batch,
                accumulate=cfg.trainer.get("accumulate_grad_batches", 1),
                precision=cfg.precision.value,
            )
            # Lightning and torch let the system's error through when a checkpoint or a log can't be written.
            if told is None and isinstance(error, OSError) and error.errno in _FULL:
                told = unwritable(folder, error)
            if told is None:
                raise
            raise told from error
    if rank == 0:
        run = RunFolder.open(folder, masker)
        run.write_json("results/fit.json", vars(outcome))


def end_with(launcher: int) -> None:
    """End this rank when the launching process is gone, killed without notice: its result would not be used, and
    another attempt at the run may start. The same when its parent, the fork server, is gone: its end would not be
    noticed.
    """
    # With the start time, because the system gives the id of a dead process to a new one.
    started, parent = process.start_ticks(launcher), os.getppid()

    def watch() -> None:
        while process.alive(launcher, started) and os.getppid() == parent:
            time.sleep(_WATCH_SECONDS)
        # SIGKILL: a rank that hangs in a collective runs no handler.
        os.kill(os.getpid(), signal.SIGKILL)

    threading.Thread(target=watch, name="mlscale-launcher", daemon=True).start()
