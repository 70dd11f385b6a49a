"""Write a small project that works: model, data, recipe, tests, CI."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from mlscale import init as starter
from mlscale.commands.options import Options
from mlscale.errors import Exit


def main(argv: Sequence[str]) -> int:
    """`mlscale init NAME`; returns the exit code.

    Raises:
        MLScaleError: a bad name, or a folder that is there and not empty.
    """
    args = _options().parse_args(list(argv))
    folder = Path(args.to or args.name)
    package = starter.package_of(args.name)
    files = starter.write(folder, args.name)
    for file in files:
        print(folder / file)
    print(f"\nnext: cd {folder} && mlscale recipe={package}   (and: bash ci.sh)")
    return int(Exit.DONE)


def _options() -> Options:
    parser = Options(
        prog="mlscale init",
        description="Write a small project into a new folder: model, data, recipe, tests, CI. Its own tests pass.",
        examples="""
mlscale init digits                the folder digits, with a package of that name
mlscale init my-net --to work      the project my-net in the folder work""",
    )
    parser.add_argument("name", help="of the project; its package is called so, with '_' for '-'")
    parser.add_argument("--to", help="the folder; NAME by default. It must be empty, or not there")
    return parser
