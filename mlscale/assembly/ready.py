"""From overrides to a config that is composed and checked: the start of every command that composes a config."""

from __future__ import annotations

import re
import sys
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mlscale.config.composition.argv import parse_command_line, replace_reference
from mlscale.config.composition.reference_argument import create_no_reference_error, restate_command
from mlscale.config.composition.request import Request
from mlscale.config.names.private_names import check_private_names
from mlscale.config.schema.model_arguments import REF, REFERENCES
from mlscale.config.schema.roots import COMMAND_BASES
from mlscale.errors import MLScaleError, raise_all
from mlscale.lightning_names import raise_if_imported_before

if TYPE_CHECKING:
    from omegaconf import DictConfig

_REQUIRED_KEYS = (
    "data",
    "task",
    "trainer",
    "seed",
    "metric",
    "derived",
)  # keys of a frozen config, the last ones among them
_WEIGHTS = (".ckpt", ".pt", ".pth", ".tar", ".safetensors", ".bin")
_SCHEDULED_COMMANDS = ("train", "drill", "verify-resume")
_COMMAND_KEYS = ("like", "resume", "trust", "debugger")  # settings of the command that made a run, not of the run


def compose_from_overrides(command: str, overrides: Sequence[str]) -> DictConfig:
    """Compose and check the config of a command.

    Raises:
        MLScaleError: all the problems of tier 1.
    """
    # First the reference, then the check: the frozen config of the run is the base that overrides apply to.
    request = resolve_base_config(parse_command_line(command, overrides))
    return compose_checked(request)


def compose_checked(request: Request) -> DictConfig:
    """Return the checked config of one command."""
    from mlscale.config.composition.compose import compose_config
    from mlscale.config.composition.fixes_in_force import drop_fixes_in_force

    cfg = None
    try:
        cfg = compose_config(request)
        _refuse_scheduler(cfg, request)
        return raise_if_invalid(cfg, request)
    except MLScaleError as error:
        if cfg is None:  # else its problems were read by find_problems
            drop_fixes_in_force(error.list_problems(), request, None)
        if run := request.values.get("resume"):
            from mlscale.runs.resume_plan import restate_fixes

            restate_fixes(error, run, request.values.get("runs_dir", "runs"))
        raise


def _refuse_scheduler(cfg: DictConfig, request: Request) -> None:
    """Raise an error where a scheduler was typed for a command that only runs here; a run's own config may name one.

    Raises:
        MLScaleError: it was.
    """
    typed = request.values.get("launch")
    if typed is None or request.command in _SCHEDULED_COMMANDS or not (cfg.get("launch") or {}).get("scheduler"):
        return
    raise MLScaleError(
        f"mlscale {request.command} is not submitted to a scheduler",
        where=f"command line: launch={typed}",
        why=f"{', '.join(_SCHEDULED_COMMANDS)} are; other commands run where they are started",
        fix=f"leave launch={typed} out, and start the command in a job: sbatch --wrap 'mlscale {request.command} …'",
    )


def find_problems(
    request: Request, cfg: DictConfig, left_over: dict[str, list[str]] | None = None
) -> list[MLScaleError]:
    """Return the problems of tier 1 of a composed config; `left_over` as for `check_config`."""
    from mlscale.config.checks.check import check_config
    from mlscale.config.composition.fixes_in_force import drop_fixes_in_force
    from mlscale.config.composition.origin import create_origin_lookup

    problems = check_config(
        cfg,
        groups=request.roots.get_command_groups(request.command),
        origin=create_origin_lookup(request.command, list(request.overrides), request.roots),
        command=request.command,
        command_files=request.roots.list_command_files(request.command),
        left_over=left_over,
    )
    drop_fixes_in_force(problems, request, cfg)
    return problems


