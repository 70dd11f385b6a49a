"""The command line of `mlscale versions`."""

from __future__ import annotations

from typing import Any

from mlscale.commands.options import Options
from mlscale.versions.version_reference import CHAMPION

_REF = "a version: resnet:v7, resnet:latest or resnet@champion; resnet alone is the champion, else the latest"


def options() -> Options:
    """Its sub-commands, and what each takes."""
    parser = Options(
        prog="mlscale versions",
        description="Versions of models in a folder, the registry: immutable, called by number or a moving alias.",
        examples="""
mlscale versions add last --alias challenger    the last run's best checkpoint as the next version
mlscale versions add last --servable            what mlscale export made of it
mlscale versions ls                             all models and versions
mlscale versions show resnet@champion           where it comes from, and whether it still is what was published
mlscale versions promote resnet:v7              make it the champion; who was it before is 'previous'
mlscale versions rollback resnet                the previous champion again
mlscale versions sync --project digits          mirror the registry to W&B from now on""",
    )
    commands = parser.add_subparsers(
        dest="command", required=True, metavar="ls|show|add|promote|rollback|sync", parser_class=Options
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
        "publish a run's checkpoint, or a servable, with metrics and origin as a version",
        "mlscale versions add last --name resnet --alias challenger",
    )
    add.add_argument(
        "what",
        help="a run: its id, the beginning of it or of its folder's name, its path, or 'last'; a servable's folder",
    )
    add.add_argument("--servable", action="store_true", help="the run's servable, which `mlscale export` made")
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
    sync = _command(
        commands,
        "sync",
        "send what W&B has not got: exit code 5 if something still waits",
        "mlscale versions sync --project digits --entity team",
    )
    sync.add_argument("--project", help="W&B's project; begins to mirror a registry that is not mirrored yet")
    sync.add_argument("--entity", help="W&B's user or team; the key's default by default")
    sync.add_argument("--timeout", type=float, default=3600.0, help="seconds that it may take; default: 3600")
    return parser


def _command(commands: Any, name: str, text: str, example: str) -> Options:
    command: Options = commands.add_parser(name, help=text, description=text, examples=example)
    command.add_argument("--root", default="registry", help="the folder of the registry; default: registry")
    command.add_argument("--json", action="store_true", help="print one JSON document")
    return command
