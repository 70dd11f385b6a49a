"""Train what a recipe describes."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Mapping
from dataclasses import replace
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

from omegaconf import OmegaConf

from mlscale.assembly.end_notification import notify_run_end
from mlscale.assembly.queued_run import begin_queued_run, is_for_scheduler, split_queued_run
from mlscale.assembly.remote_checkpoints import check_checkpoint_store, restore_unfinished_run
from mlscale.assembly.run_data import RunData
from mlscale.atomic_files import check_writable, remove_empty_folders, report_run_folder
from mlscale.commands.train.ranks import GatheredRanks, create_submission_error, read_launch_setting, train_ranks
from mlscale.commands.train.run_start import RunOrigin, RunStart, create_run_folder
from mlscale.commands.train.train_result import build_train_blocks, build_train_result, write_failure_page
from mlscale.config.checks.dali_support import check_dali_machine
from mlscale.config.checks.trust import find_distrusted
from mlscale.config.composition.frozen import add_derived, load_composed
from mlscale.config.derive import derive_values
from mlscale.config.metric_choice import reuse_choice
from mlscale.config.names.suggest import format_override
from mlscale.config.notices import collect_notices, get_inelastic_source
from mlscale.errors import STOPS, Exit, MLScaleError
from mlscale.launch.early_stop import EarlyStop, choose_early_signals, handle_early_signals
from mlscale.launch.external.external_launcher import JOIN_TIMEOUT, ExternalRank, find_external_rank
from mlscale.launch.garbage_collection import defer_garbage_collection
from mlscale.launch.job_environment import is_job_of
from mlscale.launch.scheduled_jobs import refuse_cloud_run, refuse_live_job
from mlscale.launch.slurm.job_guard import report_rank_error
from mlscale.launch.start_notices import format_start_lines, print_masked_lines
from mlscale.report import Result, save_result
from mlscale.runs import ownership as own
from mlscale.runs.folder import RunFolder
from mlscale.runs.lock import hold_run_lock, lock_runs_root
from mlscale.runs.remote_checkpoints.run_store import store_ended_run, upload_missing
from mlscale.runs.resume_plan import AUTO, find_run_of_job, find_run_to_resume, open_attempt, restate_fixes
from mlscale.runs.run_reader import ENCODER
from mlscale.secrets.mask import Masker

if TYPE_CHECKING:
    from omegaconf import DictConfig

# The user's config, or the machines: a folder that not all of them see. A bug leaves its run folder for a report.
_REFUSALS = (Exit.USER, Exit.ENVIRONMENT)
_CLOUD_PLATFORMS = ("kubernetes", "skypilot", "torchrun")


def run(cfg: DictConfig) -> Result:
    """Derive, freeze, launch, record; or resume a run that was cut short.

    Raises:
        MLScaleError: what the data or the machine lacks, before anything starts; or what ended the run.
    """
    external = find_external_rank()
    is_cloud = (cfg.get("launch") or {}).get("scheduler") in _CLOUD_PLATFORMS
    is_submitted = is_cloud or is_for_scheduler(cfg)
    if is_submitted and (external is None or external.world_size == 1):
        return _submit(cfg, is_cloud=is_cloud)
    is_follower = external is not None and external.rank > 0
    try:
        with handle_early_signals(choose_early_signals(external), is_reported=is_follower):
            if external is not None:
                return _run_rank(cfg, external, is_submitted=is_submitted)
            with report_rank_error(cfg.resume, Masker.create_for_run(cfg).mask_text):
                return _run_training(cfg)
    except MLScaleError as error:
        restate_fixes(error, cfg.resume, cfg.runs_dir)
        raise


def _submit(cfg: DictConfig, *, is_cloud: bool) -> Result:
    """Let a scheduler or a platform start the training."""
    if is_cloud:
        from mlscale.commands.train.cloud_submission import submit_cloud_run

        return submit_cloud_run(cfg)
    from mlscale.commands.train.submission import submit_run

    return submit_run(cfg)


def _run_rank(cfg: DictConfig, external: ExternalRank, *, is_submitted: bool) -> Result:
    """Train as one of the ranks that another launcher has started; the first one prepares the run for all."""
    from mlscale.assembly.external_run import follow_first_rank, lead_ranks

    timeout_s = read_launch_setting(cfg, "timeout_s", JOIN_TIMEOUT)
    if external.rank:
        return follow_first_rank(external, timeout_s)
    with lead_ranks(external, timeout_s) as first:
        # Among the ranks: the others wait for rank 0, and end with its error.
        if is_submitted:
            raise create_submission_error(external, cfg.launch.scheduler)
        with report_rank_error(cfg.resume, Masker.create_for_run(cfg).mask_text):
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
        from mlscale.assembly.run_parts import check_step_settings
        from mlscale.train.graceful_stop import note_stop_signals
    check_dali_machine(cfg, has_cuda=machine.cuda > 0)
    if not cfg.resume:  # a run that resumes may do without its store for a while
        check_checkpoint_store(cfg)
    run_data = RunData()
    facts, encoder = run_data.describe_data(cfg)
    derived = derive_values(cfg, facts, machine, ranks.layout if ranks else None)
    if not cfg.resume:  # a job's run is queued by now, and keeps its error
        check_step_settings(add_derived(cfg, derived))
    start = RunStart.prepare_start(cfg, masker)
    # The run's lock is taken inside the lock of the runs folder, and held until the end of the run.
    with contextlib.ExitStack() as locks:
        with lock_runs_root(Path(cfg.runs_dir), wanted=cfg.resume == AUTO) as made:
            locks.callback(remove_empty_folders, made)  # a start that is refused leaves nothing
            earlier = _find_earlier_run(cfg, start, ranks)
            if earlier is not None:
                locks.enter_context(report_run_folder(earlier.path))
                check_writable(earlier.path)
                refuse_cloud_run(earlier)
                refuse_live_job(earlier)
            elif cfg.resume:
                check_checkpoint_store(cfg)
            queued, earlier = split_queued_run(earlier)
            if ranks is not None and earlier is not None and earlier.status == "done":
                # A rank failed after the run was sealed, and torchrun has started all of them again.
                return Result.from_dict(earlier.results["train"])
            origin = RunOrigin() if earlier or queued else RunOrigin.resolve_origin(cfg)
            derived |= _restore_choices(cfg, earlier, derived) if earlier else {}
            folder = earlier or (
                begin_queued_run(queued, start.config_yaml, derived)
                if queued
                else create_run_folder(cfg, start, derived, masker, origin)
            )
            _store_encoder(folder, encoder)
            # Pods and other jobs that start again by themselves have `resume=auto`, and ranks of a launcher.
            is_job = is_job_of(folder.path) or (ranks is not None and cfg.resume == AUTO)
            locks.enter_context(hold_run_lock(folder, is_job=is_job))
        if earlier is not None and earlier.status == "done" and is_job:
            # A start on a node that the scheduler had lost has trained to the end while this one waited.
            return Result.from_dict(earlier.results["train"])
        if earlier is not None and earlier.status == "done" and (uploads := upload_missing(earlier.path)):
            print_masked_lines(uploads, masker)  # all that was left of it: nothing is trained
            return Result.from_dict(earlier.results["train"])
        attempt = None
        checkpoint, lines = (
            None,
            [*origin.format_lines(), *start.describe_unfinished_run(cfg, folder), *_describe_trust_need(folder)],
        )
        if earlier is not None:
            attempt = open_attempt(
                folder,
                derived["world_size"],
                start.digest,
                inelastic=get_inelastic_source(cfg),
                batch_size=(cfg.get("data") or {}).get("batch_size"),
            )
            folder.update_config(start.config_yaml, derived)
            checkpoint, lines = attempt.checkpoint, list(attempt.lines)
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

        if ranks is None:  # those of another launcher do so themselves
            locks.enter_context(note_stop_signals())
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
            if is_new and isinstance(error, MLScaleError) and error.unbuilt and error.exit in _REFUSALS:
                folder.discard_run()  # a start that is refused leaves nothing
            else:
                if isinstance(error, MLScaleError | EarlyStop):
                    error.run = str(folder.path)
                _seal_failed(resolved_cfg, folder, error)
                print_masked_lines(store_ended_run(folder.path), masker)
                notify_run_end(resolved_cfg, folder)
            raise
        resolved_cfg = add_derived(cfg, folder.derived)  # the metric may have been chosen meanwhile
        # Before the seal, which records the digests of all files.
        result = build_train_result(resolved_cfg, folder, attempt)
        blocks = build_train_blocks(resolved_cfg, folder, result.metrics, "done")
        typed = list(cfg.derived.overrides or ())
        result = save_result(replace(result, figures=blocks, overrides=typed), folder)
        folder.seal_run("done", metrics=result.metrics, sentence=result.sentence)
        print_masked_lines(store_ended_run(folder.path), masker)
        notify_run_end(resolved_cfg, folder)
    return result


def _find_earlier_run(cfg: DictConfig, start: RunStart, ranks: GatheredRanks | None) -> RunFolder | None:
    """Return the run to resume: that which this job has begun before it restarted its ranks, or the requested one."""
    root = Path(cfg.runs_dir)
    of_job = find_run_of_job(ranks.agents, start.config_yaml, start.digest, root) if ranks and ranks.agents else None
    if of_job is not None or not cfg.resume:
        return of_job
    typed = list(cfg.derived.overrides or ())
    earlier = find_run_to_resume(cfg.resume, start.config_yaml, start.digest, root, typed)
    # A machine that has replaced another one: the run is in the object store alone.
    return earlier or restore_unfinished_run(cfg, start.config_yaml, start.digest)


def _store_encoder(folder: RunFolder, document: Mapping[str, Any] | None) -> None:
    """Write the encoder of a new run; that of a resumed one stays, unless it was lost."""
    if document is not None and not (folder.path / ENCODER).exists():
        folder.write_json(ENCODER, document)


def _restore_choices(cfg: DictConfig, run: RunFolder, derived: Mapping[str, Any]) -> dict[str, Any]:
    """Return the threads and the metric that the run chose when it began, where its config leaves them open; of a run
    of an earlier version with `precision=auto`, the precision, too.

    Raises:
        MLScaleError: derived.yaml, which holds them, is corrupt.
    """
    try:
        before = run.derived
    except MLScaleError as error:
        if None not in (cfg.precision.value, cfg.metric, cfg.mode):
            return {}
        why = "which precision or metric the run chose is lost with it"
        fix = f"mlscale {format_override('like', str(run.path))}, a new run; or restore the file from a copy"
        what = error.what if (run.path / "derived.yaml").exists() else "derived.yaml is missing"
        raise MLScaleError(what, where=error.where, why=why, fix=fix) from error
    # Fewer or more threads would split sums in another way; a typed number wins, and another layout has another share.
    keeps_threads = not os.environ.get("OMP_NUM_THREADS") and before.get("world_size") == derived["world_size"]
    threads = {"threads": before["threads"]} if keeps_threads and "threads" in before else {}
    names = ("precision", "memory_format") if cfg.precision.value is None else ()  # interpolated
    return {name: before.get(name) for name in names} | reuse_choice(cfg, before) | threads


def _describe_trust_need(folder: RunFolder) -> list[str]:
    """Return a line if later commands will not trust this run's config, because its creator can't be proven."""
    # A proof was written, so later commands of this user trust the run (docs/decisions/runs.md).
    if folder.run.get("proof"):
        return []
    problems = find_distrusted(OmegaConf.to_container(load_composed(folder.path), resolve=False), folder.path)
    return [f"trust     later commands on this run need trust=true: {own.explain_missing_key()}"] if problems else []


def _seal_failed(cfg: DictConfig, folder: RunFolder, error: BaseException) -> None:
    """Seal a run that ended with `error`; where the disk is full it stays unsealed, and the error is reported."""
    try:
        write_failure_page(cfg, folder, error, _classify_ending(error))
        folder.seal_run(_classify_ending(error), sentence=str(error))
    except MLScaleError as unwritten:
        with contextlib.suppress(OSError):
            print(f"warning   {unwritten.what}: {unwritten.why}", file=sys.stderr, flush=True)


def _classify_ending(error: BaseException) -> str:
    if isinstance(error, KeyboardInterrupt | EarlyStop):
        return "interrupted"
    if isinstance(error, MLScaleError):
        return "diverged" if error.exit == Exit.DIVERGED else "interrupted" if error.exit in STOPS else "failed"
    return "failed"
