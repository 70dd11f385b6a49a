"""Write a new project for `mlscale init`: small, complete, with tests that pass, to be changed by its user."""

from __future__ import annotations

import keyword
import os
import re
import secrets
import shutil
import sys
from importlib.machinery import PathFinder
from pathlib import Path

from mlscale.atomic_files import ASIDE
from mlscale.errors import Exit, MLScaleError

_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_-]{0,39}")
_SUFFIX = ".tmpl"
# Folders of the project and of its runs, and options that every group has or builds on.
_TAKEN = frozenset({"conf", "recipes", "tests", "runs", "registry", "evaluations", "default", "none"})


def derive_package_name(name: str) -> str:
    """Return the name of a project's Python package.

    Raises:
        MLScaleError: no package can have this name.
    """
    package = name.lower().replace("-", "_")
    if _NAME.fullmatch(name) and not _is_taken(package):
        return package
    # The fix names a project that is valid: invalid characters become hyphens, a name in use gets a prefix.
    near = re.sub(r"[^A-Za-z0-9_-]+", "-", name).strip("-_0123456789")[:40] or "digits"
    if _is_taken(near.lower().replace("-", "_")):
        near = f"my-{near}"[:40]
    raise MLScaleError(
        f"'{name}' is not a valid name of a project",
        where="mlscale init",
        why="letters, digits, '-' and '_', a letter first, at most 40, and no other package's name",
        fix=f"mlscale init {near}",
    )


def _is_taken(package: str) -> bool:
    """Return whether the name is in use: by Python, by mlscale, or by an installed package, which the project's own
    package would hide."""
    if keyword.iskeyword(package) or package in _TAKEN or package in sys.stdlib_module_names:
        return True
    # Without importing the package, and without the current folder: a project of that name there is not installed.
    installed = [path for path in sys.path if path and Path(path).resolve() != Path.cwd()]
    spec = PathFinder.find_spec(package, installed)
    # A folder without __init__.py is found, too, as a namespace package, whose origin is None: it is not a package.
    return spec is not None and spec.origin is not None


def write_project(folder: Path, name: str) -> list[Path]:
    """Write the project `name` into `folder`, completely or not at all; return its files, relative to it.

    Raises:
        MLScaleError: the folder exists and is not empty, or can't be written (exit code 5).
    """
    package = derive_package_name(name)
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise MLScaleError(
            f"{folder} is there, and not empty" if folder.is_dir() else f"{folder} is a file",
            where="mlscale init",
            why="a project is written into a folder of its own",
            fix=f"mlscale init {name}-2",
        )
    # In the same parent folder, so that the rename stays within one file system; random, as two may run at once.
    aside = folder.absolute().with_name(f"{ASIDE}{folder.name}-{secrets.token_hex(4)}")
    try:
        for source in _list_templates():
            target = aside / _build_target_path(source, package)
            target.parent.mkdir(parents=True, exist_ok=True)
            text = (_get_template_folder() / source).read_text(encoding="utf-8")
            target.write_text(text.replace("@name@", name).replace("@package@", package), encoding="utf-8")
            if target.suffix == ".sh":
                target.chmod(target.stat().st_mode | 0o111)
        # rmdir fails for a folder that got a file since the check above: nothing is overwritten.
        if folder.is_dir():
            folder.rmdir()
        aside.rename(folder)
    except OSError as error:
        shutil.rmtree(aside, ignore_errors=True)
        raise MLScaleError(
            f"can't write {folder}",
            where=str(folder.absolute().parent),
            why=error.strerror or str(error),
            fix="cd ~, or to another folder that you may write to",
            exit=Exit.ENVIRONMENT,
        ) from error
    return sorted(_build_target_path(source, package) for source in _list_templates())


def _get_template_folder() -> Path:
    return Path(__file__).parent / "project"


def _list_templates() -> list[Path]:
    """Return the project's template files, relative to their folder."""
    paths = (Path(parent, name) for parent, _, names in os.walk(_get_template_folder()) for name in names)
    return sorted(path.relative_to(_get_template_folder()) for path in paths if path.suffix == _SUFFIX)


def _build_target_path(source: Path, package: str) -> Path:
    """Return the path of a template in the project: `dot_github/ci.yml.tmpl` becomes `.github/ci.yml`."""
    # 'dot_', as the glob of package data in pyproject.toml does not match names with a leading dot.
    parts = [part.replace("PACKAGE", package) for part in source.with_suffix("").parts]
    return Path(*(f".{part.removeprefix('dot_')}" if part.startswith("dot_") else part for part in parts))
