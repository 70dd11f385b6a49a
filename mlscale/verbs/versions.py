"""Publish, list, promote and roll back versions of models."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from typing import Any

from mlscale.errors import Exit, MLScaleError
from mlscale.registry import LocalRegistry, Version
from mlscale.registry.from_run import publish_run
from mlscale.registry.reference import CHAMPION, PREVIOUS
from mlscale.report import key_values, number, size, table
from mlscale.report.text import label
from mlscale.report.text import metric as shown_metric
from mlscale.runs.find import find
from mlscale.verbs.options import Options

_REF = "a version: resnet:v7, resnet:latest or resnet@champion; resnet alone is the champion, else the latest"


def main(argv: Sequence[str]) -> int:
    """Run `mlscale versions …`; returns the exit code.

    Raises:
        MLScaleError: no such version, one that is damaged, or a registry that can't be written to.
    """
    args = _options().parse_args(list(argv))
    commands = {"ls": _ls, "show": _show, "add": _add, "promote": _promote, "rollback": _rollback}
    return commands[args.command](args)


def _options() -> Options:
    parser = Options(
        prog="mlscale versions",
        description="Versions of models in a folder, the registry: immutable, called by number or a moving alias.",
        examples="""
mlscale versions add last --alias challenger    the last run's best checkpoint as the next version
mlscale versions ls                             all models and versions
mlscale versions show resnet@champion           where it comes from, and whether it still is what was published
mlscale versions promote resnet:v7              make it the champion; who was it before is 'previous'
mlscale versions rollback resnet                the previous champion again""",
    )
    commands = parser.add_subparsers(
        dest="command", required=True, metavar="ls|show|add|promote|rollback", parser_class=Options
    )
    ls = _command(commands, "ls", "list models and their versions, oldest first", "mlscale versions ls resnet --json")
    ls.add_argument("name", nargs="?", help="one model; all by default")
    show = _command(
        commands,
        "show",
        "one version: its origin, metrics and files, each read again: exit code 2 if one was altered",
        "mlscale versions show resnet:v7",
    )
    show.add_argument("ref", help=_REF)
    add = _command(
        commands,
        "add",
        "publish a run's checkpoint, its config, metrics and origin as a version",
        "mlscale versions add last --name resnet --alias challenger",
    )
    add.add_argument("run", help="a run: its id, the beginning of it or of its folder's name, its path, or 'last'")
    add.add_argument("--name", help="the model; the run's name by default")
    add.add_argument("--alias", action="append", default=[], help="give the version this alias; may be repeated")
    add.add_argument("--checkpoint", choices=("best", "last"), default="best", help="which one; default: best")
    add.add_argument("--notes", default="", help="free text, kept with the version")
    add.add_argument("--runs", default="runs", help="the folder of the runs (runs_dir); default: runs")
    promote = _command(
        commands,
        "promote",
        "give a version an alias, champion by default; damaged versions are refused",
        "mlscale versions promote resnet@challenger",
    )
    promote.add_argument("ref", help="resnet:v7, resnet:latest or resnet@challenger")
    promote.add_argument("--alias", default=CHAMPION, help="which alias; default: champion")
    rollback = _command(
        commands,
        "rollback",
        "exchange champion and previous; twice changes nothing",
        "mlscale versions rollback resnet",
    )
    rollback.add_argument("name", help="the model")
    return parser


def _command(commands: Any, name: str, text: str, example: str) -> Options:
    command: Options = commands.add_parser(name, help=text, description=text, examples=example)
    command.add_argument("--root", default="registry", help="the folder of the registry; default: registry")
    command.add_argument("--json", action="store_true", help="print one JSON document")
    return command


def _ls(args: argparse.Namespace) -> int:
    registry = LocalRegistry(args.root)
    names = registry.names()
    if args.name and args.name not in names:
        registry.resolve(args.name)  # raises what there is instead
    names = [args.name] if args.name else names
    found = {name: registry.versions(name) for name in names}
    broken = {str(path): why for name in names for path, why in registry.damaged(name).items()}
    if args.json:
        models = {name: _model(registry, name, versions) for name, versions in found.items()}
        return _print_json({"registry": str(registry.root), "models": models, "damaged": broken})
    if not names:
        print(f"no versions in {args.root}; mlscale versions add last makes one of the last run")
    rows = [_row(registry, version) for versions in found.values() for version in versions]
    if rows:
        print(table(rows, ("version", "aliases", "metric", "kind", "run", "data", "size", "created")))
    for path, why in broken.items():
        print(f"damaged: {path} ({why})", file=sys.stderr)
    return int(Exit.DONE)


def _show(args: argparse.Namespace) -> int:
    registry = LocalRegistry(args.root)
    version = registry.resolve(args.ref)
    changed, aliases = registry.changed(version), registry.aliases(version.name)
    moves = [move for move in aliases.moves if version.number in (move.before, move.after)]
    if args.json:
        document = {**_document(registry, version), "changed": changed, "lineage": _lineage(registry, version)}
        _print_json({**document, "moves": [vars(move) for move in moves]})
        return int(Exit.USER if changed else Exit.DONE)
    run = version.run or {}
    about = [
        ("version", version.ref),
        ("aliases", " ".join(aliases.on(version.number)) or None),
        ("kind", version.kind),
        ("created", _date(version.created)),
        ("digest", version.digest),
        ("folder", version.payload),
        ("notes", version.notes or None),
    ]
    print(key_values([(name, value) for name, value in about if value is not None]))
    commit = (
        f"{run['commit'][:12]}{' and uncommitted changes' if run.get('dirty') else ''}" if run.get("commit") else None
    )
    origin = [
        ("run", f"{run.get('name')} {run['id']}" if run else None),
        ("run folder", run.get("path")),
        ("commit", commit),
        ("data", version.data_version),
        ("parent", " ← ".join(_lineage(registry, version)[1:]) or None),
    ]
    _section("origin", key_values([(name, value) for name, value in origin if value is not None]))
    metrics = [(label(name), shown_metric(name, value)) for name, value in version.metrics.items() if value is not None]
    _section("metrics", key_values(metrics))
    _section("files", key_values([(name, size(file.bytes)) for name, file in sorted(version.files.items())]))
    _section("aliases moved", "\n".join(_told(move) for move in moves))
    _section("damaged" if changed else "digest", "\n".join(changed) or "every file is as it was published")
    return int(Exit.USER if changed else Exit.DONE)


def _add(args: argparse.Namespace) -> int:
    registry = LocalRegistry(args.root)
    done = publish_run(
        registry,
        find(args.run, args.runs),
        name=args.name,
        checkpoint=args.checkpoint,
        notes=args.notes,
        aliases=tuple(args.alias),
    )
    version = done.version
    if args.json:
        return _print_json({**_document(registry, version), "new": done.new})
    if not done.new:
        print(f"{version.ref} holds the same content: no new version is made")
    aliases = registry.aliases(version.name).on(version.number)
    print(f"{version.ref}{' is ' + ', '.join(aliases) if aliases else ''}: {size(version.bytes)} in {version.payload}")
    return int(Exit.DONE)


def _promote(args: argparse.Namespace) -> int:
    registry = LocalRegistry(args.root)
    version = registry.promote(args.ref, args.alias)
    return _told_of(registry, version, args.alias, as_json=args.json)


def _rollback(args: argparse.Namespace) -> int:
    registry = LocalRegistry(args.root)
    return _told_of(registry, registry.rollback(args.name), CHAMPION, as_json=args.json)


def _told_of(registry: LocalRegistry, version: Version, alias: str, *, as_json: bool) -> int:
    if as_json:
        return _print_json(_document(registry, version))
    before = registry.aliases(version.name).of.get(PREVIOUS) if alias == CHAMPION else None
    print(f"{version.ref} is {alias}{f', v{before} is previous' if before else ''}")
    return int(Exit.DONE)


def _model(registry: LocalRegistry, name: str, versions: Sequence[Version]) -> dict[str, Any]:
    return {
        "aliases": dict(registry.aliases(name).of),
        "versions": [_document(registry, version) for version in versions],
    }


def _document(registry: LocalRegistry, version: Version) -> dict[str, Any]:
    aliases = registry.aliases(version.name).on(version.number)
    return {"ref": version.ref, "path": str(version.payload), "aliases": aliases, **version.document()}


def _row(registry: LocalRegistry, version: Version) -> Sequence[object]:
    run = version.run or {}
    aliases = " ".join(registry.aliases(version.name).on(version.number)) or None
    value = f"{run['metric']} {number(version.value)}" if version.value is not None else None
    data = version.data_version[:12] if version.data_version else None
    made = (version.kind, run.get("id"), data, size(version.bytes), _date(version.created))
    return (version.ref, aliases, value, *made)


def _lineage(registry: LocalRegistry, version: Version) -> list[str]:
    """The version, its parent, the parent's parent, and so on, as far as the registry knows them."""
    found = [version.ref]
    while version.parent and version.parent not in found:
        found.append(version.parent)
        try:
            version = registry.resolve(version.parent)
        except MLScaleError:  # gone, or damaged: what came before it isn't known
            break
    return found


def _told(move: Any) -> str:
    before, after = (f"v{at}" if at else "none" for at in (move.before, move.after))
    return f"{_date(move.time)}  {move.act}: {move.alias} {before} → {after}"


def _section(title: str, text: str) -> None:
    if text:
        print(f"\n{title}\n" + "\n".join("  " + line for line in text.splitlines()))


def _date(time: str) -> str:
    return time[:16].replace("T", " ")


def _print_json(value: object) -> int:
    print(json.dumps(value, ensure_ascii=False, indent=2))
    return int(Exit.DONE)
