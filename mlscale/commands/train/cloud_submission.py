"""Write the job files of a run for Kubernetes or SkyPilot from its frozen config, and submit them by their client."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from omegaconf import OmegaConf

from mlscale.atomic_files import write_text
from mlscale.commands.train.run_start import RunOrigin, RunStart, create_run_folder
from mlscale.config.schema.roots import get_shipped_folder
from mlscale.errors import MLScaleError
from mlscale.launch.cloud import (
    CloudJob,
    JobClient,
    build_job_name,
    has_client,
    read_cloud_settings,
    render_yaml,
    resolve_runs_dir,
    run_client,
)
from mlscale.launch.kubernetes import KubernetesSettings, build_manifests, render_manifests
from mlscale.launch.scheduled_jobs import CLIENTS, refuse_live_job
from mlscale.launch.skypilot import SkyPilotSettings, build_task
from mlscale.report import Result
from mlscale.runs.identity import get_current_time
from mlscale.runs.job_record import JobRecord, read_job_record
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
        client: of the platform.
    """

    job: str
    text: str
    client: JobClient


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
        path = folder.path / file.client.file
        write_text(path, file.text)
        words = file.client.build_submit_words(path, settings.variables)
        # A file without a client is of use: it may be submitted from another machine.
        is_submitted = has_client(words)
        record = JobRecord(
            scheduler=str(cfg.launch.scheduler),
            cluster=file.client.read_cluster() if is_submitted else "",
            id=file.job,
            submitted=get_current_time(),
            log="",
            max_requeues=0,
            max_failures=settings.max_failures,
            variables=tuple(settings.variables),
        )
        # First: a job without a record could not be cancelled.
        record.write(folder.path)
        if is_submitted:
            run_client(words)
    except BaseException:  # a job that was not submitted leaves nothing
        folder.discard_run()
        raise
    artifacts, details = {"file": str(path), "run": str(folder.path)}, {"job": file.job}
    sentence = _describe_submission(words, is_submitted, folder.id)
    return Result("train", True, sentence, artifacts=artifacts, details=details)


def resubmit_cloud_run(run: RunFolder, overrides: Sequence[str] = ()) -> Result:
    """Submit the job of a run again, from its file; the job resumes from what is on its volume.

    Raises:
        MLScaleError: the job waits or runs; settings were typed, which the file can't take; the client fails.
    """
    record = read_job_record(run.path)
    assert record is not None
    client = CLIENTS[record.scheduler]
    if overrides:
        raise MLScaleError(
            f"a job on {client.platform} is submitted again as its file has it",
            where=" ".join(overrides),
            why="the file was written when the run was submitted",
            fix=f"leave them out; or a new run: mlscale like={run.id} launch={record.scheduler} …",
        )
    refuse_live_job(run)
    words = client.build_submit_words(run.path / client.file, record.variables, record.cluster)
    cluster = record.cluster or client.read_cluster()
    again = replace(record, cluster=cluster, submitted=get_current_time(), cancelled=None)
    # What an earlier submission has left makes way, where it was one.
    if record.is_submitted and (prepare := client.build_prepare_words(record)):
        run_client(prepare)
    run_client(words)
    again.write(run.path)
    artifacts, sentence = {"run": str(run.path)}, _describe_submission(words, True, run.id)
    return Result("train", True, sentence, artifacts=artifacts, details={"job": record.id})


def _describe_submission(words: Sequence[str], is_submitted: bool, run_id: str) -> str:
    command = shlex.join(words)
    if is_submitted:
        return f"submitted by {command}; mlscale runs logs {run_id} follow=true"
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
        return _JobFile(f"{settings.namespace}/{job.name}", text, CLIENTS["kubernetes"])
    return _JobFile(job.name, render_yaml(build_task(job, settings, Path.cwd())), CLIENTS["skypilot"])


def _create_torchrun_error(cfg: DictConfig) -> MLScaleError:
    devices = cfg.trainer.get("devices", 1)
    words = " ".join(word for word in cfg.derived.overrides or [] if not word.lstrip("+").startswith("launch="))
    return MLScaleError(
        "torchrun starts mlscale, not the other way round",
        where="launch=torchrun",
        why="this option is for mlscale verify-resume and mlscale drill, which start torchrun themselves",
        fix=f"torchrun --nproc-per-node={devices} -m mlscale {words}",
    )
