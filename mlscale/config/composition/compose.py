"""From overrides to one composed config: Hydra with mlscale's search path.

A single run composes once, by Hydra's compose API. Hydra's own flags and multirun go through `hydra.main`, so that they
keep working as people know them.
"""

from __future__ import annotations

import contextlib
import os
import re
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any, ClassVar

import hydra
import yaml
from hydra._internal.core_plugins.file_config_source import FileConfigSource
from hydra._internal.sources_registry import SourcesRegistry
from hydra.core.config_search_path import ConfigSearchPath
from hydra.core.config_store import ConfigStore
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from hydra.core.plugins import Plugins
from hydra.plugins.config_source import ConfigResult
from hydra.plugins.search_path_plugin import SearchPathPlugin
from omegaconf import DictConfig, OmegaConf
from omegaconf._utils import get_yaml_loader
from omegaconf.errors import GrammarParseError

from mlscale.config.checks.interpolations import INTERPOLATION
from mlscale.config.composition.hydra_errors import check_options, explain_refusal
from mlscale.config.composition.hydra_keys import check_file_content
from mlscale.config.composition.request import APPENDED, Request
from mlscale.config.composition.user_files import check_content, check_recipe, check_text, create_yaml_error
from mlscale.config.names.private_names import check_private_names
from mlscale.config.names.suggest import find_nearest
from mlscale.config.schema.model_arguments import REFERENCES
from mlscale.config.schema.roots import COMMAND_BASES, COMMAND_GROUP, TAKES_MODEL, Roots, get_shipped_folder
from mlscale.errors import MLScaleError, raise_all

VERSION_BASE = "1.3"
_YamlLoader: Any = get_yaml_loader()
if hasattr(yaml, "CSafeLoader"):  # the same scalars, by libyaml's parser
    _YamlLoader = type("_YamlLoader", (yaml.CSafeLoader, _YamlLoader), {})
_SWEPT = re.compile(r"""^[^=]+=(?:[^\[{'"]*,|(?:choice|range|interval|glob)\()""")


class ShippedFolder(FileConfigSource):
    """A shipped folder: libyaml reads each file, once in a process, which halves the time of a composition."""

    @staticmethod
    def scheme() -> str:
        return "shipped"

    def load_config(self, config_path: str) -> ConfigResult:
        header, tree = _read_shipped(Path(self.path) / self._normalize_file_name(config_path))
        # Hydra takes the defaults list out of what it gets.
        return ConfigResult(self.provider, f"{self.scheme()}://{self.path}", OmegaConf.create(tree), dict(header))


@cache
def _read_shipped(file: Path) -> tuple[dict[str, str | None], Any]:
    """Return the header and the content of a shipped file."""
    text = file.read_text(encoding="utf-8")
    return FileConfigSource._get_header_dict(text), _YamlLoader(text).get_single_data() or {}


class OwnFolder(FileConfigSource):
    """A user's config folder: any group, but neither the primary configuration of a command nor its own settings."""

    @staticmethod
    def scheme() -> str:
        return "own"

    def is_config(self, config_path: str) -> bool:
        # A user's train.yaml or command/train.yaml would replace the base that every check relies on.
        name = config_path.removesuffix(".yaml")
        return name not in COMMAND_BASES and not name.startswith(f"{COMMAND_GROUP}/") and super().is_config(config_path)

    def load_config(self, config_path: str) -> ConfigResult:
        file = Path(self.path) / self._normalize_file_name(config_path)
        shown = os.path.relpath(file) if file.is_relative_to(Path.cwd()) else str(file)
        # Before OmegaConf reads it: an alias bomb must be refused while it is still small.
        check_text(file, shown)
        try:
            result = super().load_config(config_path)
        except yaml.YAMLError as error:
            raise create_yaml_error(error, shown) from None
        except Exception as error:  # whatever OmegaConf does not take: an interpolation without an end, a huge number
            why = f"{type(error).__name__}: {str(error).strip().splitlines()[0]}"
            why = INTERPOLATION if isinstance(error, GrammarParseError) else why
            raise MLScaleError("a config file can't be read", where=shown, why=why, fix="correct the line") from None
        check_content(result.config, shown)
        if config_path.startswith("recipe/"):
            groups = SearchPath.roots.groups if SearchPath.roots else ()
            check_recipe(result.config, result.header.get("package"), groups, shown)  # type: ignore[arg-type]
        if result.header.get("package") == "_global_":
            raise_all(list(check_file_content(OmegaConf.to_container(result.config, resolve=False), shown)))  # type: ignore[arg-type]
        return result


