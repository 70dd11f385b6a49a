"""`mlscale runs gc`: remove checkpoints that nothing needs any more.

The question before something is removed for good, which only a person at a terminal is asked.
"""

from __future__ import annotations

import shlex
import sys
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from mlscale.atomic_files import create_write_error, iterate_regular_files, remove_tree, report_run_folder
from mlscale.commands.command import RUNS_DIR
from mlscale.commands.options import Options
from mlscale.commands.runs.job_actions import NOT_SUBMITTED, find_run_statuses
from mlscale.contracts.output_document import Answer
from mlscale.errors import Exit, MLScaleError
from mlscale.report import format_size, format_table
from mlscale.runs import recover
from mlscale.runs.amend import forget_artefacts
from mlscale.runs.checkpoint_files.checkpoint_commit import remove_incomplete_checkpoints
from mlscale.runs.checkpoint_files.checkpoint_digest import verify_checkpoint
from mlscale.runs.checkpoint_files.checkpoint_record import SUFFIX
from mlscale.runs.checkpoint_files.checkpoint_search import (
    find_best_checkpoint_file,
    find_latest_valid,
    find_nearest_checkpoint,
    list_checkpoint_files,
)
from mlscale.runs.find import find_run, list_runs
from mlscale.runs.folder import RunFolder
from mlscale.runs.lock import hold_run_lock
from mlscale.runs.remote_checkpoints.run_store import remove_from_store
from mlscale.runs.run_reader import CONFIG, DERIVED, RUN
from mlscale.versions import open_registry

# By the folder, and by a scheduler. Of all others a process may still write checkpoints.
_ENDED = {
    *("done", "failed", "diverged", "interrupted", "crashed", NOT_SUBMITTED),
    *("cancelled", "timed out", "node failed", "vanished"),
}


@dataclass(frozen=True)
class RemovalPlan:
    """The removals that `mlscale runs gc` would do.

    Attributes:
        choices: of each run that has a checkpoint to remove.
        skipped: the id of each run that is left alone, with the reason.
    """

    choices: tuple[CheckpointChoice, ...]
    skipped: dict[str, str]

    @property
    def bytes(self) -> int:
        """The size of what it would remove."""
        return sum(choice.bytes for choice in self.choices)


def choose_removals(runs: Sequence[RunFolder], keep: Sequence[str], runs_dir: str, registry: Path) -> RemovalPlan:
    """Return which checkpoints of `runs` can be removed.

    Args:
        runs: the runs to look at.
        keep: what each run keeps: `last`, `best`, or the names of others.
        runs_dir: the folder of all runs: those that are still to be finished may need others.
        registry: the folder of a registry, besides those that the runs' own configs name.

    Raises:
        MLScaleError: a version's record can't be read.
    """
    everyone = {run.id: run for run in [*list_runs(runs_dir), *runs]}
    references = find_version_references(list(dict.fromkeys([registry.absolute(), *find_registry_roots(runs)])))
    dependent = find_dependent_runs(list(everyone.values()))
    statuses = find_run_statuses(runs)
    choices, skipped = [], {}
    for run in runs:
        if statuses[run.id] not in _ENDED:
            skipped[run.id] = f"it is {statuses[run.id]}"
        elif run.id in dependent:
            skipped[run.id] = f"the run {dependent[run.id]}, which is not finished, needs it"
        elif (choice := choose_checkpoints(run, keep, references.get(run.id, {}))).removable:
            choices.append(choice)
    return RemovalPlan(tuple(choices), skipped)


def collect_checkpoints(options: Options) -> Answer | int:
    """Remove the checkpoints of ended runs that neither `keep`, nor a version, nor another run needs.

    Raises:
        MLScaleError: a version's record can't be read, `keep` names what no run has, or stdin is not a terminal.
    """
    runs = list({run.path: run for run in (find_run(ref, options.runs_dir) for ref in options.ref)}.values())
    runs = runs or list_runs(options.runs_dir)
    _check_names(options.keep, runs)
    registry = Path(options.registry_root)
    plan = choose_removals(runs, options.keep, options.runs_dir, registry)
    # Without a removal there is nothing to confirm, and a script need not fail.
    if not options.dry_run and plan.choices and not options.yes and not _confirm_removal(options, plan):
        return int(Exit.USER)
    removed: list[tuple[RunFolder, Path, int]] = []
    for choice in plan.choices:
        if options.dry_run:
            removed += [(choice.run, path, measure_size(path)) for path in choice.removable]
        else:
            removed += _remove_chosen(choice, options, registry)
    return _report_removal(options, plan, removed)


def _remove_chosen(choice: CheckpointChoice, options: Options, registry: Path) -> list[tuple[RunFolder, Path, int]]:
    run = choice.run
    with report_run_folder(run.path, removes=True), hold_run_lock(run):
        # Chosen again under the lock: the run may have been resumed or published since, while the user was asked.
        now = choose_removals([run], options.keep, options.runs_dir, registry)
        paths = [path for path in (now.choices[0].removable if now.choices else ()) if path in choice.removable]
        removed = [(run, path, measure_size(path)) for path in paths]
        remove_checkpoints(run, paths)
        if left := remove_from_store(run.path, [path.name for path in paths]):
            print(left, file=sys.stderr)
    return removed


