"""Train what a recipe describes."""

from __future__ import annotations

import contextlib
import json
import math
import os
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

from omegaconf import OmegaConf

from mlscale.assembly.end_notification import notify_run_end
from mlscale.assembly.first_weights import resolve_first_weights
from mlscale.assembly.precision_probe import is_auto, restore_probe_outcome, settle_precision
from mlscale.assembly.queued_run import begin_queued_run, is_for_scheduler, read_shipped_digest, split_queued_run
from mlscale.assembly.run_data import RunData
from mlscale.atomic_files import check_writable, remove_empty_folders
from mlscale.commands.train.ranks import GatheredRanks, read_launch_setting, train_ranks
from mlscale.config.checks.notices import collect_notices, get_unpromised_source
from mlscale.config.checks.trust import find_distrusted
from mlscale.config.composition.frozen import add_derived, load_composed
from mlscale.config.derive import derive_values
from mlscale.config.metric_choice import reuse_choice
from mlscale.errors import Exit, MLScaleError
from mlscale.launch.external_launcher import JOIN_TIMEOUT, find_external_rank
from mlscale.launch.garbage_collection import defer_garbage_collection
from mlscale.launch.slurm.job_states import refuse_live_job
from mlscale.launch.start_notices import format_start_lines, print_masked_lines
from mlscale.report import Result, format_number, save_result
from mlscale.report.curves import build_metric_plots
from mlscale.report.text import format_percent
from mlscale.runs import ownership as own
from mlscale.runs.code.code_snapshot import CodeSnapshot, take_snapshot
from mlscale.runs.find import find_run, find_unfinished_run
from mlscale.runs.folder import RunFolder
from mlscale.runs.identity import compute_config_hash
from mlscale.runs.initial_source import InitialWeights
from mlscale.runs.lock import hold_run_lock, lock_runs_root
from mlscale.runs.resume_plan import AUTO, find_run_of_job, find_run_to_resume, format_unfinished_line, open_attempt
from mlscale.runs.run_reader import ENCODER
from mlscale.secrets.config_secrets import protect_config
from mlscale.secrets.mask import Masker

if TYPE_CHECKING:
    from omegaconf import DictConfig

_CLOUD_PLATFORMS = ("kubernetes", "skypilot", "torchrun")
_PROBE_FILE = "results/precision.json"  # the chosen precision compared with fp32, where both were measured
# The same values stand under a name of their own: the epoch's mean loss is train/loss, the peak is peak_memory_bytes.
_DUPLICATE_METRICS = ("train/loss_epoch", "train/peak_memory_gib")


def run(cfg: DictConfig) -> Result:
    """Derive, freeze, launch, record; or resume a run that was cut short.

    Raises:
        MLScaleError: what the data or the machine lacks, before anything starts; or what ended the run.
    """
    if (cfg.get("launch") or {}).get("scheduler") in _CLOUD_PLATFORMS:
        from mlscale.commands.train.cloud_submission import submit_cloud_run

        return submit_cloud_run(cfg)
    if is_for_scheduler(cfg):
        from mlscale.commands.train.submission import submit_run

        return submit_run(cfg)
    external = find_external_rank()
    if external is None:
        return _run_training(cfg)
    from mlscale.assembly.external_run import follow_first_rank, lead_ranks

    timeout_s = read_launch_setting(cfg, "timeout_s", JOIN_TIMEOUT)
    if external.rank:
        return follow_first_rank(external, timeout_s)
    with lead_ranks(external, timeout_s) as first:
        result = _run_training(cfg, GatheredRanks.gather(first, cfg))
        first.publish_end({"result": result.as_dict()})
    return result


