"""One process of a run: reads the run folder, trains, and writes its result or its error there."""

from __future__ import annotations

import errno
import multiprocessing
import os
import signal
import sys
import threading
import time
import traceback
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from mlscale.assembly.end_notification import notify_run_end
from mlscale.atomic_files import create_write_error
from mlscale.config.composition import frozen
from mlscale.culprit import wrap_unforeseen_error
from mlscale.errors import Exit, MLScaleError
from mlscale.launch import debugger
from mlscale.launch import garbage_collection as garbage
from mlscale.launch import hung_process as hung
from mlscale.launch import rank as this_process
from mlscale.launch import rank_failures as failures
from mlscale.launch.external.external_launcher import find_external_rank
from mlscale.runs.folder import RunFolder
from mlscale.runs.host import processes as process
from mlscale.runs.initial_source import InitialWeights
from mlscale.secrets.mask import Masker, mask_output

if TYPE_CHECKING:
    from omegaconf import DictConfig

    from mlscale.assembly.run_data import RunData
    from mlscale.train.callbacks.stall import StallReport

# A checkpoint or a log that could not be written: the disk, a quota or a limit of the process is full.
_DISK_FULL_ERRNOS = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS})

# An orphaned rank may hold its GPU for that long.
_WATCH_SECONDS = 0.5


def rank_main(folder: str, environment: Mapping[str, str], checkpoint: str, launcher: int) -> None:
    """Run a rank that the launcher started; its error goes into the run folder, for the parent to report.

    Args:
        environment: of this rank.
        checkpoint: to resume from; empty for a new run.
        launcher: the launching process.
    """
    # First: from here on code that is imported must see that it runs in a rank.
    this_process.mark_as_rank()
    end_with(launcher)
    multiprocessing.set_start_method(None, force=True)  # a user's loaders start their workers as in one process
    # The fork server has the environment of its own start: variables that were set later, such as protected secrets,
    # come from the launching process.
    os.environ.update(environment)
    path, rank = Path(folder), int(os.environ["RANK"])
    if rank:
        # The output of one rank is enough; errors come through the run folder.
        sys.stdout = open(os.devnull, "w")  # noqa: SIM115
    try:
        train_run_folder(path, Path(checkpoint) if checkpoint else None)
    except Exception as error:
        if os.environ.get("MLSCALE_TRACEBACK"):
            traceback.print_exc()
        sys.exit(_report_failure(path, rank, error))


def _report_failure(folder: Path, rank: int, error: Exception) -> int:
    """Write the error with which a rank ends into the run folder; return its exit code."""
    try:
        # A collective fails in every rank when one rank ends: the error to report is that rank's.
        if what := failures.classify_remote_failure(error):
            failures.write_remote_failure(folder, rank, what, error)
            return int(Exit.ENVIRONMENT)
        known = error if isinstance(error, MLScaleError) else wrap_unforeseen_error(error, f"rank {rank}")
        failures.write_rank_failure(folder, rank, known)
        return int(known.exit)
    except OSError:
        return failures.UNWRITTEN


def train_run_folder(folder: Path, checkpoint: Path | None = None, run_data: RunData | None = None) -> None:
    """Train what `folder` describes, from the start or from `checkpoint`; rank 0 writes `results/fit.json`.

    Args:
        run_data: has the data module, if this process has built it before.

    Raises:
        MLScaleError: what went wrong, such as out of memory; or the signal that stopped the run.
    """
    from mlscale.assembly.run import assemble_and_fit
    from mlscale.train import graceful_stop as signals
    from mlscale.train.callbacks import stall

    os.umask(0o077)  # checkpoints and logs hold what the run saw: they are the user's alone
    cfg = frozen.load_frozen(folder)
    initial = (
        None if checkpoint else InitialWeights.parse_document(RunFolder.open(folder).run.get("init"))
    )  # a checkpoint has later ones
    masker = Masker.create_for_run(cfg)
    can_end_process = (
        garbage.is_own_process() or "RANK" in os.environ
    )  # not a notebook's kernel, which a stalled run must not end
    rank = int(os.environ.get("RANK", "0"))
    is_rank, is_external = this_process.is_rank_process(), find_external_rank() is not None

    def end_hung(error: MLScaleError, stall: StallReport) -> None:
        hung.end_hung_process(folder, error, stall.others, partial(notify_run_end, cfg))

    with (
        mask_output(masker),
        debugger.enable_debugging(rank, cfg.derived.world_size),
        # The handlers only note a signal, and the run stops at the next step boundary; once another rank has failed,
        # SIGTERM ends this one at once.
        signals.handle_stop_signals(
            folder,
            # Another launcher's SIGTERM after a failure is waited out: this rank may have to report it.
            has_run_failed=lambda: not is_external and failures.has_rank_failures(folder),
            on_second="ignore" if is_rank else "end" if garbage.is_own_process() else "raise",
            ignores_after=is_rank or (is_external and garbage.is_own_process()),
            is_restarted=is_external,
        ),
        stall.set_stall_handler(end_hung if can_end_process else None),
    ):
        try:
            outcome = assemble_and_fit(cfg, str(checkpoint) if checkpoint else None, initial, run_data)
        except MLScaleError:
            raise
        except Exception as error:
            if (problem := _explain_fit_error(cfg, folder, error)) is None:
                raise
            raise problem from error
    if rank == 0:
        run = RunFolder.open(folder, masker)
        run.write_json("results/fit.json", vars(outcome))


def _explain_fit_error(cfg: DictConfig, folder: Path, error: Exception) -> MLScaleError | None:
    """Return what was wrong where a library says it in its own words: memory or the disk is full; else None."""
    from mlscale.train.process_memory import explain_out_of_memory

    problem = explain_out_of_memory(
        error,
        per_device_batch=cfg.derived.per_device_batch,
        accumulate=cfg.trainer.get("accumulate_grad_batches", 1),
        precision=cfg.precision.value,
    )
    # Lightning and torch let the system's error through when a checkpoint or a log can't be written.
    if problem is None and isinstance(error, OSError) and error.errno in _DISK_FULL_ERRNOS:
        return create_write_error(folder, error)
    return problem


def end_with(launcher: int) -> None:
    """End this rank when the launching process is gone, killed without notice: its result would not be used, and
    another attempt at the run may start. The same when its parent, the fork server, is gone: its end would not be
    noticed.
    """
    # With the start time, because the system gives the id of a dead process to a new one.
    started, parent = process.read_start_ticks(launcher), os.getppid()

    def watch_launcher() -> None:
        while process.is_alive(launcher, started) and os.getppid() == parent:
            time.sleep(_WATCH_SECONDS)
        # SIGKILL: a rank that hangs in a collective runs no handler.
        os.kill(os.getpid(), signal.SIGKILL)

    threading.Thread(target=watch_launcher, name="mlscale-launcher", daemon=True).start()
