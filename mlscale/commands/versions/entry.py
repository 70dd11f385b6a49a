"""Publish, list, promote and roll back versions of models."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mlscale.commands.options import Options, read_options
from mlscale.commands.shown_facts import (
    DATE,
    format_commit,
    format_date,
    format_fitted_table,
    format_section,
    list_metrics,
    select_known,
)
from mlscale.commands.versions import COMMAND
from mlscale.config.names.suggest import find_nearest
from mlscale.config.schema.roots import find_roots
from mlscale.contracts.output_document import Answer, print_answer
from mlscale.contracts.servable_yaml import read_document
from mlscale.errors import Exit, MLScaleError
from mlscale.report import format_key_values, format_number, format_size
from mlscale.runs.find import find_run
from mlscale.versions import LocalRegistry, Published, Version, WandbRegistry, open_registry
from mlscale.versions.from_run import publish_run
from mlscale.versions.from_servable import DOCUMENT, publish_servable, read_servable
from mlscale.versions.version_reference import CHAMPION, PREVIOUS
from mlscale.versions.wandb_send import NO_KEY_WHY

if TYPE_CHECKING:
    from mlscale.export.servable import Servable
    from mlscale.versions.aliases import AliasMove

_COLUMNS = ("version", "aliases", "metric", "kind", "run", "data", "size", "created")
_DROPPABLE_COLUMNS = ("data", "kind", "size", "created", "run")  # what a narrow terminal goes without, in this order


def main(argv: Sequence[str]) -> int:
    """Run `mlscale versions …`; return the exit code.

    Raises:
        MLScaleError: no such version, a corrupt one, or a registry that can't be written to.
    """
    options = read_options("versions", COMMAND.actions, argv)
    actions = {
        "ls": _list_versions,
        "show": _show_version,
        "history": _show_history,
        "add": _add_version,
        "promote": _promote_version,
        "rollback": _roll_back_champion,
        "sync": _sync_registry,
    }
    return print_answer(actions[options.action](options), options.output)


def _list_versions(options: Options) -> Answer:
    registry = open_registry(options.registry_root)
    names = registry.list_model_names()
    if options.name and options.name not in names:
        # An unknown name is an error, not an empty list.
        registry.resolve_version(options.name)  # raises what there is instead
    names = [options.name] if options.name else names
    versions_by_name = {name: registry.list_versions(name) for name in names}
    broken = {str(path): why for name in names for path, why in registry.find_corrupted_versions(name).items()}
    models = {name: _describe_model(registry, name, versions) for name, versions in versions_by_name.items()}
    document = {"registry": str(registry.root), "models": models, "damaged": broken}
    notes = [f"corrupt: {path} ({why})" for path, why in broken.items()]
    if isinstance(registry, WandbRegistry):
        document["waiting"] = waiting = registry.list_pending_names()
        notes += [f"W&B has not got: {', '.join(waiting)}; to send: mlscale versions sync"] if waiting else []
    rows = [_format_version_row(registry, version) for versions in versions_by_name.values() for version in versions]
    none = f"no versions in {options.registry_root}; mlscale versions add last makes one of the last run"
    blocks = [
        "" if names else none,
        format_fitted_table(rows, _COLUMNS, {"aliases": 12, "created": DATE}, _DROPPABLE_COLUMNS) if rows else "",
    ]
    return Answer("versions-ls", document, blocks, notes)


def _show_version(options: Options) -> Answer:
    registry = open_registry(options.registry_root)
    version = registry.resolve_version(options.ref)
    changed, aliases = registry.find_changed_files(version), registry.get_aliases(version.name)
    moves = [move for move in aliases.moves if version.number in (move.before, move.after)]
    lineage, mirrored = _trace_lineage(registry, version), [vars(move) for move in moves]
    document = {**_describe_version(registry, version), "changed": changed, "lineage": lineage, "moves": mirrored}
    run = version.run or {}
    about = [
        ("version", version.ref),
        ("aliases", " ".join(aliases.list_aliases_of(version.number)) or None),
        ("kind", version.kind),
        ("created", format_date(version.created)),
        ("digest", version.digest),
        ("folder", version.payload),
        ("approved", ", ".join(f"{target} by {by}" for target, by in list_approvals(version).items()) or None),
        ("W&B", _find_mirrored_name(registry, version)),
        ("notes", version.notes or None),
    ]
    origin = [
        ("run", f"{run.get('name')} {run['id']}" if run else None),
        ("run folder", run.get("path")),
        ("commit", format_commit(run)),
        ("data", version.data_version),
        ("parent", " ← ".join(lineage[1:]) or None),
    ]
    files = [(name, format_size(file.bytes)) for name, file in sorted(version.files.items())]
    sections = {
        "origin": format_key_values(select_known(origin)),
        "metrics": format_key_values(list_metrics(version.metrics)),
        "files": format_key_values(files),
        "aliases moved": "\n".join(_format_alias_move(move) for move in moves),
        "corrupt" if changed else "digest": "\n".join(changed) or "every file is as it was published",
    }
    blocks = [format_key_values(select_known(about)), *(format_section(*section) for section in sections.items())]
    # Exit code 2 for an altered version, so that scripts can check a registry.
    return Answer("versions-show", document, blocks, exit=Exit.USER if changed else Exit.DONE)


def _show_history(options: Options) -> Answer:
    # Imported on use: the other actions need neither numpy nor pages.
    from mlscale.commands.versions.show_history import show_history

    return show_history(options)


def _add_version(options: Options) -> Answer:
    registry = open_registry(options.registry_root)
    done = _publish_reference(registry, options)
    version = done.version
    aliases = registry.get_aliases(version.name).list_aliases_of(version.number)
    named = f" is {', '.join(aliases)}" if aliases else ""
    blocks = [
        # The content is the same, so its digest is: the registry returns the existing version.
        "" if done.new else f"{version.ref} holds the same content: no new version is made",
        f"{version.ref}{named}: {format_size(version.bytes)} in {version.payload}",
    ]
    return Answer("versions-add", {**_describe_version(registry, version), "new": done.new}, blocks)


def _publish_reference(registry: LocalRegistry, options: Options) -> Published:
    details: dict[str, Any] = {"name": options.name, "notes": options.notes, "aliases": options.alias}
    folder = Path(options.ref)
    # A servable's folder is recognised by its document; everything else names a run.
    if (folder / DOCUMENT).is_file():
        _try_servable(folder)
        run = None
        with contextlib.suppress(MLScaleError):  # it may come from another machine
            run = find_run((read_servable(folder)["run"] or {}).get("id", ""), options.runs_dir)
        return publish_servable(registry, folder, run=run, **details)
    run = find_run(options.ref, options.runs_dir)
    if options.servable:
        _try_servable(run.path / "servable")
        return publish_servable(registry, run.path / "servable", run=run, **details)
    return publish_run(registry, run, checkpoint=options.checkpoint, **details)


def _promote_version(options: Options) -> Answer:
    registry = open_registry(options.registry_root)
    version = registry.resolve_version(options.ref)
    require_approval(version, options.approved or ())
    # Loaded before the alias moves: a server that follows it would fail at its next swap.
    _try_version(registry, options.ref)
    version = registry.promote(options.ref, options.alias)
    return _report_alias(registry, version, options.alias, options)


def _roll_back_champion(options: Options) -> Answer:
    registry = open_registry(options.registry_root)
    # Without a previous version `rollback` raises the error itself.
    if PREVIOUS in registry.get_aliases(options.name).of:
        _try_version(registry, f"{options.name}@{PREVIOUS}")
    return _report_alias(registry, registry.rollback(options.name), CHAMPION, options)


def _try_version(registry: LocalRegistry, ref: str) -> None:
    """Load a version that may be served soon, and report what it would change for clients of the champion.

    Raises:
        MLScaleError: it is a servable that can't be loaded, or can't serve.
    """
    version = registry.fetch(ref)
    if version.kind != "servable":
        return
    new = _try_servable(version.payload)
    # A missing champion must not stop the first promotion.
    with contextlib.suppress(MLScaleError):  # no champion yet, or one that can't be loaded itself
        champion = registry.fetch(f"{version.name}@{CHAMPION}")
        # Only servables are served, so only between two of them a schema can change for clients.
        if champion.kind == "servable" and champion.number != version.number:
            from mlscale.export.servable_trial import describe_schema_change

            if change := describe_schema_change(_try_servable(champion.payload), new):
                print(
                    f"{version.ref} has another schema than {champion.ref}: {change}; "
                    "a server that runs does not swap to it unless it has accept_change=true",
                    file=sys.stderr,
                )


def _try_servable(folder: Path) -> Servable:
    """Load a servable, and compute with it once, as a server does before it swaps to it.

    Raises:
        MLScaleError: it can't be loaded, can't serve, or does not repeat its recorded answers; onnxruntime is not
            installed (exit code 5).
    """
    from mlscale.export.servable_trial import load_and_try

    return load_and_try(folder)


def _sync_registry(options: Options) -> Answer:
    registry = open_registry(options.registry_root)
    if options.project:
        registry = WandbRegistry(options.registry_root, project=options.project, entity=options.entity)
    if not isinstance(registry, WandbRegistry):
        raise MLScaleError(
            "this registry has no mirror yet",
            where=str(registry.root),
            why="it gets one by its first sync, or by registry=wandb where a version is published",
            fix="mlscale versions sync project=digits",
        )
    done = registry.sync_mirror(options.timeout)
    text = (
        f"sent: {', '.join(done.sent)}" if done.sent else "W&B has all there is" if not done.waiting else "nothing sent"
    )
    # An error although something may have been sent: what still waits has to be sent again.
    if done.waiting and options.output != "json":
        print(text)
        raise MLScaleError(
            f"W&B has not got {', '.join(done.waiting)}",
            where=str(registry.outbox.folder),
            why=done.why,
            fix="wandb login" if done.why == NO_KEY_WHY else "mlscale versions sync, once W&B answers",
            exit=Exit.ENVIRONMENT,
        )
    document = {"sent": done.sent, "waiting": done.waiting, "why": done.why}
    return Answer("versions-sync", document, [text], exit=Exit.ENVIRONMENT if done.waiting else Exit.DONE)


def _find_mirrored_name(registry: LocalRegistry, version: Version) -> str | None:
    """Return the version's name in W&B."""
    if not isinstance(registry, WandbRegistry):
        return None
    return registry.outbox.read_receipt(version.name).versions.get(version.number, "waits to be sent")


