"""Write the job files of a run for Kubernetes or SkyPilot from its frozen config, and submit them by their client."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from omegaconf import OmegaConf

from mlscale.atomic_files import write_text
from mlscale.commands.train.run_start import RunOrigin, RunStart, create_run_folder
from mlscale.config.schema.roots import get_shipped_folder
from mlscale.errors import MLScaleError
from mlscale.launch.client_command import has_client, run_client
from mlscale.launch.cloud_job import CloudJob, build_job_name
from mlscale.launch.job_yaml import render_yaml
from mlscale.launch.kubernetes.manifests import build_manifests, render_manifests
from mlscale.launch.kubernetes.pod_settings import KubernetesSettings, read_kubernetes_settings
from mlscale.launch.skypilot.task_file import build_task
from mlscale.launch.skypilot.task_settings import SkyPilotSettings, read_skypilot_settings
from mlscale.launch.volume_paths import resolve_runs_dir
from mlscale.report import Result
from mlscale.secrets.config_secrets import list_required_variables
from mlscale.secrets.mask import Masker

if TYPE_CHECKING:
    from omegaconf import DictConfig

    from mlscale.runs.folder import RunFolder

_WITHOUT_GPUS = ("cpu", "mps")
# Filled in by the job, which reads the data.
_UNKNOWN = dict.fromkeys(("data_version", "label_digest", "metric", "mode"))


@dataclass(frozen=True)
class _JobFile:
    """A rendered job.

    Attributes:
        name: of its file in the run folder.
        text: YAML.
        command: submits it; the path of the file is its last word.
    """

    name: str
    text: str
    command: tuple[str, ...]


def submit_cloud_run(cfg: DictConfig) -> Result:
    """Freeze a run, write its job file into the run folder, and submit it where the platform's client is installed.

    Raises:
        MLScaleError: everything that is wrong with the settings; or the client's error (exit code 5), after which
            nothing is left behind.
    """
    if cfg.launch.scheduler == "torchrun":
        raise _create_torchrun_error(cfg)
    start = RunStart.prepare_start(_replace_launch(cfg), Masker.create_for_run(cfg))
    settings = _read_settings(cfg, start)
    origin = RunOrigin.resolve_origin(cfg)
    # Queued for ever as this machine sees it: the job's own run is on its volume.
    folder = create_run_folder(cfg, start, dict(_UNKNOWN), Masker.create_for_run(cfg), origin, is_queued=True)
    try:
        file = _render_job_file(cfg, settings, folder)
        if cfg.launch.dry_run:
            folder.discard_run()
            return Result("train", True, file.text.rstrip("\n"))
        path = folder.path / file.name
        write_text(path, file.text)
        words = [*file.command, str(path)]
        # A file without a client is of use: it may be submitted from another machine.
        is_submitted = has_client(words)
        if is_submitted:
            run_client(words)
    except BaseException:  # a job that was not submitted leaves nothing
        folder.discard_run()
        raise
    artifacts = {"job": build_job_name(cfg.name, folder.id), "file": str(path), "run": str(folder.path)}
    return Result("train", True, _describe_submission(words, is_submitted), artifacts=artifacts)


def _describe_submission(words: Sequence[str], is_submitted: bool) -> str:
    command = shlex.join(words)
    if is_submitted:
        return f"submitted by {command}"
    return f"written, not submitted: {words[0]} is not installed here; where it is: {command}"


def _replace_launch(cfg: DictConfig) -> DictConfig:
    """Return the config of the job's own processes, which must not be submitted again: with launch=local."""
    job = cfg.copy()
    job.launch = OmegaConf.load(get_shipped_folder("conf") / "launch/local.yaml")
    job.launch.timeout_s = cfg.launch.timeout_s
    return job


def _read_settings(cfg: DictConfig, start: RunStart) -> KubernetesSettings | SkyPilotSettings:
    launch: Any = OmegaConf.to_container(cfg.launch, resolve=True)
    required = list_required_variables(OmegaConf.create(start.config_yaml))  # type: ignore[arg-type]
    read = read_kubernetes_settings if cfg.launch.scheduler == "kubernetes" else read_skypilot_settings
    return read(launch, cfg.trainer.get("devices", 1), str(cfg.runs_dir), required)


def _render_job_file(cfg: DictConfig, settings: KubernetesSettings | SkyPilotSettings, folder: RunFolder) -> _JobFile:
    job = CloudJob(
        build_job_name(str(cfg.name), folder.id),
        folder.path,
        resolve_runs_dir(str(cfg.runs_dir), settings.volume_path),
        settings.nodes,
        int(cfg.trainer.devices),
        str(cfg.trainer.get("accelerator", "auto")) not in _WITHOUT_GPUS,
    )
    if isinstance(settings, KubernetesSettings):
        text = render_manifests(build_manifests(job, settings))
        return _JobFile("kubernetes.yaml", text, ("kubectl", "apply", "-f"))
    secrets = [f"--secret={name}" for name in settings.variables]
    task = render_yaml(build_task(job, settings, Path.cwd()))
    return _JobFile("skypilot.yaml", task, ("sky", "jobs", "launch", "--yes", "--detach-run", *secrets))


def _create_torchrun_error(cfg: DictConfig) -> MLScaleError:
    devices = cfg.trainer.get("devices", 1)
    words = " ".join(word for word in cfg.derived.overrides or [] if not word.lstrip("+").startswith("launch="))
    return MLScaleError(
        "torchrun starts mlscale, not the other way round",
        where="launch=torchrun",
        why="this option is for mlscale drill, which plays how torchrun ends its processes",
        fix=f"torchrun --nproc-per-node={devices} -m mlscale {words}",
    )
