"""List, show, compare and remove runs."""

from __future__ import annotations

import json
import os
import shlex
import shutil
import sys
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from mlscale.commands.options import Options, read_options
from mlscale.commands.runs import COMMAND
from mlscale.commands.runs import list_checkpoints as run_checkpoints
from mlscale.commands.runs.collect_checkpoints import collect_checkpoints
from mlscale.commands.runs.confirmation import confirm_removal, repeat_folder
from mlscale.commands.runs.consolidate import consolidate_run
from mlscale.commands.runs.diff_page import save_diff_page
from mlscale.commands.runs.disk_usage import show_disk_usage
from mlscale.commands.runs.job_actions import (
    cancel_runs,
    collect_log,
    describe_job,
    find_live_jobs,
    find_run_statuses,
    print_log,
)
from mlscale.contracts.output_document import print_document
from mlscale.errors import Exit, MLScaleError, raise_all
from mlscale.report import format_duration, format_key_values, format_number, format_size, format_table
from mlscale.report.text import format_metric as shown_metric
from mlscale.report.text import format_metric_name, measure_width
from mlscale.runs.checkpoint_files.sharded_folder import measure_checkpoint
from mlscale.runs.compare import Pairs, compare_runs
from mlscale.runs.edited import report_edits
from mlscale.runs.find import find_corrupted_runs, find_run, list_runs
from mlscale.runs.folder import RunFolder
from mlscale.runs.job_record import is_cloud_run
from mlscale.runs.overview import RunOverview, group_by_sweep, parse_sweep_id, summarize_run
from mlscale.runs.remote_checkpoints.run_store import find_checkpoint_store
from mlscale.runs.remove import remove_runs

_COLUMNS = ("id", "name", "started", "status", "metric", "time", "overrides")
_DROPPABLE_COLUMNS = ("overrides", "time", "started", "metric")  # what a narrow terminal goes without, in this order
_MIN_COLUMN_WIDTH = 12  # characters of a name or of the overrides that are still worth showing


def main(argv: Sequence[str]) -> int:
    """Run `mlscale runs …`; return the exit code.

    Raises:
        MLScaleError: no such run, or one that must not be removed.
    """
    options = read_options("runs", COMMAND.actions, argv)
    actions = {
        "ls": _list_runs,
        "show": _show_run,
        "resume": _resume_run,
        "checkpoints": _list_checkpoints,
        "consolidate": _consolidate_checkpoints,
        "diff": _compare_runs,
        "rm": _remove_runs,
    }
    actions |= {
        "job": _record_job,
        "send": _send_pending,
        "logs": _print_log,
        "cancel": _cancel_jobs,
        "sweep": _show_sweep,
        "du": show_disk_usage,
        "gc": collect_checkpoints,
    }
    return actions[options.action](options)


def _list_runs(options: Options) -> int:
    # Limited before the overviews, which read several files of each run.
    folders = list_runs(options.runs_dir)[: options.limit or None]
    statuses = find_run_statuses(folders)
    runs = [replace(summarize_run(run), status=statuses[run.id]) for run in folders]
    broken = find_corrupted_runs(options.runs_dir)
    if options.output == "json":
        damaged = {str(path): why for path, why in broken.items()}
        print_document("runs-ls", {"runs": [asdict(run) for run in runs], "damaged": damaged})
        return int(Exit.DONE)
    if not runs:
        print(f"no runs in {options.runs_dir}; mlscale +recipe=resnet makes one")
    rows: list[Sequence[object]] = []
    # The runs of a sweep are listed together, at the place of its newest run.
    for sweep, members in group_by_sweep(runs):
        if sweep:
            states = [member.status for member in members]
            counts = ", ".join(f"{states.count(state)} {state}" for state in dict.fromkeys(states))
            rows.append(
                (
                    parse_sweep_id(sweep),
                    f"sweep of {len(members)}",
                    _format_date(members[-1].created),
                    counts,
                    None,
                    None,
                    "",
                )
            )
        # Indented below the line of their sweep.
        rows += [_format_run_row(member, "  " if sweep else "") for member in members]
    if rows:
        # Without a terminal (a pipe, a file) nothing is shortened.
        print(_fit_columns(rows, _COLUMNS, shutil.get_terminal_size(fallback=(10_000, 24)).columns))
    for path, why in broken.items():
        print(f"corrupt: {path} ({why})", file=sys.stderr)
    return int(Exit.DONE)


