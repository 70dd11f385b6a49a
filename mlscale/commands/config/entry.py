"""Print, explain and check a composed config."""

from __future__ import annotations

import re
import shlex
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from mlscale.commands import COMMANDS, find_command
from mlscale.commands.config import COMMAND
from mlscale.commands.options import Options, read_options
from mlscale.config.composition.argv import parse_command_line
from mlscale.config.composition.offered_fixes import offer_fixes
from mlscale.config.composition.request import Request
from mlscale.config.names.suggest import find_nearest
from mlscale.contracts.output_document import Answer, print_answer
from mlscale.errors import Exit, MLScaleError
from mlscale.secrets.config_secrets import mask_overrides

if TYPE_CHECKING:
    from omegaconf import DictConfig

    from mlscale.secrets.mask import Masker

_SEVERAL_VALUES = re.compile(r"(=[^\[{'\",]*),.*")  # of a sweep, with its first one


def main(argv: Sequence[str]) -> int:
    """Run `mlscale config …`; return the exit code."""
    options = read_options("config", COMMAND.actions, argv)
    command = _resolve_config_command(options.command)
    if options.action == "schema":
        from mlscale.config.json_schema import build_json_schema, dump_schema
        from mlscale.config.schema.roots import find_roots

        print(dump_schema(build_json_schema(find_roots(options.config_dir), command)))
        return int(Exit.DONE)
    # Passed on: the parser of configs reads the flag itself.
    folders = [word for folder in options.config_dir for word in ("--config-dir", folder)]
    words = [*options.overrides, *folders]
    with offer_fixes(words, command):
        request = parse_command_line(command, words)
        if options.action == "check":
            return print_answer(_check_request(request), options.output)
    if request.multirun:
        raise MLScaleError(
            "config show prints one config, and -m makes several",
            where="command line: -m",
            fix=f"{_suggest_one_job(options)}, one value of each: mlscale config check -m checks every job",
        )
    _refuse_misspelt_key(command, options.overrides, folders)
    shown = _compose_shown(request, options.part, resolve=options.resolve)
    document = {"command": command, **shown.build_document(origin=options.origin)}
    text = shown.format_yaml(origin=options.origin).removesuffix("\n")
    return print_answer(Answer("config-show", document, [text]), options.output)


def _suggest_one_job(options: Options) -> str:
    """Return the command line without `-m`, with the first of several values that a key has."""
    words = [_SEVERAL_VALUES.sub(r"\1", str(word)) for word in options.overrides if word not in ("-m", "--multirun")]
    return shlex.join(["mlscale", "config", options.action, *words])


def _resolve_config_command(command: str) -> str:
    """Return the command if it composes a config.

    Raises:
        MLScaleError: it does not, or it is not a command.
    """
    find_command(command)  # registers a third-party one
    working = [name for name, entry in COMMANDS.items() if entry.has_config]
    if command in working:
        return command
    raise MLScaleError(
        f"mlscale {command} has no config" if command in COMMANDS else f"unknown command '{command}'",
        where=f"command line: command={command}",
        why=f"commands with a config: {', '.join(working)}",
        fix=f"command={find_nearest(command, working) or 'train'}",
    )


def _refuse_misspelt_key(command: str, overrides: Sequence[str], folders: Sequence[str]) -> None:
    """Raise an error for `orign=true`: a config with unknown keys is shown, so the typo would go unnoticed."""
    from mlscale.config.composition.compose import compose_config

    own = [key.name for key in COMMAND.actions["show"].keys]
    for word in overrides:
        name, sign, text = word.partition("=")
        near = find_nearest(name, own) if sign else None
        if near is None:
            continue
        # A key of the config may have such a name, too: it is there without being typed.
        others = [other for other in overrides if other != word]
        if name not in compose_config(parse_command_line(command, [*others, *folders])):
            raise MLScaleError(
                f"unknown key '{name}'",
                where=f"command line: {word}",
                why=f"mlscale config show takes: {', '.join(own)}",
                fix=f"{near}={text}",
            )


@dataclass
class _ShownConfig:
    """A composed config that is shown: its secrets are masked."""

    cfg: DictConfig
    masker: Masker
    request: Request

    def format_yaml(self, *, origin: bool) -> str:
        """Return it as YAML; with `origin`, where each value is from, in comments."""
        from omegaconf import OmegaConf

        from mlscale.config.composition.origin import annotate_config

        if not origin:
            return OmegaConf.to_yaml(self.cfg)
        return self.masker.mask_text(annotate_config(self.cfg, self._create_lookup()))

    def build_document(self, *, origin: bool) -> dict[str, object]:
        """Return it for programs; with `origin`, where each value is from, by key path."""
        from omegaconf import OmegaConf

        from mlscale.config.composition.origin import list_origins

        origins = self.masker.mask_tree(list_origins(self.cfg, self._create_lookup())) if origin else None
        return {"config": OmegaConf.to_container(self.cfg), "origins": origins}

    def _create_lookup(self) -> Callable[[str], str]:
        from mlscale.config.composition.origin import create_origin_lookup

        return create_origin_lookup(self.request.command, list(self.request.overrides), self.request.roots)


def _compose_shown(request: Request, parts: Sequence[str], *, resolve: bool) -> _ShownConfig:
    """Return the config, secrets masked. A config with problems is shown, too: users read it to find them."""
    from omegaconf import OmegaConf
    from omegaconf.errors import OmegaConfBaseException

    from mlscale.config.composition.compose import compose_config
    from mlscale.secrets.mask import Masker

    cfg = compose_config(request)
    masker = Masker.create_for_run(cfg)
    shown = OmegaConf.create(masker.mask_tree(OmegaConf.to_container(cfg, resolve=False)))
    if resolve:
        try:
            OmegaConf.resolve(shown)
        except OmegaConfBaseException as error:
            why = masker.mask_text(str(error).strip().splitlines()[0])
            raise MLScaleError(
                "the config can't be resolved", where="command line: resolve=true", why=why, fix="resolve=false"
            ) from None
        # Masked once more: an interpolation may have brought a secret of the environment.
        shown = OmegaConf.create(masker.mask_tree(OmegaConf.to_container(shown)))
    return _ShownConfig(_select_parts(shown, parts), masker, request)


def _select_parts(cfg: DictConfig, parts: Sequence[str]) -> DictConfig:
    from omegaconf import OmegaConf

    if not parts:
        return cfg
    selected = OmegaConf.create({})
    for part in parts:
        value = OmegaConf.select(cfg, part)
        if value is None:
            best = find_nearest(part, map(str, cfg))
            raise MLScaleError(
                f"'{part}' not found in this config",
                where="command line",
                fix=f"mlscale config show {best}" if best else "mlscale config show, which prints all of it",
            )
        # With its path, so that the output is a valid piece of a recipe.
        OmegaConf.update(selected, part, value)
    return selected


def _check_request(request: Request) -> Answer:
    from mlscale.assembly.sweep_check import check_every_job, check_job

    jobs = ""
    if request.multirun:
        # Every job: `mlscale train -m` itself stops checking at the first valid one.
        jobs = f" in {check_every_job(request)}"
    else:
        check_job(request)
    # A config with problems ends with an error, which has a document of its own.
    document = {"command": request.command, "overrides": mask_overrides(request.typed)}
    text = f"no problems found{jobs}; what depends on the data and the machine is checked when the run starts"
    return Answer("config-check", document, [text])
