"""Plan how to resume an interrupted run: find it, check that it may be resumed, and choose its checkpoint."""

from __future__ import annotations

import re
import shlex
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

import yaml

from mlscale.atomic_files import remove_leftovers
from mlscale.config.names.suggest import format_override
from mlscale.errors import MLScaleError
from mlscale.runs.checkpoint_files.checkpoint_digest import read_checkpoint_metadata
from mlscale.runs.checkpoint_files.checkpoint_record import CheckpointRecord
from mlscale.runs.checkpoint_files.checkpoint_search import find_latest_valid, list_checkpoint_files
from mlscale.runs.edited import is_edited, list_edited_keys
from mlscale.runs.find import find_newest_run, find_run, find_unfinished_run
from mlscale.runs.folder import RunFolder
from mlscale.runs.identity import UNHASHED, compute_config_hash, find_differing_keys
from mlscale.runs.recover import warn_once
from mlscale.runs.remote_checkpoints.run_store import restore_latest

AUTO = "auto"


@dataclass(frozen=True)
class ResumePlan:
    """A run to resume.

    Attributes:
        folder: the run.
        checkpoint: the checkpoint to resume from; None where there is none, and the run starts over.
        step: the optimizer step that the checkpoint was saved after.
        lines: messages for the user.
        inexact: the known reasons why it may not be bitwise identical to the run without the interruption.
        other_batches: 'other batches', with the reason and what that does to samples, where they may be others than
            without the interruption; '' where they are the same.
    """

    folder: RunFolder
    checkpoint: Path | None
    step: int
    lines: tuple[str, ...]
    inexact: tuple[str, ...] = ()
    other_batches: str = ""


def find_run_to_resume(
    resume: str, config_yaml: str, code: str | None, root: Path, typed: Collection[str] = ()
) -> RunFolder | None:
    """Return the run for `resume`: the one that it names, or with 'auto' the last unfinished one of this config and
    code; None if there is none. `typed` are the overrides of this start, for messages.

    Raises:
        MLScaleError: the run is not found, or its config computes something else.
    """
    if resume == AUTO:
        return find_unfinished_run(compute_config_hash(config_yaml), code, root)
    run = find_run(resume, root)
    if run.run["config_hash"] == compute_config_hash(config_yaml):
        return run
    # The stored hash differs: either the settings do, or, if none does, config.yaml was edited after the start.
    config = yaml.safe_load(config_yaml)
    keys = find_differing_keys(yaml.safe_load(run.config_text), config)
    if keys:
        raise MLScaleError(
            f"with other settings this would be another run than {run.path.name}",
            where=", ".join(_name_groups(keys)[:5]),
            why="a run resumes with its settings; only devices, trackers, names and runs_dir may change",
            fix="\n".join([f"mlscale runs resume {run.id}", *_suggest_new_run(run.id, keys, config, typed)]),
        )
    if is_edited(run):
        edited = ", ".join(list_edited_keys(run))
        raise MLScaleError(
            f"the config.yaml of {run.path.name} is not the one that it began with",
            where=str(run.path / "config.yaml"),
            why=f"it was edited or corrupted{edited and ': '}{edited}; its checkpoints are of what it was",
            fix=f"mlscale like={run.id} init_from={run.id}, a new run of this config; or restore it from a copy",
        )
    return run


def restate_fixes(error: MLScaleError, resume: str | None, runs_dir: str) -> None:
    """Turn each fix that the resume would refuse, as it changes what the run computes, into a new run like it."""
    if resume in (None, "null", AUTO):
        return
    words = [format_override("like", resume), *([] if runs_dir == "runs" else [format_override("runs_dir", runs_dir)])]
    for problem in error.list_problems():
        problem.fix = "\n".join(
            " ".join(["mlscale", *words, line]) if _changes_settings(line) else line
            for line in problem.fix.splitlines()
        )


def _changes_settings(fix: str) -> bool:
    key = re.match(r"['\"]?([a-z][\w./]*)=", fix)
    return key is not None and not {key[1], key[1].partition(".")[0]} & set(UNHASHED)


def _name_groups(keys: Collection[str]) -> list[str]:
    """Return the keys with the name of a group, once, in place of its keys where another option of it was chosen."""
    groups = {key.removesuffix("._target_") for key in keys if key.endswith("._target_")}
    named = (next((group for group in groups if key.startswith(f"{group}.")), key) for key in keys)
    return list(dict.fromkeys(named))


def _suggest_new_run(run_id: str, keys: Collection[str], config: object, typed: Collection[str]) -> list[str]:
    """Return the command for a new run with these keys of the config; none where they can't be typed."""
    words = []
    for key in _name_groups(keys):
        option = next((word for word in typed if word.startswith(f"{key}=")), None)
        if option is not None:
            words.append(option)
            continue
        value = config
        for part in key.split("."):
            value = value.get(part) if isinstance(value, dict) else None
        # A list or an absent key is an option of its group, and which one the keys do not show.
        if not isinstance(value, (int, float, str)):
            return []
        words.append(f"{key}={str(value).lower() if isinstance(value, bool) else value}")
    return [shlex.join(["mlscale", f"like={run_id}", *words])]


def find_run_of_job(agents: Collection[str], config_yaml: str, code: str | None, root: Path) -> RunFolder | None:
    """Return the run of this config and code that these agents of torchrun began, whatever its status; None if they
    began none.

    Agents outlive their ranks: where one of the last attempt is among those of this start, the job is the same.
    """
    run = find_newest_run(compute_config_hash(config_yaml), code, root)
    return run if run is not None and set(agents) & set(run.run["attempts"][-1].get("agents", ())) else None