def _report_alias(registry: LocalRegistry, version: Version, alias: str, options: Options) -> Answer:
    before = registry.get_aliases(version.name).of.get(PREVIOUS) if alias == CHAMPION else None
    text = f"{version.ref} is {alias}{f', v{before} is previous' if before else ''}"
    return Answer(f"versions-{options.action}", _describe_version(registry, version), [text])


def _describe_model(registry: LocalRegistry, name: str, versions: Sequence[Version]) -> dict[str, Any]:
    return {
        "aliases": dict(registry.get_aliases(name).of),
        "versions": [_describe_version(registry, version) for version in versions],
    }


def _describe_version(registry: LocalRegistry, version: Version) -> dict[str, Any]:
    aliases = registry.get_aliases(version.name).list_aliases_of(version.number)
    return {"ref": version.ref, "path": str(version.payload), "aliases": aliases, **version.build_version_record()}


def _format_version_row(registry: LocalRegistry, version: Version) -> Sequence[object]:
    run = version.run or {}
    aliases = " ".join(registry.get_aliases(version.name).list_aliases_of(version.number)) or None
    value = f"{run['metric']} {format_number(version.value)}" if version.value is not None else None
    data = version.data_version[:12] if version.data_version else None
    made = (version.kind, run.get("id"), data, format_size(version.bytes), format_date(version.created))
    return (version.ref, aliases, value, *made)


