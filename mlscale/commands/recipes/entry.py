"""List, read and copy recipes."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from mlscale.commands.options import Options, read_options
from mlscale.commands.recipes import COMMAND
from mlscale.config.names.suggest import find_nearest
from mlscale.config.schema.roots import Roots, find_roots
from mlscale.contracts.output_document import Answer, print_answer
from mlscale.errors import Exit, MLScaleError
from mlscale.report import format_table


def main(argv: Sequence[str]) -> int:
    """Run `mlscale recipes …`; return the exit code."""
    options = read_options("recipes", COMMAND.actions, argv)
    roots = find_roots(options.config_dir)
    actions = {"ls": _list_recipes, "show": _describe_recipe, "cp": _describe_copy}
    document, text = actions[options.action](roots, options)
    return print_answer(Answer(f"recipes-{options.action}", document, [text]), options.output)


def copy_recipe(roots: Roots, name: str, to: str) -> Path:
    """Copy recipe `name` to ./recipes/recipe/<to>.yaml; return the new file.

    Raises:
        MLScaleError: no such recipe, a bad name, or the file exists already.
    """
    # Any root: a recipe of a package or of ./recipes can be copied like a shipped one.
    source = _find_recipe(roots, name, f"mlscale recipes cp {{}} {to}")
    if not re.fullmatch(r"[\w.-]+", to):
        raise MLScaleError(
            f"'{to}' is not a valid name of a recipe",
            where="command line",
            why="letters, digits, '_', '-' and '.'",
            fix=f"mlscale recipes cp {name} {re.sub(r'[^A-Za-z0-9_.-]', '_', to)}",
        )
    target = Path("recipes/recipe") / f"{to}.yaml"
    if target.exists():
        raise MLScaleError("there is such a recipe already", where=str(target), fix=f"mlscale recipes cp {name} {to}2")
    text = source.read_text(encoding="utf-8")
    # The comment at the top shows the command that runs the recipe: it must name the copy.
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
            fix="cd ~, or to another folder that you may write to",
            exit=Exit.ENVIRONMENT,
        ) from error
    return target


def _list_recipes(roots: Roots, options: Options) -> tuple[dict[str, object], str]:
    """Return the recipes as a document and as a table."""
    files = sorted(roots.files.get("recipe", {}).items())
    rows = [(name, _read_purpose(file), _describe_source(roots, file)) for name, file in files]
    recipes = [
        {"name": name, "purpose": purpose, "source": source, "file": str(file)}
        for (name, purpose, source), (_, file) in zip(rows, files, strict=True)
    ]
    return {"recipes": recipes}, format_table(rows, headers=("recipe", "what for", "from"))


def _describe_recipe(roots: Roots, options: Options) -> tuple[dict[str, object], str]:
    """Return a recipe and its card as a document and as a text."""
    name = options.name
    file = _find_recipe(roots, name, "mlscale recipes show {}")
    # Cards are next to the folder of recipes: recipes/recipe/x.yaml, recipes/cards/x.md.
    path = file.parent.parent / "cards" / f"{name}.md"
    recipe = file.read_text(encoding="utf-8").rstrip()
    card = path.read_text(encoding="utf-8").rstrip() if path.is_file() else None
    parts = [f"# {file}", recipe, *(["", f"# {path}", card] if card else [])]
    return {"name": name, "file": str(file), "recipe": recipe, "card": card}, "\n".join(parts)


def _describe_copy(roots: Roots, options: Options) -> tuple[dict[str, object], str]:
    """Copy a recipe; return the new file as a document and as a text."""
    path = copy_recipe(roots, options.name, options.to)
    return {"name": path.stem, "file": str(path)}, f"{path}\nmlscale recipe={path.stem}"


def _find_recipe(roots: Roots, name: str, command: str) -> Path:
    """Return the file of a recipe; `command` is what was typed, with a place for its name."""
    known = roots.files.get("recipe", {})
    if name in known:
        return known[name]
    best = find_nearest(name, known)
    raise MLScaleError(
        f"no recipe '{name}'",
        where=", ".join(root.label for root in roots.roots),
        why=f"recipes: {', '.join(sorted(known))}",
        fix=command.format(best) if best else "mlscale recipes ls",
    )


def _read_purpose(file: Path) -> str:
    """Return the first sentence of the file's comment that is neither a directive nor a command."""
    comments = (
        line.lstrip("# ").strip() for line in file.read_text(encoding="utf-8").splitlines() if line.startswith("#")
    )
    words = " ".join(line for line in comments if line and not line.startswith(("@package", "python -m", "mlscale ")))
    return re.split(r"(?<=\.) ", words, maxsplit=1)[0]


def _describe_source(roots: Roots, file: Path) -> str:
    return next((root.label for root in roots.roots if file.is_relative_to(root.path)), str(file))