def _fit_columns(rows: Sequence[Sequence[object]], names: Sequence[str], width: int) -> str:
    """Return the table with the columns that fit into `width`. Names and overrides are shortened, ids never."""
    whole = [max(measure_width(str(cell)) for cell in column) for column in zip(names, *rows, strict=True)]
    least = [
        min(spare, _MIN_COLUMN_WIDTH) if name in ("name", "overrides") else spare
        for name, spare in zip(names, whole, strict=True)
    ]
    shown = list(range(len(names)))
    for dropped in _DROPPABLE_COLUMNS:
        # Two spaces between columns, none after the last.
        if sum(least[index] + 2 for index in shown) - 2 > width:
            shown.remove(names.index(dropped))
    spare = max(0, width - sum(least[index] + 2 for index in shown) + 2)
    cut = {}
    for index in shown:
        cut[index] = min(whole[index], least[index] + spare)
        spare -= cut[index] - least[index]
    cells = [[_cut_cell(row[index], cut[index]) for index in shown] for row in rows]
    return format_table(cells, [names[index] for index in shown], max(width, sum(cut.values()) + 2 * len(cut)))


def _cut_cell(cell: object, width: int) -> object:
    text = str(cell)
    return cell if cell is None or measure_width(text) <= width else text[: width - 1] + "…"


def _format_run_row(run: RunOverview, indent: str) -> Sequence[object]:
    value = f"{run.metric} {format_number(run.value)}" if run.value is not None else None
    took = format_duration(run.duration_s) if run.duration_s is not None else None
    return (indent + run.id, run.name, _format_date(run.created), run.status, value, took, " ".join(run.overrides))


def _show_run(options: Options) -> int:
    run = find_run(options.ref, options.runs_dir)
    document, manifest = run.run, run.manifest
    # On request only: it reads every file of the run, checkpoints included.
    changed = run.find_changed_artefacts() if options.verify else None
    checkpoints = [(path.relative_to(run.path).as_posix(), measure_checkpoint(path)) for path in run.checkpoints]
    if options.output == "json":
        content = {
            "path": str(run.path),
            "status": find_run_statuses([run])[run.id],
            "run": document,
            "manifest": manifest,
            "changed": changed,
        }
        report_edits(run)
        content |= {"results": run.results, "derived": run.derived, "config": run.config_text}
        print_document("runs-show", content)
        return int(Exit.USER if changed else Exit.DONE)
    status = find_run_statuses([run])[run.id]
    about = [*_describe_run(document, manifest), *describe_job(run, status)]
    print(format_key_values([("run", run.path), ("status", status), *about]))
    for command, result in run.results.items():
        metrics = [
            (format_metric_name(name), shown_metric(name, value))
            for name, value in result["metrics"].items()
            if value is not None
        ]
        _print_section(
            f"result of {command}",
            result["sentence"] + ("\n" + format_key_values(metrics, indent=2) if metrics else ""),
        )
    _print_section(
        "checkpoints", format_key_values([(name, format_size(count)) for name, count in checkpoints], indent=2)
    )
    _print_section("derived", format_key_values(list(run.derived.items()), indent=2))
    report_edits(run)
    # Masked again: a run of an earlier version, or an edited one, may hold a literal secret.
    _print_section("config", run.masker.mask_text(run.config_text).rstrip())
    if changed is not None:
        verdict = "\n".join(changed) if changed else "every file is as it was sealed" if manifest else "not sealed yet"
        _print_section("files that changed since the seal", verdict)
    return int(Exit.USER if changed else Exit.DONE)