def _run_training(cfg: DictConfig, ranks: GatheredRanks | None = None) -> Result:
    """Train in processes of its own, or with those that another launcher has started."""
    from mlscale.launch.local_launch import start_fork_server

    max_restarts = int(read_launch_setting(cfg, "max_restarts", 0))
    if ranks is None:
        # The fork server imports torch while this process prepares the data.
        start_fork_server(cfg.trainer.devices, as_children=max_restarts > 0)
    masker = Masker.create_for_run(cfg)
    with defer_garbage_collection():
        from mlscale.launch.local_devices import detect_local_devices

        machine = detect_local_devices()
        import_module("mlscale.assembly.run")
    run_data = RunData()
    facts, encoder = run_data.describe_data(cfg)
    derived = derive_values(cfg, facts, machine, ranks.layout if ranks else None)
    start = RunStart.prepare_start(cfg, masker)
    # The run's lock is taken inside the lock of the runs folder, and held until the end of the run.
    with contextlib.ExitStack() as locks:
        with lock_runs_root(Path(cfg.runs_dir), wanted=cfg.resume == AUTO) as made:
            locks.callback(remove_empty_folders, made)  # a start that is refused leaves nothing
            earlier = _find_earlier_run(cfg, start, ranks)
            if earlier is not None:
                refuse_live_job(earlier)
            queued, earlier = split_queued_run(earlier)
            if ranks is not None and earlier is not None and earlier.status == "done":
                # A rank failed after the run was sealed, and torchrun has started all of them again.
                return Result.from_dict(earlier.results["train"])
            origin = RunOrigin() if earlier or queued else RunOrigin.resolve_origin(cfg)
            # A resumed run keeps the precision that its first attempt has chosen: another one would give other numbers.
            probed = None if earlier else settle_precision(cfg, derived, machine, run_data)
            derived |= _restore_choices(cfg, earlier) if earlier else probed.outcome if probed else {}
            folder = earlier or (
                begin_queued_run(queued, start.config_yaml, derived)
                if queued
                else create_run_folder(cfg, start, derived, masker, origin)
            )
            _store_encoder(folder, encoder)
            locks.enter_context(hold_run_lock(folder))
        inexact: tuple[str, ...] = ()
        checkpoint, lines = (
            None,
            [*origin.format_lines(), *start.describe_unfinished_run(cfg, folder), *_describe_trust_need(folder)],
        )
        if probed is not None:
            lines.append(probed.line)
            folder.write_json(_PROBE_FILE, dict(probed.metrics))
        if earlier is not None:
            attempt = open_attempt(folder, derived["world_size"], start.digest)
            folder.update_config(start.config_yaml, derived)
            checkpoint, lines, inexact = attempt.checkpoint, list(attempt.lines), attempt.inexact
        if ranks is not None:
            lines += ranks.describe_lines(cfg)
            folder.note_agents(ranks.agents)
        # Read back from the folder, which has added run_dir and name.
        resolved_cfg = add_derived(cfg, folder.derived)
        print_masked_lines(
            (*format_start_lines(resolved_cfg, facts), *lines, *collect_notices(resolved_cfg, machine)), masker
        )

        def open_again() -> Path | None:
            again = open_attempt(folder, derived["world_size"], start.digest)
            print_masked_lines(again.lines, masker)
            return again.checkpoint

        try:
            train_ranks(
                folder.path,
                derived["world_size"],
                checkpoint,
                ranks=ranks,
                run_data=run_data,
                secrets=start.environment,
                max_restarts=max_restarts,
                open_again=open_again,
            )
        # Also Ctrl-C and signals: every run that has started is sealed.
        except BaseException as error:
            is_new = earlier is None and queued is None
            if is_new and isinstance(error, MLScaleError) and error.unbuilt and error.exit == Exit.USER:
                folder.discard_run()  # a config that is refused leaves nothing
            else:
                _seal_failed(folder, error)
                notify_run_end(resolved_cfg, folder)
            raise
        resolved_cfg = add_derived(cfg, folder.derived)  # the metric may have been chosen meanwhile
        # Before the seal, which records the digests of all files.
        result = save_result(build_train_result(resolved_cfg, folder, inexact), folder)
        folder.seal_run("done", metrics=result.metrics, sentence=result.sentence)
        notify_run_end(resolved_cfg, folder)
    return result


@dataclass(frozen=True)
class RunStart:
    """The start of a run, before it has a folder.

    Attributes:
        config_yaml: the composed config, interpolations kept, secrets taken out.
        code: the snapshot of the code, if one was requested.
        environment: variables with the literal secrets of the config.
        shipped_digest: of the code that was shipped with a job: the process imports that, whatever is here now.
    """

    config_yaml: str
    code: CodeSnapshot | None
    environment: Mapping[str, str]
    shipped_digest: str | None = None

    @classmethod
    def prepare_start(cls, cfg: DictConfig, masker: Masker) -> RunStart:
        """Return the start of a run. Literal secrets go into the environment: no file holds them, and ranks still see
        them.
        """
        plain = cfg.copy()
        plain.derived = dict.fromkeys(plain.derived)
        protected, environment = protect_config(plain)
        os.environ.update(environment)
        check_writable(Path(cfg.runs_dir))  # before anything is printed about a run that can't start
        shipped = read_shipped_digest()
        code = take_snapshot() if cfg.snapshot and not shipped else None
        print_masked_lines(code.format_warnings() if code else [], masker)
        return cls(OmegaConf.to_yaml(OmegaConf.create(protected)), code, environment, shipped)

    @property
    def digest(self) -> str | None:
        """The SHA-256 of the code."""
        return self.code.digest if self.code else self.shipped_digest

    def describe_unfinished_run(self, cfg: DictConfig, new: RunFolder) -> list[str]:
        """Return a line that names a run of the same config and code which was cut short, if there is one."""
        run = find_unfinished_run(
            compute_config_hash(self.config_yaml), self.digest, Path(cfg.runs_dir), exclude_id=new.id
        )
        stopped = run is not None and run.checkpoints and run.status in ("crashed", "failed", "interrupted")
        return [format_unfinished_line(run)] if run is not None and stopped else []


