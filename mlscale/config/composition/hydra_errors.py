"""Options that do not exist, all at once before Hydra stops at the first; what else it refuses is its own sentence."""

from __future__ import annotations

import re
import shlex
from collections.abc import Callable, Iterator, Sequence

import yaml
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import ChoiceSweep
from hydra.errors import HydraException, MissingConfigException
from omegaconf.errors import OmegaConfBaseException

from mlscale.config.checks.suggestions import Names, suggest_option
from mlscale.config.composition.hydra_keys import SEARCHED
from mlscale.config.composition.option_files import find_selecting_file, format_config_path
from mlscale.config.composition.request import Request
from mlscale.config.composition.user_files import create_yaml_error
from mlscale.config.names.foreign_names import find_value_meaning, is_sentence
from mlscale.config.names.suggest import find_nearest
from mlscale.config.schema.key_owners import BUILDS_ONE, BUILDS_SEVERAL
from mlscale.config.schema.roots import COMMAND_BASES, COMMAND_GROUP, Roots
from mlscale.errors import MLScaleError

# Hydra's errors hold texts, not data: these are of Hydra 1.3.
_NOT_FOUND = re.compile(r"In '(?P<file>[^']*)': Could not (?:find|load) '(?P<group>[^']+)/(?P<option>[^/']*)'")
_IN = re.compile(r"In '(?P<group>.+)/(?P<option>[^/']+)': ")
_NO_GROUP = re.compile(r"Could not override '([^']+)'. No match in the defaults list")
_TWICE = re.compile(r"Multiple values for (\S+)\.")
_ABSENT = re.compile(r"Could not delete from config. '([^']+)' does not exist")
_OTHER_VALUE = re.compile(r"Could not delete from config. The value of '([^']+)' is (.*) and not (.*)\.$")
_IN_LIST = re.compile(r"Index '(.+)' \(str\) is not an int")
_PLUGINS = "ax-sweeper nevergrad-sweeper optuna-sweeper"


def check_options(request: Request, exists: Callable[[str], bool]) -> Iterator[MLScaleError]:
    """Yield the problem of each override that does not select an option of its group.

    Args:
        exists: whether Hydra has a config of this path, also where it is in none of the folders.
    """
    for override in OverridesParser.create().parse_overrides(list(request.overrides)):
        key, typed = override.key_or_group, str(override.input_line).lstrip("+")
        where, value, options = f"command line: {typed}", typed.partition("=")[2], request.roots.groups.get(key, ())
        if key == COMMAND_GROUP:  # a folder of settings, not a group to select from
            fix = f"mlscale {value if value in COMMAND_BASES else 'train'}"
            yield MLScaleError(f"unknown key '{key}'", where=where, why="the command is the first word", fix=fix)
        if key.startswith("hydra/") and not exists(f"{key}/{value}"):
            yield _create_unknown_option_error(key, value, where, value, request.roots)
        if not options or override.is_delete():
            continue
        if override.is_sweep_override() and request.multirun:
            swept = list(override.sweep_string_iterator()) if isinstance(override.value(), ChoiceSweep) else []
            unknown = {
                name: _create_unknown_option_error(key, name, where, value, request.roots)
                for name in swept
                if not exists(f"{key}/{name}")
            }
            # An option for each; `optimizer._target_=torch.optim.Adam` is none.
            near = [unknown[name].fix.partition(f"{key}=")[2] if name in unknown else name for name in swept]
            for problem in unknown.values():
                problem.fix = f"-m {key}={','.join(near)}" if all(near) else ""
                yield problem
            continue
        if override.is_sweep_override():  # a comma after `=` is a sweep, which only a multirun allows
            fix = f"-m {shlex.quote(typed)}, which runs one job for each"
            fix += f"\n{key}=[{value}], to have them together" if key in BUILDS_SEVERAL and "(" not in value else ""
            yield MLScaleError(f"{typed} names several options", where=where, fix=fix)
            continue
        names = override.value()
        if isinstance(names, list) and len(names) > 1 and key in BUILDS_ONE | {"recipe"}:
            fix = f"-m {key}={','.join(map(str, names))}, which runs one job for each"
            yield MLScaleError(f"{typed} names several options", where=where, why="one is built", fix=fix)
        for name in names if isinstance(names, list) else [names]:
            if isinstance(name, str) and not exists(f"{key}/{name}"):
                yield _create_unknown_option_error(key, name, where, names, request.roots)
            elif not isinstance(name, str | dict):
                why, fix = f"options: {', '.join(options)}", suggest_option(key, name, Names((), request.roots.groups))
                what = f"'{typed}' does not name an option of the group '{key}'"
                yield MLScaleError(what, where=where, why=why, fix=fix)