def _resume_run(options: Options) -> int:
    from mlscale import commands
    from mlscale.assembly.ready import compose_from_overrides
    from mlscale.launch.threads import wait_passively
    from mlscale.report import print_result
    from mlscale.secrets.mask import Masker, mask_output

    named = dict(word.lstrip("+").partition("=")[::2] for word in options.overrides)
    if (run := _find_cloud_run(options.ref, named.get("runs_dir", "runs"))) is not None:
        from mlscale.commands.train.cloud_submission import resubmit_cloud_run

        typed = [word for word in options.overrides if not word.lstrip("+").startswith(("runs_dir=", "output="))]
        print_result(resubmit_cloud_run(run, typed), named.get("output", "table"))
        return int(Exit.DONE)
    wait_passively()
    # The same as `mlscale train resume=…`: one implementation of resuming.
    try:
        cfg = compose_from_overrides("train", [f"resume={options.ref}", *options.overrides])
    except MLScaleError as error:
        if (near := error.fix.removeprefix("resume=")) != error.fix and near != options.ref:
            error.fix = shlex.join(["mlscale", "runs", "resume", near, *options.overrides])
        raise
    result = commands.run_checked_config("train", cfg)
    with mask_output(Masker.create_for_run(cfg)):
        print_result(result, cfg.output)
    return int(Exit.DONE if result.ok else Exit.GATE)


def _find_cloud_run(ref: str, runs_dir: str) -> RunFolder | None:
    """Return the run, if it is trained on another platform's file system."""
    try:
        run = find_run(ref, runs_dir)
    # The command itself reports it, with everything else that is wrong.
    except MLScaleError:
        return None
    return run if is_cloud_run(run.path) else None


def _send_pending(options: Options) -> int:
    from mlscale.commands.runs.send_pending import send_pending_entries

    return send_pending_entries(find_run(options.ref, options.runs_dir), as_json=options.output == "json")


def _print_log(options: Options) -> int:
    run = find_run(options.ref, options.runs_dir)
    if options.output == "json":
        print_document("runs-logs", collect_log(run, follow=options.follow))
        return int(Exit.DONE)
    return print_log(run, follow=options.follow)


def _record_job(options: Options) -> int:
    from mlscale.launch.slurm.job_guard import record_job

    if options.step not in ("start", "end"):
        what = f"unknown step '{options.step}' of a job"
        raise MLScaleError(what, where="mlscale runs job", fix="mlscale runs job start last")
    # A job's script passes the folder, which may not be visible here: only the guard explains that.
    is_path = os.sep in options.ref or Path(options.ref).is_dir()
    folder = Path(options.ref) if is_path else find_run(options.ref, options.runs_dir).path
    return record_job(options.step, folder, options.code)


def _cancel_jobs(options: Options) -> int:
    runs = list({run.path: run for run in (find_run(ref, options.runs_dir) for ref in options.ref)}.values())
    lines = cancel_runs(runs)
    if options.output == "json":
        print_document("runs-cancel", {"cancelled": [str(run.path) for run in runs]})
    else:
        print("\n".join(lines))
    return int(Exit.DONE)


def _show_sweep(options: Options) -> int:
    from mlscale.commands.runs import sweep_table

    path, runs = sweep_table.find_sweep(options.ref, options.runs_dir)
    if options.resubmit:
        lost = sweep_table.list_lost_runs(runs, find_run_statuses(runs))
        if lost:
            print(f"submitted {_resubmit_lost_runs(path, lost)} for {len(lost)} of {len(runs)} runs", file=sys.stderr)
    return sweep_table.print_sweep(path, runs, as_json=options.output == "json")


def _resubmit_lost_runs(sweep: Path, lost: Sequence[RunFolder]) -> str:
    """Submit runs of a sweep again: as one array, or as a job each where the platform has no arrays."""
    from mlscale.commands.train.cloud_submission import resubmit_cloud_run
    from mlscale.commands.train.submission import resubmit_runs

    if not all(is_cloud_run(run.path) for run in lost):
        return f"array {resubmit_runs(sweep, lost)}"
    jobs = [resubmit_cloud_run(run).artifacts["job"] for run in lost]
    return f"jobs {', '.join(jobs)}"


