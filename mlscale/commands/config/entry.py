"""Print, explain and check a composed config."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from mlscale.commands import COMMANDS
from mlscale.commands.config import COMMAND
from mlscale.commands.options import read
from mlscale.config.composition.argv import Request, parse
from mlscale.config.suggestions.suggest import nearest
from mlscale.errors import Exit, MLScaleError

if TYPE_CHECKING:
    from omegaconf import DictConfig


def main(argv: Sequence[str]) -> int:
    """Run `mlscale config …`; return the exit code."""
    options = read("config", COMMAND.actions, argv)
    command = _working(options.command)
    if options.action == "schema":
        from mlscale.config.composition.roots import find_roots
        from mlscale.config.json_schema import dump, json_schema

        print(dump(json_schema(find_roots(options.config_dir), command)))
        return int(Exit.DONE)
    # Passed on: the parser of configs reads the flag itself.
    folders = [word for folder in options.config_dir for word in ("--config-dir", folder)]
    request = parse(command, [*options.overrides, *folders])
    if options.action == "check":
        return _check(request)
    if request.multirun:
        raise MLScaleError(
            "config show prints one config, and -m makes several",
            where="command line: -m",
            fix="leave -m out and type one value of each; mlscale config check -m checks every job",
        )
    print(_show(request, options.part, origin=options.origin, resolve=options.resolve), end="")
    return int(Exit.DONE)


def _working(command: str) -> str:
    """Return the command if it composes a config.

    Raises:
        MLScaleError: it does not, or it is not a command.
    """
    working = [name for name, entry in COMMANDS.items() if entry.working]
    if command in working:
        return command
    raise MLScaleError(
        f"mlscale {command} has no config" if command in COMMANDS else f"unknown command '{command}'",
        where=f"command line: command={command}",
        why=f"commands with a config: {', '.join(working)}",
        fix=f"command={nearest(command, working) or 'train'}",
    )


def _show(request: Request, parts: Sequence[str], *, origin: bool, resolve: bool) -> str:
    """Return the config as YAML, secrets masked. A config with problems is shown, too: users read it to find them."""
    from omegaconf import OmegaConf
    from omegaconf.errors import OmegaConfBaseException

    from mlscale.config.composition.compose import compose
    from mlscale.config.composition.origin import annotated, origin_of
    from mlscale.secrets.mask import Masker

    cfg = compose(request)
    masker = Masker.of(cfg)
    shown = OmegaConf.create(masker.mask_tree(OmegaConf.to_container(cfg, resolve=False)))
    if resolve:
        try:
            OmegaConf.resolve(shown)
        except OmegaConfBaseException as error:
            why = masker.mask(str(error).strip().splitlines()[0])
            raise MLScaleError(
                "the config can't be resolved", where="command line: resolve=true", why=why, fix="resolve=false"
            ) from None
        # Masked once more: an interpolation may have brought a secret of the environment.
        shown = OmegaConf.create(masker.mask_tree(OmegaConf.to_container(shown)))
    shown = _only(shown, parts)
    if origin:
        return masker.mask(annotated(shown, origin_of(request.verb, list(request.overrides), request.roots)))
    return OmegaConf.to_yaml(shown)


def _only(cfg: DictConfig, parts: Sequence[str]) -> DictConfig:
    from omegaconf import OmegaConf

    if not parts:
        return cfg
    kept = OmegaConf.create({})
    for part in parts:
        found = OmegaConf.select(cfg, part)
        if found is None:
            best = nearest(part, map(str, cfg))
            raise MLScaleError(
                f"there is no '{part}' in this config",
                where="command line",
                fix=f"mlscale config show {best}" if best else "mlscale config show prints all of it",
            )
        # With its path, so that the output is a valid piece of a recipe.
        OmegaConf.update(kept, part, found)
    return kept


def _check(request: Request) -> int:
    from mlscale.assembly.ready import compose_checked
    from mlscale.assembly.sweep_check import check_every_job

    jobs = ""
    if request.multirun:
        # Every job: `mlscale train -m` itself stops checking at the first valid one.
        jobs = f" in {check_every_job(request)}"
    else:
        compose_checked(request)
    print(f"no problems found{jobs}; what depends on the data and the machine is checked when the run starts")
    return int(Exit.DONE)