@dataclass(frozen=True)
class RunOrigin:
    """The origin of a new run: none, by default.

    Attributes:
        initial: its first weights.
        like: the run whose config it has.
    """

    initial: InitialWeights | None = None
    like: RunFolder | None = None

    @classmethod
    def resolve_origin(cls, cfg: DictConfig) -> RunOrigin:
        """Return the origin that the config names.

        Raises:
            MLScaleError: the run or checkpoint is not found, or corrupt.
        """
        return cls(resolve_first_weights(cfg), find_run(cfg.like, cfg.runs_dir) if cfg.like else None)

    @property
    def parent(self) -> str | None:
        """The id of the run that the new one starts from: that of its weights before that of its config."""
        # The weights decide what a model has learnt; a config alone does not.
        of_weights = self.initial.run if self.initial else None
        return of_weights or (self.like.id if self.like else None)

    def format_lines(self) -> list[str]:
        """Return the lines that report it."""
        lines = [f"like      {self.like.path.name}"] if self.like else []
        return lines + ([self.initial.format_weights_line()] if self.initial else [])


def _find_earlier_run(cfg: DictConfig, start: RunStart, ranks: GatheredRanks | None) -> RunFolder | None:
    """Return the run to resume: that which this job has begun before it restarted its ranks, or the requested one."""
    root = Path(cfg.runs_dir)
    of_job = find_run_of_job(ranks.agents, start.config_yaml, start.digest, root) if ranks and ranks.agents else None
    if of_job is not None or not cfg.resume:
        return of_job
    return find_run_to_resume(cfg.resume, start.config_yaml, start.digest, root)


def create_run_folder(
    cfg: DictConfig,
    start: RunStart,
    derived: dict[str, Any],
    masker: Masker,
    origin: RunOrigin,
    *,
    is_queued: bool = False,
) -> RunFolder:
    """Make the run folder; one that is queued waits for a job to train it."""
    return RunFolder.create(
        cfg.runs_dir,
        cfg.name,
        command="train",
        config_yaml=start.config_yaml,
        derived=derived,
        seed=cfg.seed,
        data_version=derived["data_version"],
        label_digest=derived["label_digest"],
        order_version=_get_order_version(),
        decode_version=derived.get("decode_version"),
        overrides=list(cfg.derived.overrides or []),
        tags=list(cfg.tags),
        notes=cfg.notes,
        metric=derived["metric"],
        mode=derived["mode"],
        code=start.code,
        parent=origin.parent,
        init=origin.initial.build_init_document() if origin.initial else None,
        sweep=cfg.derived.sweep_dir,
        masker=masker,
        is_queued=is_queued,
    )


def _store_encoder(folder: RunFolder, document: Mapping[str, Any] | None) -> None:
    """Write the encoder of a new run; that of a resumed one stays, unless it was lost."""
    if document is not None and not (folder.path / ENCODER).exists():
        folder.write_json(ENCODER, document)


def _restore_choices(cfg: DictConfig, run: RunFolder) -> dict[str, Any]:
    """Return the precision and the metric that the run chose when it began, where its config leaves them open.

    Raises:
        MLScaleError: derived.yaml, which holds them, is corrupt.
    """
    try:
        before = run.derived
    except MLScaleError as error:
        if not is_auto(cfg) and cfg.metric is not None and cfg.mode is not None:
            return {}
        why = "which precision or metric the run chose is lost with it"
        fix = f"restore it from a copy, or a new run: mlscale like={run.path}"
        raise MLScaleError(error.what, where=error.where, why=why, fix=fix) from error
    return restore_probe_outcome(cfg, before) | reuse_choice(cfg, before)


def _describe_trust_need(folder: RunFolder) -> list[str]:
    """Return a line if later commands will not trust this run's config, because its creator can't be proven."""
    # A proof was written, so later commands of this user trust the run (docs/decisions/0021).
    if folder.run.get("proof"):
        return []
    problems = find_distrusted(OmegaConf.to_container(load_composed(folder.path), resolve=False), folder.path)
    return [f"trust     later commands on this run need trust=true: {own.explain_missing_key()}"] if problems else []


def _seal_failed(folder: RunFolder, error: BaseException) -> None:
    """Seal a run that ended with `error`; where the disk is full it stays unsealed, and the error is reported."""
    try:
        folder.seal_run(_classify_ending(error), sentence=str(error))
    except MLScaleError as unwritten:
        with contextlib.suppress(OSError):
            print(f"warning   {unwritten.what}: {unwritten.why}", file=sys.stderr, flush=True)


