"""The message for a key that the config does not take: it is unknown, or another key owns its setting."""

from __future__ import annotations

from collections.abc import Iterator

from mlscale.config.checks import moved_nodes
from mlscale.config.checks.checked_config import CheckedConfig
from mlscale.config.checks.missing_arguments import suggest_missing_arguments
from mlscale.config.names import not_yet
from mlscale.config.names.foreign_names import Alias, load_foreign_names
from mlscale.config.names.suggest import format_override
from mlscale.config.schema import key_owners as rules
from mlscale.config.schema.roots import COMMAND_BASES
from mlscale.config.schema.target_nodes import join_path
from mlscale.config.suggestions.alias_meanings import render_alias, takes
from mlscale.config.suggestions.config_names import Advice
from mlscale.config.suggestions.near_keys import advise_value, is_documented
from mlscale.config.suggestions.near_nodes import correct_first_part
from mlscale.config.suggestions.unknown_keys import suggest_key
from mlscale.errors import MLScaleError

_FEW = 12  # names that a message can hold


def check_unknown_key(config: CheckedConfig, path: str, value: object, why: str = "") -> Iterator[MLScaleError]:
    """Yield the problem of a key that nothing takes; of a dictionary, one for each of its leaves."""
    # By its leaves: each of them may be a misspelt key of its own.
    alias = load_foreign_names().find_alias(path)
    if isinstance(value, dict) and value and _holds_keys(config, path, alias, value):
        for key, item in value.items():
            yield from check_unknown_key(config, join_path(path, str(key)), item, why)
        return
    what = f"unknown key '{path}'"
    # `batch=32` of a training run is what it is elsewhere, though `mlscale loadtest` has a key of this name.
    brought = config.command == "train" and alias is not None and not alias.unsupported
    # `warmup=1` of a load test is its warmup_s, though `mlscale export` has a key of this name.
    own = config.fields.get_own_fields(config.command) if config.command in COMMAND_BASES else {}
    # `seconds=3` of a profile is its profile.seconds, though `mlscale loadtest` has a key of this name.
    has_own = f"{path}_s" in own or any(name.endswith(f".{path}") for name in own)
    # A key of another command is valid, only in the wrong place: a near name would be a wrong suggestion.
    owners = [] if brought or has_own else _find_other_owners(config, path)
    if owners:
        shown = [*owners[1:3], *(["…"] if owners[3:] else [])]
        others = f", and of {', '.join(shown)}" if shown else ""
        yield MLScaleError(
            what,
            where=config.describe_origin(path),
            why=f"it is a key of `mlscale {owners[0]}`{others}",
        )
        return
    free = alias is not None and takes(alias, value, config.names)  # `run_name=yolo` is a name
    if feature := not_yet.find_feature_of_key(path) or (
        None if free else not_yet.of_value(value, alias.group if alias is not None else "")
    ):
        yield feature.create_error(format_override(path, value), config.describe_origin(path))
        return
    advice = _suggest_moved(config, path, value) or suggest_key(path, value, config.names)
    fix = advice.fix if advice else ""
    if config.is_in_file(path):
        fix = _suggest_in_file(path, fix)
    why = (advice.why if advice else "") or why
    if not fix and config.command != "train" and is_documented(path):
        # No key of another name is meant: `mlscale serve last trainer.devices=2`.
        why, fix = f"it is a key of a training run, and not of `mlscale {config.command}`", f"leave {path} out"
    yield MLScaleError(what, where=config.describe_origin(path), why=why, fix=fix or _list_sibling_keys(config, path))


def _find_other_owners(config: CheckedConfig, path: str) -> list[str]:
    """Return the other commands that have a key of this name."""
    return [
        command
        for command in COMMAND_BASES
        if command != config.command and path in config.fields.get_own_fields(command)
    ]


def create_owned_key_error(config: CheckedConfig, path: str, value: object) -> MLScaleError:
    """Return the message for a key that another key or group owns."""
    owner = rules.OWNED[path]
    if feature := not_yet.of_value(value, owner.alias.group):
        return feature.create_error(format_override(path, value), config.describe_origin(path))
    fix = _suggest_for_owned(config, owner.alias, path, value) or f"leave {path} out"
    if config.is_in_file(path):
        fix = _suggest_in_file(path, fix)
    return MLScaleError(f"'{path}' is not set here", where=config.describe_origin(path), why=owner.why, fix=fix)