class SearchPath(SearchPathPlugin):
    """The user's folders before the shipped ones."""

    roots: ClassVar[Roots | None] = None

    def manipulate_search_path(self, search_path: ConfigSearchPath) -> None:
        own = [root for root in self.roots.roots if not root.shipped] if self.roots else []
        # Prepended one after the other, so the last one prepended is searched first.
        for root in reversed(own):
            search_path.prepend(provider=root.label, path=f"own://{root.path}")
        conf, recipes = (str(get_shipped_folder(name)) for name in ("conf", "recipes"))
        for element in search_path.get_path():
            if element.path in (conf, f"file://{conf}"):
                element.path = f"shipped://{conf}"
        search_path.append(provider="mlscale-recipes", path=f"shipped://{recipes}")


def compose_config(request: Request) -> DictConfig:
    """Return the config of one job, interpolations kept, not yet checked.

    Raises:
        MLScaleError: what keeps Hydra from composing it; options that do not exist, and keys that are not there to be
            removed, are reported together.
    """
    with prepare_hydra(request.roots), _report_refusals(request):
        raise_all(list(check_options(request, GlobalHydra.instance().config_loader().repository.config_exists)))  # type: ignore[attr-defined]
        return _compose_by_hydra(prepare_deletions(request))


@contextlib.contextmanager
def _report_refusals(request: Request) -> Iterator[None]:
    """Raise what Hydra or OmegaConf refuse as an error: their only inputs are files and overrides, so one of these is
    wrong.
    """
    try:
        yield
    except MLScaleError:
        raise
    except Exception as error:
        check_private_names(())  # OmegaConf reports one that is gone as a key
        if (refusal := explain_refusal(error, request.overrides, request.roots)) is not None:
            raise refusal from error
        first = next(iter(str(error).strip().splitlines()), "")
        raise MLScaleError(
            "the config can't be composed",
            where="command line or config files",
            why=f"{type(error).__name__}: {first}; MLSCALE_TRACEBACK=1 shows where",
        ) from error


def _store_primary(command: str) -> None:
    """Give a third-party command the primary configuration of `train`, with the group of its own keys if it has one,
    and the keys of a trained model if it takes one.
    """
    primary = OmegaConf.load(get_shipped_folder("conf") / "train.yaml")
    first, _, *others = primary.defaults
    of_a_model = [{COMMAND_GROUP: TAKES_MODEL}] if command in REFERENCES else []
    primary.defaults = [first, *of_a_model, {f"optional {command}": "default"}, *others]
    ConfigStore.instance().store(name=command, node=primary)


def _compose_by_hydra(request: Request) -> DictConfig:
    cfg = hydra.compose(request.command, overrides=list(request.overrides))
    # Hydra returns a config in struct mode, where keys that no file has could not be added later.
    OmegaConf.set_struct(cfg, False)
    return cfg


def prepare_deletions(request: Request) -> Request:
    """Return the request with every `~key` in a form that Hydra takes. Hydra can't delete a key whose value is null,
    and a key that is filled in later (`${derived.channels}`) is null before the run. Such a key gets a value first.
    """
    deletions = [word for word in request.overrides if word.startswith("~") and "." in word.split("=")[0]]
    if not deletions:
        return request
    others = [word for word in request.overrides if word not in deletions]
    if request.multirun:
        others = [word for word in others if not _SWEPT.search(word)]  # one job has one value of each
    try:
        cfg = hydra.compose(request.command, overrides=others)
    except Exception:
        return request  # the errors are reported when all of it is composed
    overrides: list[str] = []
    problems: list[MLScaleError] = []
    for word in request.overrides:
        key = word[1:].partition("=")[0]
        head, _, last = key.rpartition(".")
        node = OmegaConf.select(cfg, head) if word in deletions else None
        names = list(map(str, node)) if isinstance(node, DictConfig) else []
        if word in deletions and last not in names:
            near, why = find_nearest(last, names), "mlscale config show prints what there is"
            fix = f"~{head}.{near}" if near else f"leave {word} out"
            problems.append(MLScaleError(f"no '{key}' to remove", where=f"command line: {word}", why=why, fix=fix))
        elif word in deletions and OmegaConf.select(cfg, key) is None:
            overrides.append(f"++{key}=deleted")
        overrides.append(word)
    raise_all(problems)
    return replace(request, overrides=tuple(overrides))


