"""Weights & Biases without surprises: no prompt, no hang, nothing sent that was not asked for."""

import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import wandb
from lightning_fabric.loggers.logger import rank_zero_experiment
from pytorch_lightning.loggers import WandbLogger

from mlscale.errors import Exit, MLScaleError

_INIT_SECONDS = 20.0  # for the server to answer; then the run is recorded offline


class WandB(WandbLogger):
    """Lightning's WandbLogger with a run that mlscale starts.

    The run is online when there is an API key and the server answers, else offline: one line says so and how to send
    it later. Console output, the code, git state and diffs stay here; code goes with the run when `save_code` is set.

    Args:
        save_dir: the run's files go to its folder ``wandb``.
        project, entity, group, name, tags, notes: as W&B has them.
        offline: True or False to decide; None means offline when there is no API key.
        system_metrics: let W&B note the machine and sample its CPU, memory and GPU use.
        save_code: send the code, git's state, and the list of installed packages.
        init_seconds: how long the server may take to answer.
    """

    def __init__(
        self,
        save_dir: str,
        *,
        project: str = "mlscale",
        entity: str | None = None,
        group: str | None = None,
        name: str | None = None,
        tags: Sequence[str] = (),
        notes: str = "",
        offline: bool | None = None,
        system_metrics: bool = False,
        save_code: bool = False,
        init_seconds: float = _INIT_SECONDS,
    ) -> None:
        super().__init__(name=name, save_dir=save_dir, project=project)
        self._init_arguments: dict[str, Any] = {
            "project": project,
            "entity": entity,
            "group": group,
            "name": name,
            "tags": list(tags),
            "notes": notes,
            "dir": save_dir,
        }
        self._offline_asked = offline
        self._system_metrics = system_metrics
        self._save_code = save_code
        self._init_seconds = init_seconds

    @property
    @rank_zero_experiment
    def experiment(self) -> Any:
        """The `wandb.Run`, started on first use; on other ranks a dummy that ignores everything."""
        if self._experiment is None:
            self._experiment = self._start()
            self._experiment.define_metric("trainer/global_step")
            self._experiment.define_metric("*", step_metric="trainer/global_step", step_sync=True)
        return self._experiment

    def finish(self, *, failed: bool = False) -> None:
        """End the run and wait until it is written, or sent. Lightning leaves this to the interpreter's exit, which
        worker processes do not reach."""
        if self._experiment is None:
            return
        folder = Path(self._experiment.dir).parent
        offline = self._experiment.offline
        self._experiment.finish(exit_code=int(failed))
        self._experiment = None
        wandb.teardown()  # waits for W&B's process: `finish` alone may return before an offline run is on the disk
        if offline:
            _say(f"W&B: recorded offline; to send it: wandb sync {folder}")

    def _start(self) -> Any:
        # W&B makes `dir/wandb` only where `dir` exists, else it moves to a temporary folder.
        Path(self._init_arguments["dir"]).mkdir(parents=True, exist_ok=True)
        if self._online():
            try:
                return self._init("online")
            except (wandb.errors.CommError, wandb.errors.AuthenticationError, wandb.errors.UsageError) as error:
                if self._offline_asked is False:
                    raise MLScaleError(
                        "W&B did not take the run",
                        where="logger.wandb.offline",
                        why=str(error),
                        fix="logger.wandb.offline=null records offline when that happens",
                        exit=Exit.ENVIRONMENT,
                    ) from error
                _say(f"W&B: recording offline, the server did not take the run ({str(error).splitlines()[0]})")
                wandb.teardown()  # the client that could not connect
        return self._init("offline")

    def _online(self) -> bool:
        if self._offline_asked or os.environ.get("WANDB_MODE", "online") != "online":
            return False
        # W&B's own look-up in the environment, its settings and netrc; it neither asks the user nor the server.
        if wandb.login(prompt=False, verify=False):
            return True
        if self._offline_asked is False:
            raise MLScaleError(
                "W&B has no API key",
                where="logger.wandb.offline",
                fix="wandb login, or WANDB_API_KEY=… in the environment; logger.wandb.offline=null records offline",
                exit=Exit.ENVIRONMENT,
            )
        _say("W&B: no API key, so this run is recorded offline; after `wandb login` they are recorded online")
        return False

    def _init(self, mode: Literal["online", "offline"]) -> Any:
        settings = wandb.Settings(
            console="off",
            disable_code=not self._save_code,
            disable_git=not self._save_code,
            disable_job_creation=True,
            init_timeout=self._init_seconds,
            save_code=self._save_code,
            silent=True,
            x_disable_machine_info=not self._system_metrics,
            x_disable_meta=True,  # it holds the command line, and secrets that were typed there
            x_disable_stats=not self._system_metrics,
            x_save_requirements=self._save_code,
        )
        return wandb.init(mode=mode, settings=settings, **self._init_arguments)


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)