def explain_refusal(error: Exception, overrides: Sequence[str], roots: Roots) -> MLScaleError | None:
    """Return the problem that keeps Hydra from composing the config; None where `error` is not Hydra's."""
    text = " ".join(str(error).split())
    if isinstance(error, MissingConfigException) and (match := _NOT_FOUND.search(text)):
        # Not typed, so a defaults list selects it.
        where = find_selecting_file(match[2], match[3], overrides, roots) or f"{match['file']}.yaml: defaults"
        return _create_unknown_option_error(match["group"], match["option"], where, None, roots)
    if isinstance(error, yaml.YAMLError):
        return create_yaml_error(error)
    in_list = f".{match[1]}" if (match := _IN_LIST.match(text)) else "="  # which no key has
    for word in (word.lstrip("+~") for word in overrides if in_list in word.partition("=")[0]):
        what, why = f"'{word.partition(in_list)[0]}' is a list, which has no '{in_list[1:]}'", "it is set as a whole"
        return MLScaleError(what, where=f"command line: {word}", why=why)
    if isinstance(error, (HydraException, OmegaConfBaseException)):
        if (file := _IN.match(text)) and (path := roots.files.get(file["group"], {}).get(file["option"])):
            where, text = f"{format_config_path(path)}: defaults", text.removeprefix(file[0])
            if other := _NO_GROUP.match(text):
                what = f"{file['group']}={file['option']} sets the group '{other[1]}', which this command does not have"
                return MLScaleError(what, where=where)
            return MLScaleError("the config can't be composed", where=where, why=text)
        if twice := _TWICE.match(text):
            words = (word.lstrip("+") for word in overrides)
            typed = [word for word in words if word.partition("=")[0] == twice[1]]
            where = f"command line: {' '.join(typed)}" if typed else "config files"
            what = f"{twice[1]} is chosen {len(typed) or 'several'} times"
            return MLScaleError(what, where=where, why="one is built", fix=f"leave {typed[0]} out" if typed else "")
        if absent := _ABSENT.match(text):
            what, word = f"no '{absent[1]}' to remove", f"~{absent[1]}"
            where = f"command line: {word}"
            return MLScaleError(what, where=where, why="it has no value", fix=f"leave {word} out")
        if other := _OTHER_VALUE.match(text):
            what, why = f"'{other[1]}' is {other[2]}, not {other[3]}", "~key=value removes a key that has this value"
            where = f"command line: ~{other[1]}={other[3]}"
            return MLScaleError(what, where=where, why=why, fix=f"~{other[1]}")
        if "INTERVAL_SWEEP" in text:
            text = f"{next(word for word in overrides if '=interval(' in word).lstrip('+')}: {SEARCHED}"
        same = [word for word in overrides if word.startswith("~") == text.startswith("Could not delete")]
        keys = {f"command line: {word.lstrip('+')}": word.lstrip("+~").partition("=")[0] for word in same}
        named = (where for where, key in keys.items() if re.search(rf"\b{re.escape(key)}\b", text))
        where = next(named, "command line or config files")
        # Hydra's advice is what was typed: a group of the base takes no sign.
        return MLScaleError("the config can't be composed", where=where, why=text.partition(" To append to")[0])
    return None


def _create_unknown_option_error(group: str, option: str, where: str, typed: object, roots: Roots) -> MLScaleError:
    """Return the error for an option that does not exist.

    Args:
        typed: what was selected on the command line; None for a file.
    """
    spelled = group if group in roots.groups else (find_nearest(group, roots.groups) or group)
    options = roots.groups.get(spelled, ())
    why = f"options: {', '.join(options)}" if options else "no config folder has this group"
    meaning, name = find_value_meaning(spelled, option), re.sub(r"\.ya?ml$", "", option.rpartition("/")[2])
    if group.startswith("hydra/"):  # a plugin is a package: hydra-optuna-sweeper
        plugin = f"{option.partition('_')[0]}-{group.partition('/')[2]}"
        why = "each is a package of its own, but for hydra's basic"
        fix = f"pip install hydra-{plugin}" if plugin in _PLUGINS.split() else ""
    elif is_sentence(meaning):
        fix, why = "", meaning
    elif name != option:
        expected = f"{'recipes' if spelled == 'recipe' else 'conf'}/{spelled}/{name}.yaml"
        fix, why = f"{spelled}={name}" if name in options else "", f"an option is a name: that of {expected}"
    elif isinstance(typed, list):  # its other options stay
        best = find_nearest(option, [other for other in options if other not in typed])
        # Those that Lightning's list would add to stay.
        typed = ["default", *typed] if group == "callbacks" and "default" not in typed else typed
        fix = f"{group}=[{','.join(best if item == option else str(item) for item in typed)}]" if best else ""
    else:
        fix = suggest_option(spelled, option, Names((), roots.groups))
    if typed is None and fix:
        near = find_nearest(option, options)
        fix = f"write '{near}' in place of '{option}'" if near else f"take '{option}' out, and type {fix}"
    return MLScaleError(f"unknown option '{option}' of the group '{group}'", where=where, why=why, fix=fix)
