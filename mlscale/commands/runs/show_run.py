"""`mlscale runs show`: the start of one run, its results, checkpoints and config."""

from __future__ import annotations

from typing import Any

from mlscale.commands.options import Options
from mlscale.commands.runs.job_actions import describe_job, find_run_statuses
from mlscale.commands.shown_facts import format_commit, format_date, format_section, list_metrics, select_known
from mlscale.contracts.output_document import Answer
from mlscale.errors import Exit
from mlscale.report import format_duration, format_key_values, format_size
from mlscale.runs.checkpoint_files.sharded_folder import measure_checkpoint
from mlscale.runs.edited import report_edits
from mlscale.runs.find import find_run


def show_run(options: Options) -> Answer:
    """Return one run; exit code 2 where a file is not as it was sealed, and verify=true asked."""
    run = find_run(options.ref, options.runs_dir)
    document, manifest = run.run, run.manifest
    # On request only: it reads every file of the run, checkpoints included.
    changed = run.find_changed_artefacts() if options.verify else None
    checkpoints = [(path.relative_to(run.path).as_posix(), measure_checkpoint(path)) for path in run.checkpoints]
    status = find_run_statuses([run])[run.id]
    report_edits(run)
    content = {"path": str(run.path), "status": status, "run": document, "manifest": manifest, "changed": changed}
    content |= {"results": run.results, "derived": run.derived, "config": run.config_text}
    about = [*_describe_run(document, manifest), *describe_job(run, status)]
    blocks = [format_key_values([("run", run.path), ("status", status), *about])]
    for command, result in run.results.items():
        metrics = list_metrics(result["metrics"], command)
        text = result["sentence"] + ("\n" + format_key_values(metrics, indent=2) if metrics else "")
        blocks.append(format_section(f"result of {command}", text))
    sizes = [(name, format_size(count)) for name, count in checkpoints]
    blocks += [
        format_section("checkpoints", format_key_values(sizes, indent=2)),
        format_section("derived", format_key_values(list(run.derived.items()), indent=2)),
        # Masked again: a run of an earlier version, or an edited one, may hold a literal secret.
        format_section("config", run.masker.mask_text(run.config_text).rstrip()),
    ]
    if changed is not None:
        verdict = "\n".join(changed) if changed else "every file is as it was sealed" if manifest else "not sealed yet"
        blocks.append(format_section("files that changed since the seal", verdict))
    return Answer("runs-show", content, blocks, exit=Exit.USER if changed else Exit.DONE)


def _describe_run(document: dict[str, Any], manifest: dict[str, Any] | None) -> list[tuple[str, object]]:
    rows = [
        ("started", format_date(document["created"])),
        ("took", format_duration(manifest["duration_s"]) if manifest else None),
        ("verb", document["verb"]),
        ("overrides", " ".join(document["overrides"]) or None),
        ("seed", document["seed"]),
        ("data", document["data_version"]),
        ("commit", format_commit(document["code"] or {})),
        ("parent", document["parent"]),
        ("tags", " ".join(document.get("tags", [])) or None),
        ("notes", document.get("notes") or None),
        ("attempts", len(document["attempts"]) if len(document["attempts"]) > 1 else None),
        ("ended", manifest.get("sentence") or None if manifest else None),
    ]
    return select_known(rows)