def raise_if_invalid(cfg: DictConfig, request: Request) -> DictConfig:
    """Return `cfg` if tier 1 finds no problems; the typed overrides are noted in it for run.json."""
    from mlscale.config.checks.local_code import describe_local_code

    is_run = COMMAND_BASES[request.command] == "run"  # what builds a LightningModule
    if is_run:
        raise_if_imported_before()
    left_over: dict[str, list[str]] = {}
    if problems := find_problems(request, cfg, left_over):
        from mlscale.secrets.mask import Masker

        # Messages quote values and overrides, which may hold literal secrets.
        masker = Masker.create_for_run(cfg)
        raise_all([problem.mask_texts(masker.mask_text) for problem in problems])
    if is_run:  # which reads the libraries' sources
        options = [("strategy", "fsdp"), ("data", "dali")]
        used = {f"{group}={option}" for group, option in options if option in str(cfg.get(group)).lower()}
        check_private_names({request.command, *used})
    for path, keys in left_over.items():
        _leave_out(cfg, path, keys)
    for line in describe_local_code(cfg):
        _print_once(line)
    # As typed, for people and run.json: Hydra's form (`++`, quotes) is an implementation detail.
    cfg.derived.overrides = list(request.typed)
    return cfg


def fill_derived(cfg: DictConfig) -> DictConfig:
    """Return a copy of a checked config with the values that come from the data and the machine: classes, steps, ….

    Raises:
        MLScaleError: the data does not exist, is empty or corrupt, or does not fit the config.
    """
    from mlscale.assembly.run_data import RunData
    from mlscale.config.composition.frozen import add_derived
    from mlscale.config.derive import derive_values
    from mlscale.launch.local_devices import detect_local_devices

    return add_derived(cfg, derive_values(cfg, RunData().collect_facts(cfg), detect_local_devices()))


def _leave_out(cfg: DictConfig, path: str, keys: Sequence[str]) -> None:
    """Remove settings of an option from an object whose `_target_` was typed, where they are not meant for it."""
    from omegaconf import OmegaConf

    node = OmegaConf.select(cfg, path)
    for key in keys:
        del node[key]
    _print_once(f"{path}: left out, for {node['_target_']} has none or its own: {', '.join(keys)}")


def resolve_base_config(request: Request) -> Request:
    """Return the request on the frozen config of the run that it names; a name without a config is only resolved.

    Raises:
        MLScaleError: a required name is missing, not found, or ambiguous.
    """
    takes = REFERENCES.get(request.command)
    ref = request.values.get(REF)
    # `null` and the empty text are typed to leave an optional reference out.
    is_named = ref not in (None, "", "null")
    if takes is not None and not (is_named or takes.is_optional or request.flags):
        raise create_no_reference_error(request.command, _list_models_here(request, takes.examples), request.typed)
    if takes is not None and takes.brings_config and takes.needs_weights and ref is not None and is_named:
        return _use_model_config(request, ref)
    return _use_run_config(request)


def _list_models_here(request: Request, examples: Sequence[str]) -> list[str]:
    """Return a reference to a run and one to a version that are here, where the command's examples have such ones."""
    from mlscale.runs.find import LAST, list_runs
    from mlscale.versions.local_registry import LocalRegistry
    from mlscale.versions.version_reference import CHAMPION, LATEST

    registry = LocalRegistry(request.values.get("registry.root", "registry"))
    names = registry.list_model_names() if any("@" in example for example in examples) else []
    has_run = LAST in examples and bool(list_runs(request.values.get("runs_dir", "runs")))
    champions = [f"{name}@{CHAMPION}" for name in names if CHAMPION in registry.get_aliases(name).of]
    versions = champions or [f"{name}:{LATEST}" for name in names]
    return [*([LAST] if has_run else []), *versions[:1]]