def _describe_run(document: dict[str, Any], manifest: dict[str, Any] | None) -> list[tuple[str, object]]:
    code = document["code"] or {}
    commit = (
        f"{code['commit'][:12]}{' and uncommitted changes' if code['dirty'] else ''}" if code.get("commit") else None
    )
    rows = [
        ("started", _format_date(document["created"])),
        ("took", format_duration(manifest["duration_s"]) if manifest else None),
        ("verb", document["verb"]),
        ("overrides", " ".join(document["overrides"]) or None),
        ("seed", document["seed"]),
        ("data", document["data_version"]),
        ("commit", commit),
        ("parent", document["parent"]),
        ("tags", " ".join(document.get("tags", [])) or None),
        ("notes", document.get("notes") or None),
        ("attempts", len(document["attempts"]) if len(document["attempts"]) > 1 else None),
        ("ended", manifest.get("sentence") or None if manifest else None),
    ]
    return [(name, value) for name, value in rows if value is not None]


def _list_checkpoints(options: Options) -> int:
    return run_checkpoints.show_checkpoints(find_run(options.ref, options.runs_dir), as_json=options.output == "json")


def _consolidate_checkpoints(options: Options) -> int:
    return consolidate_run(find_run(options.ref, options.runs_dir), as_json=options.output == "json")


def _compare_runs(options: Options) -> int:
    first, second = find_run(options.first, options.runs_dir), find_run(options.second, options.runs_dir)
    for run in (first, second):
        report_edits(run)
    difference = compare_runs(first, second)
    named = Path(options.page).expanduser().absolute() if options.page else None
    page = save_diff_page(first, second, difference, named)
    if options.output == "json":
        paths = {"first": str(first.path), "second": str(second.path), "page": page and str(page)}
        print_document("runs-diff", {**paths, **difference.as_dict()})
        return int(Exit.DONE)
    names = ("", first.path.name, second.path.name)
    print(format_key_values([("first", first.path), ("second", second.path)]))
    shown = {"config": difference.config, "started from": difference.facts, "derived": difference.derived}
    for title, pairs in shown.items():
        _print_section(title, _format_pairs(pairs, names))
    metrics = [
        (format_metric_name(name), *(_format_metric_value(name, value) for value in pair))
        for name, pair in difference.metrics.items()
    ]
    _print_section("metrics", format_table(metrics, names) if metrics else "")
    _print_section("code", "\n".join(difference.code))
    _print_section("packages", _format_pairs(difference.packages, names))
    if not (any(shown.values()) or difference.code or difference.packages):
        print("\nthey were started the same way")
    print(f"\npage  {page or f'not written, as {second.path} can not be written to: page=diff.html'}")
    return int(Exit.DONE)


def _remove_runs(options: Options) -> int:
    # By path: two names may mean the same run.
    runs = list({run.path: run for run in (find_run(ref, options.runs_dir) for ref in options.ref)}.values())
    raise_all(list(find_live_jobs(runs)))
    if not options.yes and not _confirm_removal(options, runs):
        return int(Exit.USER)
    stores = [store for run in runs if (store := find_checkpoint_store(run.path))]
    remove_runs(runs)
    for store in stores:
        print(f"its checkpoints stay in {store}: the store's own tools remove them", file=sys.stderr)
    if options.output == "json":
        print_document("runs-rm", {"removed": [str(run.path) for run in runs]})
    else:
        print("\n".join(f"removed {run.path}" for run in runs))
    return int(Exit.DONE)


def _confirm_removal(options: Options, runs: Sequence[RunFolder]) -> bool:
    return confirm_removal(
        "runs",
        "\n".join(str(run.path) for run in runs),
        f"remove {'this run' if len(runs) == 1 else 'these runs'} for good?",
        ["mlscale", "runs", "rm", *options.ref],
        repeat_folder(options),
    )


def _format_pairs(pairs: Pairs, names: Sequence[str]) -> str:
    return format_table([(name, *map(_format_value, pair)) for name, pair in pairs.items()], names) if pairs else ""


def _format_value(value: object) -> object:
    return json.dumps(value, ensure_ascii=False) if isinstance(value, list | dict | bool) else value


def _format_metric_value(name: str, value: float | None) -> str | None:
    return None if value is None else shown_metric(name, value)


def _print_section(title: str, text: str) -> None:
    if text:
        print(f"\n{title}\n" + "\n".join("  " + line for line in text.splitlines()))


def _format_date(created: str) -> str:
    return created[:16].replace("T", " ")