def run_by_hydra(request: Request, job: Callable[[DictConfig, list[str]], Any]) -> None:
    """Run Hydra's own flags, or call `job(config, overrides)` for each job of a multirun."""

    def run_task(cfg: DictConfig) -> Any:
        OmegaConf.set_struct(cfg, False)
        return job(cfg, [item for item in map(str, HydraConfig.get().overrides.task) if item not in added])

    flags = [*request.flags, *(["--multirun"] if request.multirun else [])]
    typed = request.overrides
    with prepare_hydra(request.roots):
        request = prepare_deletions(request)
    # `added` are the values that `prepare_deletions` sets before a `~key`: a job must not report them as typed.
    added = set(request.overrides) - set(typed)
    overrides = [] if "--hydra-help" in flags else request.overrides  # it composes no config that they could change
    # hydra.main reads sys.argv itself, and initialises Hydra itself.
    with prepare_hydra(request.roots, initialise=False), _replace_argv([*flags, *overrides]), _report_refusals(request):
        try:
            hydra.main(
                version_base=VERSION_BASE, config_path=str(get_shipped_folder("conf")), config_name=request.command
            )(run_task)()
        except SystemExit as end:  # how --hydra-help ends
            if end.code:
                raise


@contextlib.contextmanager
def prepare_hydra(roots: Roots, *, initialise: bool = True) -> Iterator[None]:
    """Provide Hydra with mlscale's search path, and without its own error reports."""
    SourcesRegistry.instance().register(OwnFolder)
    SourcesRegistry.instance().register(ShippedFolder)
    SearchPath.roots = roots
    for command in COMMAND_BASES:
        if not (get_shipped_folder("conf") / f"{command}.yaml").is_file():
            _store_primary(command)
    # Hydra instantiates the plugin by its class, so it can only reach the roots through a class attribute.
    Plugins.instance().register(SearchPath)
    before = os.environ.get("HYDRA_FULL_ERROR")
    # Without this hydra.main prints a shortened traceback and exits: no error of a job would reach mlscale.
    os.environ["HYDRA_FULL_ERROR"] = "1"
    try:
        if initialise:
            with hydra.initialize_config_dir(str(get_shipped_folder("conf")), version_base=VERSION_BASE):
                yield
        else:
            GlobalHydra.instance().clear()
            yield
    finally:
        os.environ.pop("HYDRA_FULL_ERROR") if before is None else os.environ.update(HYDRA_FULL_ERROR=before)


def use_frozen(frozen: DictConfig, request: Request) -> Request:
    """Make a run's frozen config the base; overrides apply on top, a group option replaces its whole node."""
    base = frozen.copy()
    overrides = ["base=frozen"]
    for override in request.overrides:
        group = override.split("=", 1)[0].lstrip("+")
        if group == "recipe":
            raise MLScaleError(
                "a run brings its own recipe",
                where=f"command line: {override.lstrip('+')}",
                why=f"mlscale {request.command} starts from the run's config as it was",
                fix=f"leave {override.lstrip('+')} out: single groups and keys may be set, such as data.batch_size=256",
            )
        if group in request.roots.groups and group not in APPENDED and not override.startswith("~"):
            # Emptied first: merged into the frozen node, the option would keep keys of the option that it replaces.
            base[group] = {}
            override = "+" + override.lstrip("+")
        overrides.append(override)
    ConfigStore.instance().store(group="base", name="frozen", node=base, package="_global_")
    return Request(**{**request.__dict__, "overrides": tuple(overrides)})


@contextlib.contextmanager
def _replace_argv(words: list[str]) -> Iterator[None]:
    before = sys.argv
    sys.argv = ["mlscale", *words]
    try:
        yield
    finally:
        sys.argv = before