def suggest_override(config: CheckedConfig, path: str, value: object, *, exists: bool = False) -> str:
    """Return the override to type instead of a key; "" if none is near.

    Args:
        exists: the key may be one of this config: then it is the override.
    """
    if exists and path in config.names.paths:
        return advise_value(path, value, config.names).fix
    advice = suggest_key(path, value, config.names)
    return advice.fix if advice else ""


def _holds_keys(config: CheckedConfig, path: str, alias: Alias | None, value: dict[str, object]) -> bool:
    """Return whether each key of an unknown dictionary is reported by itself: it is not the value of a key."""
    if corrected := correct_first_part(path, config.names):
        # `optimzer={_target_: …, lr: 1}` is the group, misspelt: each of its keys has one that is meant.
        moved = "_target_" in value and alias is not None and alias.group == corrected
        return corrected not in config.names.paths and not moved
    return "_target_" not in value and not _is_value(config, alias, value)


def _is_value(config: CheckedConfig, alias: Alias | None, value: dict[str, object]) -> bool:
    """Return whether a dictionary is the value of a foreign name, not settings below it: `max_time={hours:1}`."""
    if alias is None:
        return False
    return not all(isinstance(key, str) for key in value) or takes(alias, value, config.names)


def _suggest_moved(config: CheckedConfig, path: str, value: object) -> Advice | None:
    """Return the fix for an object that was typed where another group owns it: `model.optimizer._target_=…`."""
    last, alias = path.rpartition(".")[2], load_foreign_names().find_alias(path)
    group = last if last in config.groups else alias.group if alias is not None else ""
    fix = _suggest_moved_node(config, group, value)
    return Advice(fix, f"the group '{group}' owns it") if fix else None


def _suggest_moved_node(config: CheckedConfig, group: str, value: object) -> str:
    task = config.tree.get("task")
    target = task.get("_target_") if isinstance(task, dict) else None
    return moved_nodes.suggest_moved_node(
        group,
        value,
        config.groups,
        config.fields,
        suggest_missing_arguments,
        has_own_task=target is not None and not str(target).startswith("mlscale."),
    )


def _suggest_for_owned(config: CheckedConfig, alias: Alias, path: str, value: object) -> str:
    if fix := _suggest_moved_node(config, alias.group, value):
        return fix
    if alias.group and isinstance(value, dict) and "_target_" not in value:  # settings of an object, and not which one
        settings = [
            suggest_override(config, join_path(alias.group, str(key)), item, exists=True) for key, item in value.items()
        ]
        return " ".join(settings) if all(settings) else ""
    advice = render_alias(alias, path, value, config.names)
    return advice.fix if advice else ""


def _list_sibling_keys(config: CheckedConfig, path: str) -> str:
    """Return the sibling keys as a fix where no name is near, or the command that prints them all."""
    head = path.rpartition(".")[0]
    siblings = [item for item in config.names.paths if head and item.rpartition(".")[0] == head]
    few = 0 < len(siblings) <= _FEW
    if few:
        names = "|".join(item.rpartition(".")[2] for item in siblings)
        return f"{head}.<{names}>=<value>" if len(siblings) > 1 else f"{siblings[0]}=<value>"
    # Those of a run are not the keys of `mlscale loadtest`.
    command = "" if config.command == "train" else f" command={config.command}"
    return f"mlscale config show{command}, which prints every key there is"


def _suggest_in_file(path: str, fix: str) -> str:
    """Return the fix for a key in a file: an override alone would leave the key there."""
    head, _, last = path.rpartition(".")
    key = fix.partition("=")[0]
    if fix.startswith("leave "):
        return fix
    if fix.count("=") == 1 and "." in key and key.rpartition(".")[0] == head:
        return f"write '{key.rpartition('.')[2]}' in place of '{last}'"
    return f"{fix}, and take '{path}' out of the file" if fix else f"take '{path}' out of the file"