def _check_names(keep: Sequence[str], runs: Sequence[RunFolder]) -> None:
    """Raise an error for a name that no run has: a typing error would remove what was meant to stay."""
    saved = {path.name.removesuffix(SUFFIX) for run in runs for path in run.checkpoints if path.name.endswith(SUFFIX)}
    known = sorted({"last", "best", *saved})
    for name in keep:
        if name not in known:
            near = find_nearest_checkpoint(name, known)
            words = [near if other == name else other for other in keep] if near else ["last", "best"]
            raise MLScaleError(
                f"no run has a checkpoint '{name}'",
                where=f"keep={name}",
                why=f"they have: {', '.join(known[:8])}{', …' * (len(known) > 8)}",
                fix=f"keep=[{','.join(words)}]",
            )


def _confirm_removal(options: Options, plan: RemovalPlan) -> bool:
    rows = [(choice.run, path, measure_size(path)) for choice in plan.choices for path in choice.removable]
    return confirm_removal(
        "checkpoints",
        _format_removals(rows),
        f"remove them for good, {format_size(plan.bytes)}?",
        ["mlscale", "runs", "gc", *options.ref, f"keep=[{','.join(options.keep)}]"],
        repeat_folder(options),
        preview="dry_run=true",
    )


def _report_removal(options: Options, plan: RemovalPlan, removed: Sequence[tuple[RunFolder, Path, int]]) -> Answer:
    freed = sum(size for _, _, size in removed)
    retained = {str(path): why for choice in plan.choices for path, why in choice.retained.items() if path.exists()}
    document = {
        "dry_run": options.dry_run,
        "removed": [{"run": run.id, "path": str(path), "bytes": size} for run, path, size in removed],
        "retained": retained,
        "skipped": plan.skipped,
        "bytes": freed,
    }
    done = "would remove" if options.dry_run else "removed"
    blocks = [
        _format_removals(removed) if removed else "",
        *(f"left alone: {run_id}: {why}" for run_id, why in plan.skipped.items()),
        f"{done} {len(removed)} checkpoint{'s' * (len(removed) != 1)}, {format_size(freed)}",
    ]
    return Answer("runs-gc", document, blocks)


def _format_removals(rows: Sequence[tuple[RunFolder, Path, int]]) -> str:
    shown = [(run.path.name, path.name, format_size(size)) for run, path, size in rows]
    return format_table(shown, ("run", "checkpoint", "size"))


_COMPLETE = ("done", "diverged")  # no step of these is left to resume


def find_version_references(roots: Sequence[Path]) -> dict[str, dict[str, str]]:
    """Return for each run the file names of the checkpoints that a version was made of, with its name and aliases.

    Args:
        roots: folders of registries; those that do not exist hold no version.

    Raises:
        MLScaleError: the record of a version can't be read, so that what it refers to is unknown.
    """
    references: dict[str, dict[str, str]] = {}
    for root in roots:
        registry = open_registry(root)
        for model in registry.list_model_names():
            for path, why in registry.find_corrupted_versions(model).items():
                raise MLScaleError(
                    f"the record of the version {model}:{path.name} can't be read",
                    where=str(path),
                    why=f"{why}; so the checkpoint that it refers to is unknown, and none is removed",
                    fix=f"mlscale versions ls {model} registry.root={root}",
                )
            aliases = registry.get_aliases(model)
            for version in registry.list_versions(model):
                made = version.run or {}
                if made.get("id") and made.get("checkpoint"):
                    names = "".join(f" @{alias}" for alias in aliases.list_aliases_of(version.number))
                    used = references.setdefault(str(made["id"]), {})
                    used.setdefault(Path(str(made["checkpoint"])).name, f"version {version.ref}{names}")
    return references


def find_registry_roots(runs: Sequence[RunFolder]) -> list[Path]:
    """Return the folders of the registries that the configs of runs name."""
    roots = {}
    for run in runs:
        try:
            registry = recover.read_yaml_values(run.path / CONFIG).get("registry")
        except MLScaleError:  # a corrupt config names none
            continue
        root = registry.get("root") if isinstance(registry, Mapping) else None
        # An interpolation is resolved where the run is; here it is not a folder.
        if isinstance(root, str) and "${" not in root:
            roots[Path(root).expanduser().absolute()] = True
    return list(roots)


def find_dependent_runs(runs: Sequence[RunFolder]) -> dict[str, str]:
    """Return the ids of runs that a run which is still to be finished names: it starts from one, or learns from it.

    Returns:
        the id of each such run, with the id of the run that names it.
    """
    unfinished = {run.id: _read_texts(run) for run in runs if run.status not in _COMPLETE}
    named = {}
    for run in runs:
        # By its id in the text of the other's files: whatever key it is under, and also within a path.
        namer = next((other for other, text in unfinished.items() if other != run.id and run.id in text), None)
        if namer:
            named[run.id] = namer
    return named