def build_train_result(cfg: DictConfig, folder: RunFolder, inexact: tuple[str, ...] = ()) -> Result:
    """Return the result, from what rank 0 left in the run folder; `inexact`: why a resumed run may have other bits."""
    fit = json.loads((folder.path / "results/fit.json").read_text())
    metrics: dict[str, Any] = {}
    if fit["best"] is not None:
        metrics[f"best_{cfg.metric}"] = fit["best"][1]
    # Sorted: the order of logging may change from run to run, and tables are compared.
    metrics |= {name: fit["metrics"][name] for name in sorted(fit["metrics"]) if name not in _DUPLICATE_METRICS}
    if fit["samples"] and fit["train_seconds"]:
        # Of the training alone: set-up and validation would make short runs look slow.
        metrics["throughput_samples_per_s"] = fit["samples"] / fit["train_seconds"]
    metrics |= {"time_s": fit["seconds"], "steps": fit["steps"]}
    if fit["peak_memory_bytes"]:  # absent for a resumed fit with nothing left to do
        metrics["peak_memory_bytes"] = fit["peak_memory_bytes"]
    metrics |= fit.get("joined", {})
    if (folder.path / _PROBE_FILE).is_file():
        metrics |= json.loads((folder.path / _PROBE_FILE).read_text())
    metrics = {name: math.nan if value is None else value for name, value in metrics.items()}  # as `Result.from_dict`
    artifacts, steps = {"run": str(folder.path)}, fit["steps"]
    if fit["best"] is not None:
        artifacts["checkpoint"] = fit["best"][0]
    return Result(
        command="train",
        ok=fit.get("met", True),
        sentence="; ".join(
            [
                f"{cfg.name}: {_format_key_metric(cfg, metrics, fit['best'])} after {steps:,} step{'s' * (steps != 1)}"
                + _describe_resumption(fit, inexact, get_unpromised_source(cfg))
                + _format_failed_saves(fit),
                *fit.get("remarks", ()),
            ]
        ),
        metrics=metrics,
        artifacts=artifacts,
        figures=build_metric_plots(folder.path / "logs/metrics.csv", cfg.metric or "train/loss"),
    )


def _format_failed_saves(fit: dict[str, Any]) -> str:
    """Return a phrase with the number of checkpoints that could not be saved, if any."""
    count = fit.get("failed_saves", 0)
    return f"; disk full: {count} save{'s' * (count != 1)} of a checkpoint failed" if count else ""


def _format_key_metric(cfg: DictConfig, metrics: dict[str, Any], best_checkpoint: list[Any] | None) -> str:
    """Return the run's metric: at the best checkpoint, and at the end if that differs."""
    ends = (metrics.get(f"best_{cfg.metric}"), metrics.get(cfg.metric))
    shown = [_format_metric(cfg.metric, value) for value in ends if value is not None]
    if not shown:
        return f"no {cfg.metric or 'metric'} was logged"
    # Compared as shown: a difference that rounding hides is not worth two numbers.
    if len(set(shown)) == 1 or best_checkpoint is None:
        return f"{cfg.metric} {shown[0]}"
    return f"best {cfg.metric} {shown[0]} ({Path(best_checkpoint[0]).name}), {shown[1]} at the end,"


def _describe_resumption(fit: dict[str, Any], inexact: tuple[str, ...], data: str) -> str:
    """Return a phrase about a run that was resumed: bitwise identical is only claimed if nothing is known to differ.

    Args:
        fit: what rank 0 left.
        inexact: why it may have other bits.
        data: the source that may give other samples than before; '' if they are promised to be the same.
    """
    if fit["resumed_step"] is None:
        return ""
    why = "; ".join([*fit["inexact"], *inexact])
    same = f", if {data} gives the same samples again" if data else ""
    held = f"with the same samples{same}, not bitwise identical ({why})" if why else f"bitwise identical{same}"
    return f"; resumed from step {fit['resumed_step']:,} {held}"


def _format_metric(name: str, value: float) -> str:
    return format_percent(value, 2) if name.endswith("accuracy") else format_number(value)


def _classify_ending(error: BaseException) -> str:
    if isinstance(error, KeyboardInterrupt):
        return "interrupted"
    if isinstance(error, MLScaleError):
        stopped = (Exit.SAVED, Exit.INTERRUPTED, Exit.TERMINATED)
        return "diverged" if error.exit == Exit.DIVERGED else "interrupted" if error.exit in stopped else "failed"
    return "failed"


def _get_order_version() -> int:
    from mlscale.data.order.keyed_permutation import ORDER_VERSION

    return ORDER_VERSION