def open_attempt(
    run: RunFolder, world_size: int, code: str | None, *, inelastic: str = "", batch_size: int | None = None
) -> ResumePlan:
    """Start another attempt at a run whose lock this process holds.

    Args:
        run: the run.
        world_size: the number of processes now.
        code: the digest of the code now.
        inelastic: the source of samples that does not promise the same global batches on another number of processes;
            '' where it does.
        batch_size: samples of an optimizer step; None where unknown.

    Raises:
        MLScaleError: it has ended, or its checkpoints can't be used.
    """
    status = run.status
    if status in ("done", "diverged"):
        again = "from the same checkpoint, on the same samples, it would again; like= starts one with other settings"
        why = again if status == "diverged" else ""
        raise MLScaleError(
            f"the run {run.path.name} {'is done' if status == 'done' else 'has diverged'}",
            where=str(run.path),
            why=why,
            fix=f"mlscale runs show {run.id}",
        )
    # Files that a killed attempt left incomplete; the caller's lock excludes a process that still writes them.
    remove_leftovers(run.path)
    checkpoint, left_out = _choose_checkpoint(run)
    record = read_checkpoint_metadata(checkpoint).record if checkpoint else None
    step = record.step if record else 0
    before = _read_last_world_size(run)
    lines = [*left_out, _format_resume_line(run, checkpoint, step)]
    other_batches = ""
    if before is not None and before != world_size:
        other_batches = _describe_other_batches(inelastic, record, batch_size)
        same = "the same global batches, but sums in another order, so not the same bits"
        again = f"trainer.devices={before}, as before, keeps them, and data of mlscale keeps them on any number"
        lines.append(
            f"layout    {before} process{_get_plural_suffix(before)} before, {world_size} now: "
            + (f"{other_batches}; {again}" if other_batches else same)
        )
    inexact = []
    if code != (run.run["code"] or {}).get("digest"):
        lines.append("code      has changed since the run began: it is resumed with today's")
        inexact.append("the code has changed")
    # Last: it removes the seal, so nothing that may raise comes after it.
    run.start_attempt(step)
    return ResumePlan(run, checkpoint, step, tuple(lines), tuple(inexact), other_batches)


def _describe_other_batches(inelastic: str, record: CheckpointRecord | None, batch_size: int | None) -> str:
    """Return what another number of processes does to the batches of a source; '' where they stay the same."""
    if not inelastic:
        return ""
    other = f"other batches, as {inelastic} does not promise the same ones on another number of processes"
    if record is None:  # the run starts over
        return other
    # Later epochs may have any number of steps: how far the checkpoint is in one of them is not recorded.
    most = f"up to {record.step * batch_size:,} samples" if batch_size and record.epoch == 0 else "samples"
    return f"{other}: of an epoch that was interrupted {most} may come twice, and as many not at all"


def _read_last_world_size(run: RunFolder) -> int | None:
    """Return the number of processes of the last attempt; None where that is lost."""
    try:
        return run.derived.get("world_size")
    except MLScaleError as error:
        warn_once(f"{error.where} is corrupt ({error.why}): derived again")
        return None


def _choose_checkpoint(run: RunFolder) -> tuple[Path | None, list[str]]:
    """Return the run's own latest valid checkpoint, and a sentence for each one that is left out.

    Raises:
        MLScaleError: it has only checkpoints of another run, or its initial weights are unknown.
    """
    folder, own = run.path / "checkpoints", (run.id, str(run.run["config_hash"]))
    downloads = restore_latest(run.path, own)
    checkpoint, left_out = find_latest_valid(folder, own)
    if checkpoint is None:
        for saved in list_checkpoint_files(folder):
            if saved.record and saved.record.resumable and (why := saved.record.explain_mismatch(*own)):
                raise MLScaleError(
                    f"the checkpoint {saved.path.name} is not one of the run {run.path.name}",
                    where=str(saved.path),
                    why=f"{why}, and the run has no checkpoint of its own to resume from",
                    fix=f"{format_override('init_from', str(saved.path))}, for a new run from its weights; or move it "
                    "out of this folder, and the run starts over",
                )
        lost = run.run.get("rebuilt") and yaml.safe_load(run.config_text).get("init_from")
        if lost:
            raise MLScaleError(
                "which weights the run started from is lost with its run.json, and it has saved nothing since",
                where=str(run.path),
                fix=f"mlscale {format_override('like', str(run.path))} {format_override('init_from', lost)}, a new run",
            )
    return checkpoint, [*downloads, *left_out]


def format_unfinished_line(run: RunFolder) -> str:
    """Return a line that names an unfinished run, and the command to resume it."""
    records = [checkpoint.record for checkpoint in list_checkpoint_files(run.path / "checkpoints") if checkpoint.record]
    step = f", saved at step {max(record.step for record in records):,}" if records else ""
    return f"unfinished {run.path.name} has the same config{step}; resume it with mlscale runs resume {run.id}"


def _format_resume_line(run: RunFolder, checkpoint: Path | None, step: int) -> str:
    number = len(run.run["attempts"]) + 1
    if checkpoint is None:
        return f"resume    {run.path.name}, attempt {number}: no checkpoint is there, so it starts over"
    return f"resume    {run.path.name}, attempt {number}: from {checkpoint.name}, step {step:,}"


def _get_plural_suffix(count: int) -> str:
    return "" if count == 1 else "es"
