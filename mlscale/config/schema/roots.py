"""The folders where configuration is searched: the user's first, the shipped last. Imports neither Hydra nor torch."""

from __future__ import annotations

import os
import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from importlib.resources import files
from pathlib import Path

from mlscale.config.schema.local_paths import expect_local_path
from mlscale.entry_points import get_package_name, read_entry_points
from mlscale.errors import MLScaleError

# The primary configurations, and the base of each: `run` for what trains or starts from a run, `service` for the rest.
COMMAND_BASES = {
    "train": "run", "evaluate": "run", "export": "run", "prepare": "run", "estimate": "run", "verify-resume": "run",
    "profile": "run", "serve": "service", "loadtest": "service", "monitor": "service", "retrain": "run",
    "compress": "run", "lifecycle": "run", "predict": "run", "drill": "run",
}  # fmt: skip
COMMAND_GROUP = "command"  # conf/command/<command>.yaml: a command's own settings; not an option that users choose
TAKES_MODEL = "takes_model"  # the file there with the keys of third-party commands that work on a trained model
# The groups that conf/base/run.yaml selects an option of; any other group is added to them.
BASE_GROUPS = (
    "data", "augment", "model", "task", "optimizer", "scheduler", "precision", "strategy", "compress", "target",
    "callbacks", "logger", "registry", "trainer", "launch",
)  # fmt: skip
# The same of conf/base/service.yaml.
SERVICE_GROUPS = ("registry",)
ENTRY_POINT = "mlscale.config_dirs"


@dataclass(frozen=True)
class Root:
    """One folder of the search path, and how messages name it."""

    path: Path
    label: str
    shipped: bool = False


@dataclass(frozen=True)
class Roots:
    """The search path, first match wins."""

    roots: tuple[Root, ...]

    @cached_property
    def groups(self) -> dict[str, tuple[str, ...]]:
        """Every config group and its options, e.g. ``{"optimizer": ("adamw", "none", "resnet_sgd", "sgd")}``."""
        return {group: tuple(sorted(options)) for group, options in sorted(self.files.items())}

    @cached_property
    def files(self) -> dict[str, dict[str, Path]]:
        """Every option's file; a user's file hides the shipped one of the same name."""
        by_group: dict[str, dict[str, Path]] = {}
        for group, option, file, _ in self._list_options():
            by_group.setdefault(group, {}).setdefault(option, file)
        return by_group

    def get_command_groups(self, command: str) -> dict[str, tuple[str, ...]]:
        """Return the groups that a command's config is composed of, and those that may be added to it."""
        if COMMAND_BASES[command] == "run":
            return self.groups
        return {group: options for group, options in self.groups.items() if group in SERVICE_GROUPS}

    def list_command_files(self, command: str) -> tuple[Path, ...]:
        """Return the files with the keys of a third-party command: the options of the group that has its name."""
        if (get_shipped_folder("conf") / f"{command}.yaml").is_file():
            return ()
        return tuple(self.files.get(command, {}).values())

    def list_shadowed(self) -> list[str]:
        """Return one line for each shipped option that a user's file of the same name replaces, and each file that is
        not read though it looks like one.
        """
        mine: dict[tuple[str, str], Path] = {}
        lines = []
        for group, option, file, root in self._list_options():
            if root.shipped and (group, option) in mine:
                lines.append(f"{_format_relative(mine[group, option])} replaces the shipped {group}={option}")
            elif not root.shipped:
                mine.setdefault((group, option), file)
        for root in self.roots:
            if not root.shipped:
                lines += [
                    f"{_format_relative(file)} is not read: the file of an option ends in .yaml"
                    for file in sorted(root.path.rglob("*.yml"))
                    if file.parent.relative_to(root.path).as_posix() in self.groups
                ]
            for command in COMMAND_BASES:
                if not root.shipped and (root.path / f"{command}.yaml").is_file():
                    lines.append(
                        f"{_format_relative(root.path / f'{command}.yaml')} is not read: the primary configuration "
                        "of a command is mlscale's; put settings into a group or a recipe"
                    )
        return lines

    def _list_options(self) -> list[tuple[str, str, Path, Root]]:
        options = []
        for root in self.roots:
            for file in sorted(root.path.rglob("*.yaml")):
                group = file.parent.relative_to(root.path).as_posix()
                if group not in (".", COMMAND_GROUP) and file.is_file():  # no folder, no link that leads nowhere
                    options.append((group, file.stem, file, root))
        return options


def find_roots(config_dirs: Sequence[str] = ()) -> Roots:
    """Return the search path: ``--config-dir``, ./conf and ./recipes, packages with the entry point, then what is
    shipped.

    Raises:
        MLScaleError: a ``--config-dir`` that does not exist, or an entry point that does not load.
    """
    shipped = [Root(get_shipped_folder(name), name, shipped=True) for name in ("conf", "recipes")]
    candidates = [*map(_resolve_config_dir, config_dirs)]
    candidates += [Root(Path(name).resolve(), name) for name in ("conf", "recipes") if Path(name).is_dir()]
    candidates += _find_package_roots()
    # In a checkout ./conf is the shipped folder itself: it must not count as the user's own.
    known = {root.path.resolve() for root in shipped}
    own = []
    for root in candidates:
        if root.path.resolve() not in known:
            known.add(root.path.resolve())
            own.append(root)
    return Roots((*own, *shipped))


def get_shipped_folder(name: str) -> Path:
    """Return `conf` or `recipes`: next to the package in a checkout, installed or not; inside it in a wheel."""
    checkout = Path(__file__).resolve().parents[3]
    if (checkout / "pyproject.toml").is_file() and (checkout / name).is_dir():
        return checkout / name
    return Path(str(files(f"mlscale.{name}")))


def _resolve_config_dir(text: str) -> Root:
    expect_local_path("--config-dir", text, "command line")
    path = Path(os.path.expanduser(text))  # Path's own raises for a user that does not exist
    if not os.path.isdir(path):  # and so does Path's for a name that is too long
        raise MLScaleError(
            f"the folder of --config-dir does not exist: {text}",
            where="command line: --config-dir",
            fix=f"mkdir -p {shlex.quote(text)}, or name a folder that holds groups, e.g. {text}/model/mine.yaml",
        )
    return Root(path.resolve(), text)


def _find_package_roots() -> list[Root]:
    roots = []
    for point in read_entry_points(ENTRY_POINT):
        try:
            target = point.load()
        except Exception as error:
            raise MLScaleError(
                f"the entry point {ENTRY_POINT}:{point.name} does not load",
                where=f"package {get_package_name(point)}: {point.value}",
                why=f"{type(error).__name__}: {error}",
                fix=f"pip uninstall {point.dist.name if point.dist else point.name}, or correct its entry point",
            ) from error
        folder = target() if callable(target) else target
        folder = files(folder) if hasattr(folder, "__path__") else folder
        roots.append(Root(Path(str(folder)), f"package {point.name}"))
    return roots


def _format_relative(path: Path) -> str:
    return os.path.relpath(path) if path.is_relative_to(Path.cwd()) else str(path)
