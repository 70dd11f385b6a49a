"""Write a small project that works: model, data, recipe, tests, CI."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from mlscale import init as starter
from mlscale.commands.init import COMMAND
from mlscale.commands.options import read_options
from mlscale.contracts.output_document import Answer, print_answer


def main(argv: Sequence[str]) -> int:
    """Run `mlscale init NAME`; return the exit code.

    Raises:
        MLScaleError: a bad name, or a folder that exists and is not empty.
    """
    options = read_options("init", COMMAND.actions, argv)
    folder = Path(options.to or options.name)
    package = starter.derive_package_name(options.name)
    files = starter.write_project(folder, options.name)
    paths = [str(folder / file) for file in files]
    text = f"\nnext: cd {folder} && mlscale recipe={package}   (and: bash ci.sh)"
    document = {"folder": str(folder), "package": package, "files": paths}
    return print_answer(Answer("init", document, [*paths, text]), options.output)