def _read_texts(run: RunFolder) -> str:
    texts = []
    for name in (RUN, CONFIG, DERIVED):
        path = run.path / name
        if path.is_file():
            texts.append(path.read_text(encoding="utf-8", errors="replace"))
    return "\n".join(texts)


@dataclass(frozen=True)
class CheckpointChoice:
    """The checkpoints in a run's folder `checkpoints`.

    Attributes:
        run: the run.
        retained: the path of each that stays, with the reason.
        removable: the paths of all others.
    """

    run: RunFolder
    retained: Mapping[Path, str]
    removable: tuple[Path, ...]

    @property
    def bytes(self) -> int:
        """The size of what can be removed."""
        return sum(map(measure_size, self.removable))


def choose_checkpoints(run: RunFolder, keep: Collection[str], used: Mapping[str, str]) -> CheckpointChoice:
    """Return which checkpoints of a run can be removed.

    A run that is not done keeps the checkpoint that it would be resumed from. A run that is done, and of which one that
    `keep` names can't be read, keeps its latest valid one.

    Args:
        run: the run; its training has ended.
        keep: `last`, `best`, or the name of another one, such as `step=500`.
        used: the file names that something else refers to, each with what does.
    """
    folder = run.path / "checkpoints"
    document = run.run
    named = {name: folder / f"{name}{SUFFIX}" for name in keep}
    if "best" in named:
        best = find_best_checkpoint_file(folder, document["metric"], document["mode"])
        named["best"] = best or named["best"]
    present = [checkpoint.path for checkpoint in list_checkpoint_files(folder)]
    retained = {path: f"keep={name}" for name, path in named.items() if path in present}
    retained |= {path: used[path.name] for path in present if path.name in used}
    if set(present) <= set(retained):
        return CheckpointChoice(run, retained, ())
    identity = (run.id, str(document["config_hash"]))
    # Each is read whole, so only where something would be removed.
    is_readable = all(not verify_checkpoint(path).is_corrupt for path in retained)
    is_enough = is_readable and ("last" not in named or named["last"] in retained)
    if run.status not in _COMPLETE or not is_enough:
        latest, _ = find_latest_valid(folder, identity)
        if latest is not None:
            retained.setdefault(latest, "the run resumes from it")
    return CheckpointChoice(run, retained, tuple(path for path in present if path not in retained))


def remove_checkpoints(run: RunFolder, paths: Sequence[Path]) -> None:
    """Remove checkpoints of a run whose lock is held, and what killed saves have left beside them.

    Raises:
        MLScaleError: one can't be removed.
    """
    # The seal first: a kill in between leaves files that the seal does not list, never a seal that lists absent ones.
    forget_artefacts(run.path, *(path.relative_to(run.path).as_posix() for path in paths))
    for path in paths:
        try:
            remove_tree(path) if path.is_dir() else path.unlink(missing_ok=True)
        except OSError as error:
            raise create_write_error(path, error) from error
    remove_incomplete_checkpoints(run.path / "checkpoints")


def measure_size(path: Path) -> int:
    """Return the bytes of a file, or of all files below a folder; 0 for one that is gone."""
    try:
        return (
            sum(file.stat().st_size for file in iterate_regular_files(path)) if path.is_dir() else path.stat().st_size
        )
    except FileNotFoundError:  # a run that still trains replaces its files
        return 0


def confirm_removal(
    what: str, shown: str, question: str, command: Sequence[str], settings: Sequence[str], *, preview: str = ""
) -> bool:
    """Return whether the user confirms a removal.

    Args:
        what: what is removed: runs, or checkpoints.
        shown: what would be removed, printed before the question.
        question: what is asked.
        command: the command line as typed.
        settings: `key=value` that the command needs besides, to be typed again.
        preview: the setting with which the command removes nothing; empty where it has none.

    Raises:
        MLScaleError: standard input is not a terminal; a script must not wait forever for an answer.
    """
    if not sys.stdin.isatty():
        again = [*command, *settings]
        fixes = [f"{shlex.join([*again, preview])}, which shows them"] if preview else []
        raise MLScaleError(
            f"removing {what} can't be undone",
            where=f"command line: {shlex.join(command)}",
            why="no terminal to ask on",
            fix="\n".join([*fixes, shlex.join([*again, "yes=true"])]),
        )
    print(shown, file=sys.stderr)
    print(f"{question} [y/N] ", end="", file=sys.stderr, flush=True)
    # Anything else, also an empty line or the end of input, means no.
    return sys.stdin.readline().strip().lower() in ("y", "yes")


def repeat_folder(options: Options) -> list[str]:
    """Return the setting for the folder of the runs, to be typed again, if it is not the default one."""
    return [] if options.runs_dir == RUNS_DIR.default else [f"{RUNS_DIR.name}={options.runs_dir}"]