def _trace_lineage(registry: LocalRegistry, version: Version) -> list[str]:
    """Return the version, its parent, the parent's parent, and so on, as far as the registry knows them."""
    ancestors = [version.ref]
    # `not in found`: documents may have been edited into a circle.
    while version.parent and version.parent not in ancestors:
        ancestors.append(version.parent)
        try:
            version = registry.resolve_version(version.parent)
        except MLScaleError:  # gone, or corrupt: its own parent isn't known
            break
    return ancestors


def _format_alias_move(move: AliasMove) -> str:
    before, after = (f"v{at}" if at else "none" for at in (move.before, move.after))
    return f"{format_date(move.time)}  {move.act}: {move.alias} {before} → {after}"


def list_approvals(version: Version) -> dict[str, str]:
    """Return the server that has approved each target of a version, by the target's name.

    Raises:
        MLScaleError: its document can't be read.
    """
    if version.kind != "servable":
        return {}
    targets = read_document(version.payload).get("export_targets") or {}
    return {str(name): str(entry["approved_by"]) for name, entry in targets.items() if entry.get("approved_by")}


def require_approval(version: Version, targets: Sequence[str]) -> None:
    """Raise an error unless a version was approved by the server of each target.

    Raises:
        MLScaleError: it was not; exit code 4.
    """
    approvals = list_approvals(version)
    missing = [name for name in targets if name not in approvals]
    if not missing:
        return
    run = (version.run or {}).get("id") or "<its run>"
    known = sorted({*approvals, *find_roots(()).groups["target"]} - {"none"})
    near = [find_nearest(name, known) for name in targets]
    fix = f"approved=[{','.join(filter(None, near))}]" if all(near) else f"approved=<{' or '.join(known)}>"
    if near == list(targets):
        fix = f"mlscale export {run} target=[{','.join(targets)}] check=server\n"
        fix += f"mlscale versions add {run} servable=true name={version.name}"
    by = f"approved by {', '.join(f'{name} ({server})' for name, server in approvals.items())}" if approvals else ""
    what, why = f"{version.ref} is not approved by {' and '.join(missing)}", "no target's own server has answered it"
    raise MLScaleError(what, where=str(version.payload), why=by or why, fix=fix, exit=Exit.GATE)
