"""Problems of a group's node as a whole: a value instead of a node, or no `_target_` where one is needed."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence

from mlscale.config.names import not_yet
from mlscale.config.names.foreign_names import load_foreign_names
from mlscale.config.names.suggest import find_nearest, format_hydra_value, format_override
from mlscale.config.schema import key_owners as rules
from mlscale.config.schema.documented_fields import get_shipped_fields
from mlscale.config.schema.target_nodes import join_path
from mlscale.config.schema.values import convert_value
from mlscale.config.suggestions.config_names import Advice, Names
from mlscale.config.suggestions.templates import get_option_types
from mlscale.config.suggestions.value_forms import choose_server_address, name_nearest_metric, translate_metric
from mlscale.errors import MLScaleError

COMMAND_LINE = "command line: "
"""The start of the origin of a key that was typed and is not in a file."""


def create_not_a_node_error(
    name: str, value: object, groups: Mapping[str, Sequence[str]], where: Callable[[str], str]
) -> MLScaleError:
    """Return the error for a value instead of a node: `model: resnet` in a file does not choose the option."""
    options = groups.get(name, ())
    known = [
        option
        for item in (value if isinstance(value, list) else [value])
        if (option := find_nearest(str(item), options))
    ]
    choice = ",".join(known)
    choice = f"[{choice}]" if isinstance(value, list) else choice
    return MLScaleError(
        f"'{name}' is a group of settings, not the value {format_hydra_value(value)}",
        where=where(name),
        why="options are chosen on the command line, or in a file's defaults list",
        fix=f"write `- override /{name}: {choice or options[0]}` under `defaults:` of the file instead",
    )


def check_empty_node(
    name: str,
    node: Mapping[str, object],
    names: Names,
    where: Callable[[str], str],
    advised: Callable[[str, object], Advice | None],
) -> Iterator[MLScaleError]:
    """Yield a problem for each key in a node that builds nothing: `model=none model.blocks=2`, or no `_target_` in a
    file.

    Args:
        advised: what is meant by a key and its value.
    """
    for key, value in node.items():
        path = join_path(name, str(key))
        advice = Advice(f"{name}._target_=<package.module.Class>")
        # A key without an origin is reported by its path alone, which counts as typed.
        if where(path).startswith((COMMAND_LINE, path)):  # in a file of the user's the target is what is forgotten
            options = [
                item.name
                for item in get_shipped_fields().list_group_options(name)
                if any(field.path == path for field in item.fields) and names.facts.fits(name, item.name)
            ]
            option = key if key in options else next(iter(options), None)  # `augment.mixup` is of augment=mixup first
            fix = Advice(f"{name}={option} {format_override(path, value)}") if option else advised(path, value)
            advice = fix or advice
        what = f"'{path}' has no effect: '{name}' has no _target_, so it builds nothing"
        yield MLScaleError(what, where=where(path), why=advice.why, fix=advice.fix)


def find_chosen_option(group: str, node: object) -> str:
    """Return the option that a group which builds nothing names itself; "" for other groups."""
    if group not in rules.NAMES_ITS_OPTION or not isinstance(node, dict):
        return ""
    key, default = rules.NAMES_ITS_OPTION[group]
    return str(node.get(key) or default)


def check_chosen_option(group: str, node: Mapping[str, object], where: Callable[[str], str]) -> Iterator[MLScaleError]:
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
            # Slurm before the others: its keys are those that people know from elsewhere.
            option = "slurm" if "slurm" in others else others[0]
            yield MLScaleError(
                f"'{path}' has no effect with {group}={chosen}",
                where=where(path),
                why=f"it is a key of {', '.join(f'{group}={other}' for other in others)}",
                fix=f"{group}={option} {format_override(path, value)}",
            )


def check_entries(
    group: str,
    node: Mapping[str, object],
    groups: Mapping[str, Sequence[str]],
    where: Callable[[str], str],
    advised: Callable[[str, object], Advice | None],
    task: str,
) -> Iterator[MLScaleError]:
    """Yield a problem for each entry of callbacks, logger and compress that can't be built.

    Args:
        advised: what is meant by a key and its value.
        task: the built-in task, whose metrics are monitored.
    """
    options = [option for option in groups.get(group, ()) if option not in ("none", "default")]
    # The suggestion must repeat what is chosen already, for a typed list replaces the group's.
    present = ["default"] if "default" in groups.get(group, ()) else [key for key in node if key in options]
    for key, value in node.items():
        path = join_path(group, str(key))
        if isinstance(value, dict) and "_target_" in value:
            if (meant := _find_misspelt_entry(group, str(key), value)) and where(path).startswith((COMMAND_LINE, path)):
                settings = {name: item for name, item in value.items() if name not in rules.NODE_KEYS}
                known, _ = _match_settings(group, meant, settings, task)
                chosen = ",".join(dict.fromkeys([*present, meant]))
                words = [] if meant in node else [f"{group}=[{chosen}]"]
                yield MLScaleError(
                    f"'{path}' is a second {value['_target_']}",
                    where=where(path),
                    why=f"the option {group}={meant} builds this class; an entry with another name is another object",
                    fix=" ".join([*words, *known]) or f"leave {path} out",
                )
            continue
        if not value:
            continue
        if feature := not_yet.find_feature_of_option(group, str(key)):
            yield feature.create_error(path, where(path))
            continue
        # `callbacks.checkpoint.keep=3` without the option: the entry has settings, but nothing builds it.
        option = find_nearest(str(key), options) or load_foreign_names().find_entry_option(group, str(key))
        if option is None:
            advice = advised(path, value) if load_foreign_names().find_alias(path) else None
            why = advice.why if advice else f"every entry of '{group}' is an object to build"
            fix = advice.fix if advice else f"{path}._target_=<package.module.Class>"
            yield MLScaleError(f"'{path}' has no _target_", where=where(path), why=why, fix=fix)
            continue
        known, unknown = _match_settings(group, option, value, task)
        for name in unknown:
            item = value.get(name) if isinstance(value, dict) else None
            advice = advised(f"{path}.{name}", item) if load_foreign_names().find_alias(f"{key}.{name}") else None
            if advice is not None and f"{group}.{option}." in advice.fix:
                yield MLScaleError(
                    f"unknown key '{path}.{name}'", where=where(f"{path}.{name}"), why=advice.why, fix=advice.fix
                )
                continue
            takes = ", ".join(item.rpartition(".")[2] for item in get_option_types(group, option))
            yield MLScaleError(
                f"unknown key '{path}.{name}'",
                where=where(f"{path}.{name}"),
                why=f"not supported: the option {group}={option} takes {takes}",
                fix=f"leave {path}.{name} out",
            )
        if known or not unknown:
            chosen = ",".join(dict.fromkeys([*(item for item in present if item != option), option]))
            # Chosen already under its right name: only the settings have to be typed.
            words = [] if option in node and option != key else [f"{group}=[{chosen}]"]
            yield MLScaleError(
                f"'{path}' has no _target_",
                where=where(path),
                why=f"every entry of '{group}' is an object to build",
                fix=" ".join([*words, *known]) or f"leave {path} out",
            )


def _find_misspelt_entry(group: str, name: str, node: Mapping[str, object]) -> str | None:
    """Return the option that an entry with a class is a misspelt name of: a near name, and the same class."""
    options = {item.name: item.target for item in get_shipped_fields().list_group_options(group) if item.target}
    near = None if name in options else find_nearest(name, options)
    # An entry of its own may well be called `early`; one without settings lacks its arguments, which is reported.
    if near is None or near.startswith(name) or len(node) == 1:
        return None
    target = str(node.get("_target_")).replace("lightning.pytorch.", "pytorch_lightning.", 1)
    return near if options[near] == target else None


def _match_settings(group: str, option: str, value: object, task: str) -> tuple[list[str], list[str]]:
    """Return the typed settings of the option that was meant, with misspelt keys corrected; and the keys that it does
    not have.
    """
    path = f"{group}.{option}"
    types = get_option_types(group, option)
    names = [key.removeprefix(f"{path}.") for key in types]
    known, unknown = [], []
    for key, item in value.items() if isinstance(value, dict) else ():
        name = str(key) if str(key) in names else find_nearest(str(key), names)
        if name is None:
            unknown.append(str(key))
            continue
        # What is monitored has the name that the task logs, not that of another program.
        if name == "monitor":
            item = name_nearest_metric(item, task) or translate_metric(item, task) or item
        if name == "tracking_uri":
            item = choose_server_address(item)
        fits, form = convert_value(item, types[join_path(path, name)])
        known.append(
            format_override(join_path(path, name), form)
            if fits
            else f"{join_path(path, name)}=<{types[join_path(path, name)][-1].text}>"
        )
    return known, unknown


def check_lightning_scheduler(node: Mapping[str, object], where: Callable[[str], str]) -> Iterator[MLScaleError]:
    """Yield a problem for each unknown key of Lightning's lr_scheduler dictionary: `scheduler: {scheduler: …, interval:
    epoch}`.
    """
    for key, value in node.items():
        if key not in rules.SCHEDULER_KEYS:
            path, close = join_path("scheduler", key), find_nearest(key, rules.SCHEDULER_KEYS)
            yield MLScaleError(
                f"unknown key '{path}'",
                where=where(path),
                why=f"Lightning's lr_scheduler takes {', '.join(sorted(rules.SCHEDULER_KEYS))}",
                fix=format_override(join_path("scheduler", close), value) if close else f"leave {path} out",
            )
