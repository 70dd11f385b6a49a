"""List, read and copy recipes."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from mlscale.commands.options import Options
from mlscale.config.composition.roots import Roots, find_roots
from mlscale.config.suggestions.suggest import nearest
from mlscale.errors import Exit, MLScaleError
from mlscale.report import table


def main(argv: Sequence[str]) -> int:
    """`mlscale recipes …`; returns the exit code."""
    args = _options().parse_args(list(argv))
    roots = find_roots(args.config_dir)
    if args.command == "ls":
        print(_list(roots))
    elif args.command == "show":
        print(_show(roots, args.name))
    else:
        path = copy(roots, args.name, args.to)
        print(f"{path}\nmlscale recipe={path.stem}")
    return int(Exit.DONE)


def _options() -> Options:
    parser = Options(
        prog="mlscale recipes",
        description="List, read and copy recipes.",
        examples="""
mlscale recipes ls                 every recipe, what it is for, and where it lies
mlscale recipes show resnet        its file and its card: data, licence, accuracy, time
mlscale recipes cp resnet mine     write recipes/recipe/mine.yaml here; then: mlscale recipe=mine""",
    )
    commands = parser.add_subparsers(dest="command", required=True, metavar="ls|show|cp", parser_class=Options)
    _command(commands, "ls", "every recipe, what it is for, and where it lies", "mlscale recipes ls")
    show = _command(commands, "show", "a recipe's file and its card", "mlscale recipes show resnet")
    show.add_argument("name")
    cp = _command(commands, "cp", "copy a recipe into ./recipes/recipe to start from", "mlscale recipes cp resnet mine")
    cp.add_argument("name")
    cp.add_argument("to", help="the name of your recipe")
    return parser


def _command(commands: Any, name: str, text: str, example: str) -> Options:
    command: Options = commands.add_parser(name, help=text, description=text, examples=example)
    command.add_argument(
        "--config-dir", "-cd", action="append", default=[], help="a folder of your own groups and recipes"
    )
    return command


def copy(roots: Roots, name: str, to: str) -> Path:
    """Copy recipe `name` to ./recipes/recipe/<to>.yaml; returns the new file.

    Raises:
        MLScaleError: no such recipe, a bad name, or a file that is there already.
    """
    source = _file(roots, name)
    if not re.fullmatch(r"[\w.-]+", to):
        raise MLScaleError(
            f"'{to}' is no name for a recipe",
            where="command line",
            why="letters, digits, '_', '-' and '.'",
            fix=f"mlscale recipes cp {name} {re.sub(r'[^A-Za-z0-9_.-]', '_', to)}",
        )
    target = Path("recipes/recipe") / f"{to}.yaml"
    if target.exists():
        raise MLScaleError("there is such a recipe already", where=str(target), fix=f"mlscale recipes cp {name} {to}2")
    text = source.read_text(encoding="utf-8")
    text = re.sub(rf"(recipe=){re.escape(name)}\b", rf"\g<1>{to}", text)
    text = re.sub(rf"^name: {re.escape(name)}$", f"name: {to}", text, flags=re.MULTILINE)
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(text, encoding="utf-8")
    except OSError as error:
        raise MLScaleError(
            f"can't write {target}",
            where=str(Path.cwd()),
            why=error.strerror or str(error),
            fix="stand in a folder that you may write to",
            exit=Exit.ENVIRONMENT,
        ) from error
    return target


def _list(roots: Roots) -> str:
    rows = [(name, _purpose(file), _label(roots, file)) for name, file in sorted(roots.files.get("recipe", {}).items())]
    return table(rows, headers=("recipe", "what for", "from"))


def _show(roots: Roots, name: str) -> str:
    file = _file(roots, name)
    card = file.parent.parent / "cards" / f"{name}.md"
    parts = [f"# {file}", file.read_text(encoding="utf-8").rstrip()]
    if card.is_file():
        parts += ["", f"# {card}", card.read_text(encoding="utf-8").rstrip()]
    return "\n".join(parts)


def _file(roots: Roots, name: str) -> Path:
    known = roots.files.get("recipe", {})
    if name in known:
        return known[name]
    best = nearest(name, known)
    raise MLScaleError(
        f"no recipe '{name}'",
        where=", ".join(root.label for root in roots.roots),
        why=f"recipes: {', '.join(sorted(known))}",
        fix=f"mlscale recipes show {best}" if best else "mlscale recipes ls",
    )


def _purpose(file: Path) -> str:
    """The first sentence of the file's comment that is neither a directive nor a command."""
    comments = (
        line.lstrip("# ").strip() for line in file.read_text(encoding="utf-8").splitlines() if line.startswith("#")
    )
    words = " ".join(line for line in comments if line and not line.startswith(("@package", "python -m", "mlscale ")))
    return re.split(r"(?<=\.) ", words, maxsplit=1)[0]


def _label(roots: Roots, file: Path) -> str:
    return next((root.label for root in roots.roots if file.is_relative_to(root.path)), str(file))
