"""`mlscale runs show`: the start of one run, its results, checkpoints and config."""

from __future__ import annotations

from typing import Any

from mlscale.commands.options import Options
from mlscale.commands.runs.job_actions import describe_job, find_run_statuses
from mlscale.commands.runs.run_list import format_date
from mlscale.contracts.output_document import print_document
from mlscale.errors import Exit
from mlscale.report import format_duration, format_key_values, format_size
from mlscale.report.text import format_metric as shown_metric
from mlscale.report.text import format_metric_name
from mlscale.runs.checkpoint_files.sharded_folder import measure_checkpoint
from mlscale.runs.edited import report_edits
from mlscale.runs.find import find_run


def show_run(options: Options) -> int:
    """Print one run; return 2 where a file is not as it was sealed, and verify=true asked."""
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
            (format_metric_name(name, command), shown_metric(name, value))
            for name, value in result["metrics"].items()
            if value is not None
        ]
        print_section(
            f"result of {command}",
            result["sentence"] + ("\n" + format_key_values(metrics, indent=2) if metrics else ""),
        )
    print_section(
        "checkpoints", format_key_values([(name, format_size(count)) for name, count in checkpoints], indent=2)
    )
    print_section("derived", format_key_values(list(run.derived.items()), indent=2))
    report_edits(run)
    # Masked again: a run of an earlier version, or an edited one, may hold a literal secret.
    print_section("config", run.masker.mask_text(run.config_text).rstrip())
    if changed is not None:
        verdict = "\n".join(changed) if changed else "every file is as it was sealed" if manifest else "not sealed yet"
        print_section("files that changed since the seal", verdict)
    return int(Exit.USER if changed else Exit.DONE)


def _describe_run(document: dict[str, Any], manifest: dict[str, Any] | None) -> list[tuple[str, object]]:
    code = document["code"] or {}
    commit = (
        f"{code['commit'][:12]}{' and uncommitted changes' if code['dirty'] else ''}" if code.get("commit") else None
    )
    rows = [
        ("started", format_date(document["created"])),
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


def print_section(title: str, text: str) -> None:
    """Print a text below its title, indented; nothing for an empty one."""
    if text:
        print(f"\n{title}\n" + "\n".join("  " + line for line in text.splitlines()))