def _use_run_config(request: Request) -> Request:
    """Return the request of a training on the frozen config of the run that it resumes, or is like; the same for a
    command that trains that config anew, such as `mlscale drill last`.
    """
    ref = _find_named_run(request)
    if ref is None:
        return request
    from mlscale.runs.find import find_run
    from mlscale.runs.initial_source import InitialWeights

    root = request.values.get("runs_dir", "runs")
    try:
        run = find_run(ref, Path(root))
    except MLScaleError as error:
        if request.command == "train":
            _suggest_near_run(error, "like" if request.values.get("like") == ref else "resume")
            _suggest_for_checkpoint(error, ref)
        elif ref in request.roots.groups.get("recipe", ()):
            error.fix = f"mlscale {request.command} recipe={ref}"
        else:
            from mlscale.runs.find import find_run_of_path

            _suggest_near_run(error, REF)
            # What is trained anew is a run: of a checkpoint's path, the one that it is in.
            error.fix = f"{REF}={folder}" if (folder := find_run_of_path(Path(ref))) else error.fix
            restate_command(error, request.command, request.typed)
        raise
    frozen = _read_saved_config(run.path)
    if request.values.get("resume") != ref:
        # A new run: where it lies and how it is shown are its own affair, and what 'last' meant was another run.
        frozen.update(runs_dir=root, output="table", log_format="text")
        if frozen.get("init_from") is not None and (initial := InitialWeights.parse_document(run.run.get("init"))):
            frozen.init_from = str(initial.checkpoint)
    return _use_trusted_config(frozen, run.path, request)


def _suggest_near_run(error: MLScaleError, key: str) -> None:
    """Give the error for a run that was not found the setting of `key` where its fix is the name of another run."""
    error.fix = f"{key}={m[1]}" if (m := re.fullmatch(r"(?:mlscale runs resume )?([\w.-]+)", error.fix)) else ""


def _suggest_for_checkpoint(error: MLScaleError, ref: str) -> None:
    """Give the error for a run that was not found the fix where a checkpoint was typed: its run, or its weights."""
    from mlscale.config.names.suggest import format_override
    from mlscale.runs.find import find_run_of_path

    path = Path(ref)
    if folder := find_run_of_path(path):
        error.fix, error.why = format_override("resume", folder), "a run is resumed by its id or folder, not by a file"
    elif path.suffix in _WEIGHTS or path.is_file():
        error.fix = format_override("init_from", ref)
        error.why = "the file is in no run folder of mlscale: a new run may start from its weights"


def _use_model_config(request: Request, ref: str) -> Request:
    """Return the request on the config of the model that it names, by a path that means the same model until it is
    loaded; a servable whose run is not here brings no config.
    """
    from mlscale.versions.local_registry import LocalRegistry
    from mlscale.versions.model_reference import resolve_reference
    from mlscale.versions.trained_model import require_run_checkpoint

    values = request.values
    root = values.get("runs_dir", "runs")
    registry = None if values.get("registry") == "none" else LocalRegistry(values.get("registry.root", "registry"))
    checkpoint = values.get("checkpoint")
    try:
        model = resolve_reference(ref, runs_dir=root, registry=registry, checkpoint=checkpoint, verify=True)
        if not REFERENCES[request.command].takes_servables:
            model = require_run_checkpoint(model, request.command, root)
    except MLScaleError as error:
        if REFERENCES[request.command].is_optional and ref in request.roots.groups.get("recipe", ()):
            error.fix = f"mlscale {request.command} recipe={ref}"
        else:
            restate_command(error, request.command, request.typed)
        raise
    if request.command == "evaluate":
        from mlscale.assembly.trained_model.servable_settings import add_servable_settings, choose_typed_split

        if model.home is None and model.servable is not None:
            request = add_servable_settings(request, model.servable)
        else:
            request = choose_typed_split(request)
    # An alias may move while the command runs; a path does not.
    request = replace_reference(request, str(model.path))
    return request if model.home is None else _use_trusted_config(_read_saved_config(model.home), model.home, request)


def _read_saved_config(folder: Path) -> DictConfig:
    """Return the config that a folder keeps, without settings of the command that made it.

    Raises:
        MLScaleError: it is corrupt: it can't be read, or was cut between two lines and lacks its end.
    """
    from mlscale.config.composition.frozen import CONFIG, create_corrupt_error, load_composed

    frozen = load_composed(folder)
    frozen.setdefault("log_format", "text")  # which earlier versions did not have
    # A file that was cut between two lines is valid YAML: only its missing keys reveal it.
    if lacking := [key for key in _REQUIRED_KEYS if key not in frozen]:
        raise create_corrupt_error(folder / CONFIG, f"it has no {', '.join(lacking)}")
    for key in _COMMAND_KEYS:
        frozen.pop(key, None)
    return frozen


