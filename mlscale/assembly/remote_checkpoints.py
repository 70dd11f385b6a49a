"""Checkpoints of a run in an object store: the check before it, and the thread that uploads them."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from mlscale.config.checkpoint_address import find_checkpoint_address, get_address_key
from mlscale.runs.folder import RunFolder
from mlscale.runs.identity import compute_config_hash
from mlscale.runs.remote_checkpoints.run_copy import fetch_run, find_stored_run
from mlscale.runs.remote_checkpoints.store_access import check_store, open_store

if TYPE_CHECKING:
    import pytorch_lightning as pl
    from omegaconf import DictConfig

_STOP_SECONDS = 20.0  # for uploads once a signal has requested the stop: schedulers kill after half a minute or less


def check_checkpoint_store(cfg: DictConfig) -> None:
    """Write to the object store that the config names, if it names one, before anything else is done.

    Raises:
        MLScaleError: its package, credentials or bucket is missing, or it can't be reached.
    """
    if (address := find_checkpoint_address(cfg)) is not None:
        check_store(address, get_address_key(cfg))


def restore_unfinished_run(cfg: DictConfig, config_yaml: str, code: str | None) -> RunFolder | None:
    """Write the folder of the last unfinished run of this config and code from the object store that the config names;
    return None if it names none, or has no such run.

    Raises:
        MLScaleError: the store can't be read.
    """
    if (address := find_checkpoint_address(cfg)) is None:
        return None
    run = find_stored_run(address, compute_config_hash(config_yaml), code, get_address_key(cfg))
    return RunFolder.open(fetch_run(run, Path(cfg.runs_dir))) if run else None


def attach_uploader(trainer: pl.Trainer, cfg: DictConfig) -> None:
    """Let a trainer's checkpoints be uploaded to the address in the config, if it has one; for the first rank."""
    from mlscale.train.checkpoint.lightning_io import VerifiedCheckpointIO
    from mlscale.train.checkpoint.save_messages import print_warning
    from mlscale.train.checkpoint.uploader import CheckpointUploader
    from mlscale.train.graceful_stop import get_received_signal

    address, io = find_checkpoint_address(cfg), trainer.strategy.checkpoint_io
    if address is None:
        return
    if not isinstance(io, VerifiedCheckpointIO):
        print_warning(f"{type(io).__name__} saves the checkpoints: none is uploaded to {address}")
        return
    run = RunFolder.open(cfg.derived.run_dir)
    # Below the run's id: two runs with one address must not replace each other's checkpoints.
    address = f"{address}/{run.id}"
    # Recorded for the commands that read it; the launching process waits meanwhile.
    run.update_document(checkpoint_store=address)
    print_warning(f"checkpoints go to {address}", "upload")
    io.uploader = CheckpointUploader(
        open_store(address, get_address_key(cfg)),
        Path(run.path, "checkpoints"),
        get_limit=lambda: _STOP_SECONDS if get_received_signal() else None,
    )
