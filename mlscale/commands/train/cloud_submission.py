"""Write the job files of a run for Kubernetes or SkyPilot from its frozen config, and submit them by their client."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from omegaconf import OmegaConf

from mlscale.atomic_files import write_text
from mlscale.commands.train.run_start import RunOrigin, RunStart, create_run_folder
from mlscale.config.schema.roots import get_shipped_folder
from mlscale.errors import MLScaleError
from mlscale.launch.cloud import (
    PLATFORMS,
    CloudJob,
    CloudPlatform,
    build_job_name,
    read_cloud_settings,
    render_yaml,
    resolve_runs_dir,
    run_client,
)
from mlscale.launch.kubernetes import KubernetesSettings, build_manifests, render_manifests
from mlscale.launch.skypilot import SkyPilotSettings, build_task
from mlscale.report import Result
from mlscale.runs.identity import get_current_time
from mlscale.runs.job_record import JobRecord
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
        job: the id of the job, as its platform has it.
        text: of its file, YAML.
        platform: that runs it.
    """

    job: str
    text: str
    platform: CloudPlatform


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
        path = folder.path / file.platform.file
        write_text(path, file.text)
        scheduler = str(cfg.launch.scheduler)
        # A file without a client is of use: it may be submitted from another machine.
        program = file.platform.commands["submit"].partition(" ")[0]
        is_submitted = shutil.which(program) is not None
        record = JobRecord(
            scheduler=scheduler,
            cluster=scheduler if is_submitted else "",
            id=file.job,
            submitted=get_current_time(),
            log="",
            max_requeues=0,
            max_failures=settings.max_failures,
            variables=tuple(settings.variables),
        )
        record.write(folder.path)
        command = file.platform.format_command("submit", record, folder.path)
        if is_submitted:
            run_client(command)
    except BaseException:  # a job that was not submitted leaves nothing
        folder.discard_run()
        raise
    artifacts, details = {"file": str(path), "run": str(folder.path)}, {"job": file.job}
    logs = file.platform.format_command("logs", record, folder.path)
    sentence = (
        f"submitted by {command}; {logs}"
        if is_submitted
        else f"written, not submitted: {program} is not installed here; where it is: {command}"
    )
    return Result("train", True, sentence, artifacts=artifacts, details=details)


def _replace_launch(cfg: DictConfig) -> DictConfig:
    """Return the config of the job's own processes, which must not be submitted again: with launch=local."""
    job = cfg.copy()
    job.launch = OmegaConf.load(get_shipped_folder("conf") / "launch/local.yaml")
    job.launch.timeout_s = cfg.launch.timeout_s
    return job


def _read_settings(cfg: DictConfig, start: RunStart) -> KubernetesSettings | SkyPilotSettings:
    launch: Any = OmegaConf.to_container(cfg.launch, resolve=True)
    required = list_required_variables(OmegaConf.create(start.config_yaml))  # type: ignore[arg-type]
    devices, runs_dir = cfg.trainer.get("devices", 1), str(cfg.runs_dir)
    if cfg.launch.scheduler == "kubernetes":
        return read_cloud_settings(KubernetesSettings, launch, devices, runs_dir, required)
    return read_cloud_settings(SkyPilotSettings, launch, devices, runs_dir, required)


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
        return _JobFile(f"{settings.namespace}/{job.name}", text, PLATFORMS["kubernetes"])
    return _JobFile(job.name, render_yaml(build_task(job, settings, Path.cwd())), PLATFORMS["skypilot"])


def _create_torchrun_error(cfg: DictConfig) -> MLScaleError:
    devices = cfg.trainer.get("devices", 1)
    words = " ".join(word for word in cfg.derived.overrides or [] if not word.lstrip("+").startswith("launch="))
    return MLScaleError(
        "torchrun starts mlscale, not the other way round",
        where="launch=torchrun",
        why="this option is for mlscale verify-resume and mlscale drill, which start torchrun themselves",
        fix=f"torchrun --nproc-per-node={devices} -m mlscale {words}",
    )