def _use_trusted_config(frozen: DictConfig, folder: Path, request: Request) -> Request:
    """Return the request on that config, if it is trusted: this user has created it, or it builds known classes."""
    from omegaconf import OmegaConf

    from mlscale.config.checks.trust import find_distrusted
    from mlscale.config.composition.compose import use_frozen
    from mlscale.runs import ownership as own
    from mlscale.runs.edited import report_edits
    from mlscale.runs.folder import RunFolder
    from mlscale.runs.recover import is_run_folder

    takes = REFERENCES.get(request.command)
    is_training = request.command == "train" or (takes is not None and not takes.needs_weights)
    if not is_training:
        # How a training printed is not how another command does.
        frozen.update(output="table", log_format="text")
        _settle_metric(frozen, folder)
    if request.command != "train" and frozen.get("callbacks"):
        frozen.callbacks.pop("notify", None)  # only a training sends notices
    if request.values.get("trust") != "true" and (doubt := own.explain_unproven(folder)):
        config = OmegaConf.to_container(frozen, resolve=False)
        typed, derived = request.values, _read_derived_values(folder, required=not is_training)
        # derived.yaml is checked like config.yaml: interpolations in the config read its values.
        problems = [*find_distrusted(config, folder, typed, doubt=doubt)]
        raise_all([*problems, *find_distrusted(derived, folder, doubt=doubt)])
    if request.values.get("resume") in (None, "null", ""):
        if is_run_folder(folder):
            report_edits(RunFolder.open(folder))  # a run that is resumed is refused for that
        _settle_precision(frozen, folder)
    return use_frozen(frozen, request)


def _read_derived_values(folder: Path, *, required: bool) -> dict[str, Any]:
    """Return the derived values that a folder keeps; a run that trains derives them again, so it needs none."""
    from mlscale.runs.recover import DERIVED, read_yaml_values

    try:
        return read_yaml_values(folder / DERIVED)
    except MLScaleError:
        if required:
            raise
        return {}


def _settle_metric(frozen: DictConfig, folder: Path) -> None:
    """Let the metric that judged the run judge what is made from it, where the run's config leaves that open."""
    from mlscale.config.metric_choice import reuse_choice
    from mlscale.runs.recover import DERIVED, read_yaml_values

    frozen.update(reuse_choice(frozen, read_yaml_values(folder / DERIVED)))


def _settle_precision(frozen: DictConfig, folder: Path) -> None:
    """Name the precision that `precision=auto` of an earlier version found, which such a config interpolates."""
    if frozen.precision._get_node("value")._value() == "${derived.precision}":
        derived = _read_derived_values(folder, required=True)
        frozen.precision = {"value": derived.get("precision"), "memory_format": derived.get("memory_format")}


def _find_named_run(request: Request) -> str | None:
    """Return the run that a training names: to resume it, or to start another one like it; or that a command trains
    anew.

    Raises:
        MLScaleError: two are named.
    """
    takes, ref = REFERENCES.get(request.command), request.values.get(REF)
    if takes is not None and not takes.needs_weights:
        return ref if ref not in ("null", "") else None
    if request.command != "train":
        return None
    named = {key: request.values.get(key) for key in ("resume", "like")}
    # `resume=auto` names no run: it looks for one with the same config.
    named = {key: ref for key, ref in named.items() if ref not in (None, "null", "", *["auto"] * (key == "resume"))}
    if len(named) > 1:
        raise MLScaleError(
            "resume= continues a run unchanged, and like= starts a new one",
            where=f"command line: resume={named['resume']} like={named['like']}",
            fix=f"leave like={named['like']} out\nleave resume={named['resume']} out",
        )
    return next(iter(named.values()), None)


# Cached by its text: a sweep checks every job, and each would print the same line.
@cache
def _print_once(line: str) -> None:
    print(line, file=sys.stderr)
