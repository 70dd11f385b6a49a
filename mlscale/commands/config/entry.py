"""Print, explain and check a composed config."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from mlscale.commands import COMMANDS
from mlscale.commands.options import Options
from mlscale.config.composition.argv import Request, parse
from mlscale.config.suggestions.suggest import nearest
from mlscale.errors import Exit, MLScaleError

if TYPE_CHECKING:
    from omegaconf import DictConfig

_EXAMPLES = """
mlscale config show +recipe=resnet                 the composed config, as a run would freeze it
mlscale config show +recipe=resnet --origin        which file or override set each key
mlscale config show +recipe=resnet optimizer       one part of it
mlscale config check +recipe=resnet lr=0.1         all problems at once; exit code 2 if there are any
mlscale config check -m optimizer.lr=0.1,0.01      the same for every job of a sweep
mlscale config schema > mlscale.schema.json        for editors: complete and check YAML while you type
"""


def main(argv: Sequence[str]) -> int:
    """`mlscale config …`; returns the exit code."""
    args, words = _parser().parse_known_args(argv)
    if args.command == "schema":
        from mlscale.config.composition.roots import find_roots
        from mlscale.config.json_schema import dump, json_schema

        print(dump(json_schema(find_roots(args.config_dir), args.verb)))
        return int(Exit.DONE)
    # Only `show` takes parts of the config; elsewhere a word without '=' is a mistake, which `parse` reports.
    parts = [word for word in words if "=" not in word and not word.startswith(("-", "~"))]
    parts = parts if args.command == "show" else []
    words = [word for word in words if word not in parts]
    request = parse(args.verb, [*words, *(flag for folder in args.config_dir for flag in ("--config-dir", folder))])
    if args.command == "check":
        return _check(request)
    if request.multirun:
        raise MLScaleError(
            "config show prints one config, and -m makes several",
            where="command line: -m",
            fix="leave -m out and type one value of each; mlscale config check -m checks every job",
        )
    print(_show(request, parts, origin=args.origin, resolve=args.resolve), end="")
    return int(Exit.DONE)


def _parser() -> Options:
    common = Options(add_help=False)
    common.add_argument(
        "--config-dir", "-cd", action="append", default=[], help="a folder of your own groups and recipes"
    )
    working = [name for name, verb in COMMANDS.items() if verb.working]
    common.add_argument("--verb", choices=working, default="train", help="the verb whose config is meant (train)")
    parser = Options(
        prog="mlscale config", description="Print, explain and check a composed config.", examples=_EXAMPLES
    )
    commands = parser.add_subparsers(dest="command", required=True, metavar="show|check|schema")
    show, _, _ = (
        commands.add_parser(name, parents=[common], help=text, usage=usage, examples=_examples(name))
        for name, text, usage in (
            ("show", "the composed config", f"{_usage('show')} [PART …]"),
            ("check", "every problem of a config, at once", _usage("check")),
            ("schema", "a JSON schema of the config, for editors", None),
        )
    )
    show.add_argument("--origin", action="store_true", help="with the file or override that set each key")
    show.add_argument("--resolve", action="store_true", help="with interpolations resolved, where they can be by now")
    return parser


def _examples(command: str) -> str:
    return "\n".join(line for line in _EXAMPLES.splitlines() if line.startswith(f"mlscale config {command} "))


def _usage(command: str) -> str:
    return f"mlscale config {command} [recipe=NAME] [group=option …] [key=value …] [options]"


def _show(request: Request, parts: Sequence[str], *, origin: bool, resolve: bool) -> str:
    """The config as YAML, secrets masked; a config with problems is shown, too: one looks at it to find them."""
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
                "the config can't be resolved", where="--resolve", why=why, fix="leave --resolve out"
            ) from None
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
        OmegaConf.update(kept, part, found)
    return kept


def _check(request: Request) -> int:
    from mlscale.assembly.ready import compose_checked
    from mlscale.assembly.sweep_check import check_every_job

    jobs = ""
    if request.multirun:
        jobs = f" in {check_every_job(request)}"
    else:
        compose_checked(request)
    print(f"no problems found{jobs}; what depends on the data and the machine is checked when the run starts")
    return int(Exit.DONE)
