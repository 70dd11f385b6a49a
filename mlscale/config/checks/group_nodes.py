"""Problems of a group's node as a whole: a value instead of a node, or no `_target_` where one is needed."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from mlscale.config.checks.checked_config import COMMAND_LINE, CheckedConfig, find_chosen_option
from mlscale.config.checks.refused_keys import check_unknown_key
from mlscale.config.checks.suggestions import format_entries, get_option_types, suggest_key
from mlscale.config.names.foreign_names import find_meanings
from mlscale.config.names.suggest import find_nearest, format_hydra_value, format_override
from mlscale.config.schema import key_owners as rules
from mlscale.config.schema.documented_fields import get_shipped_fields
from mlscale.config.schema.target_nodes import join_path
from mlscale.config.schema.values import convert_value
from mlscale.errors import MLScaleError


def create_not_a_node_error(config: CheckedConfig, name: str, value: object) -> MLScaleError:
    """Return the error for a value instead of a node: `model: resnet` in a file does not choose the option."""
    options = config.groups.get(name, ())
    items = value if isinstance(value, list) else [value]
    known = ",".join(option for item in items if (option := find_nearest(str(item), options)))
    choice = f"[{known}]" if isinstance(value, list) else known
    return MLScaleError(
        f"'{name}' is a group of settings, not the value {format_hydra_value(value)}",
        where=config.describe_origin(name),
        why="options are chosen on the command line, or in a file's defaults list",
        fix=f"write `- override /{name}: {choice or options[0]}` under `defaults:` of the file instead",
    )


def check_empty_node(config: CheckedConfig, name: str, node: Mapping[str, object]) -> Iterator[MLScaleError]:
    """Yield a problem for each key in a node that builds nothing: `model=none model.blocks=2`, or no `_target_` in a
    file.
    """
    for key, value in node.items():
        path = join_path(name, str(key))
        where, why, fix = config.describe_origin(path), "", f"{name}._target_=<package.module.Class>"
        # A key without an origin is reported by its path alone, which counts as typed.
        if where.startswith((COMMAND_LINE, path)):  # in a file of the user's the target is what is forgotten
            options = [
                item.name
                for item in get_shipped_fields().list_group_options(name)
                if any(field.path == path for field in item.fields)
            ]
            option = key if key in options else options[0] if len(options) == 1 else ""  # augment=mixup has its `mixup`
            if option:
                fix = f"{name}={option} {format_override(path, value)}"
            elif advice := suggest_key(path, value, config.names):
                fix, why = advice.fix, advice.why
        what = f"'{path}' has no effect: '{name}' has no _target_, so it builds nothing"
        yield MLScaleError(what, where=where, why=why, fix=fix)


def check_chosen_option(config: CheckedConfig, group: str, node: Mapping[str, object]) -> Iterator[MLScaleError]:
    """Yield a problem for each key that only another option of the group has: `launch.nodes=2` without launch=slurm."""
    if group not in rules.NAMES_ITS_OPTION:
        return
    chosen = find_chosen_option(group, node)
    fields = {
        item.name: {field.path for field in item.fields} for item in get_shipped_fields().list_group_options(group)
    }
    for name, value in node.items():
        path = join_path(group, str(name))
        others = [option for option, paths in fields.items() if path in paths]
        if others and chosen in fields and chosen not in others:
            yield MLScaleError(
                f"'{path}' has no effect with {group}={chosen}",
                where=config.describe_origin(path),
                why=f"it is a key of {', '.join(f'{group}={other}' for other in others)}",
                fix=f"{group}={others[0]} {format_override(path, value)}" if len(others) == 1 else "",
            )


def check_entries(config: CheckedConfig, group: str, node: Mapping[str, object]) -> Iterator[MLScaleError]:
    """Yield a problem for each entry of callbacks, logger and compress that can't be built."""
    options = [option for option in config.groups.get(group, ()) if option not in ("none", "default")]
    for key, value in node.items():
        path, what, why = join_path(group, str(key)), "", f"every entry of '{group}' is an object to build"
        settings = value if isinstance(value, dict) else {}
        if "_target_" in settings:
            meant = _find_misspelt_entry(group, str(key), settings)
            if meant and config.describe_origin(path).startswith((COMMAND_LINE, path)):
                what = f"'{path}' is a second {settings['_target_']}"
                why = f"the option {group}={meant} builds this class; an entry with another name is another object"
        elif value:
            # `callbacks.checkpoint.keep=3` without the option: the entry has settings, but nothing builds it.
            meanings = [meaning.removeprefix(f"{group}.") for meaning in find_meanings(path)]
            meant = next((name for name in (*meanings, find_nearest(str(key), options)) if name in options), None)
            what = f"'{path}' has no _target_"
        if what and meant:
            types, words = get_option_types(group, meant), list[str]()
            own = {name: item for name, item in settings.items() if name not in rules.NODE_KEYS}
            for name, item in own.items():
                if taken := find_nearest(f"{group}.{meant}.{name}", types):
                    words.append(format_override(taken, convert_value(item, types[taken], taken)[1]))
                else:
                    takes = ", ".join(key.rpartition(".")[2] for key in types)
                    yield MLScaleError(
                        f"unknown key '{path}.{name}'",
                        where=config.describe_origin(f"{path}.{name}"),
                        why=f"not supported: the option {group}={meant} takes {takes}",
                        fix=f"leave {path}.{name} out",
                    )
            if words or not own:
                chosen = [] if meant in node and meant != key else [format_entries(group, meant, config.names)]
                fix = " ".join([*chosen, *words]) or f"leave {path} out"
                yield MLScaleError(what, where=config.describe_origin(path), why=why, fix=fix)
        elif what and not settings:  # `callbacks.patience=5` is a setting of no entry
            yield from check_unknown_key(config, path, value, why)
        elif what and "_target_" not in settings:
            fix = f"{path}._target_=<package.module.Class>"
            yield MLScaleError(what, where=config.describe_origin(path), why=why, fix=fix)


def _find_misspelt_entry(group: str, name: str, node: Mapping[str, object]) -> str | None:
    """Return the option that an entry with a class is a misspelt name of: a near name, and the same class."""
    options = {item.name: item.target for item in get_shipped_fields().list_group_options(group) if item.target}
    near = None if name in options else find_nearest(name, options)
    # An entry of its own may well be called `early`; one without settings lacks its arguments, which is reported.
    if near is None or near.startswith(name) or len(node) == 1:
        return None
    target = str(node.get("_target_")).replace("lightning.pytorch.", "pytorch_lightning.", 1)
    return near if options[near] == target else None


def check_lightning_scheduler(config: CheckedConfig, node: Mapping[str, object]) -> Iterator[MLScaleError]:
    """Yield a problem for each unknown key of Lightning's lr_scheduler dictionary: `scheduler: {scheduler: …, interval:
    epoch}`.
    """
    for key, value in node.items():
        if key not in rules.SCHEDULER_KEYS:
            path, close = join_path("scheduler", key), find_nearest(key, rules.SCHEDULER_KEYS)
            yield MLScaleError(
                f"unknown key '{path}'",
                where=config.describe_origin(path),
                why=f"Lightning's lr_scheduler takes {', '.join(sorted(rules.SCHEDULER_KEYS))}",
                fix=format_override(join_path("scheduler", close), value) if close else f"leave {path} out",
            )
