"""Hydra's refusals as errors of mlscale. With several culprits all are reported: drop one, compose again."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Callable, Sequence

import yaml
from hydra.errors import ConfigCompositionException, HydraException, MissingConfigException
from omegaconf.errors import OmegaConfBaseException

from mlscale.config.checks.suggestions import Names, suggest_option
from mlscale.config.composition.option_files import find_selecting_file, find_selecting_option, format_config_path
from mlscale.config.composition.user_files import create_yaml_error
from mlscale.config.names.foreign_names import find_value_meaning, is_sentence
from mlscale.config.names.suggest import find_nearest
from mlscale.config.schema.documented_fields import get_shipped_fields
from mlscale.config.schema.key_owners import BUILDS_SEVERAL
from mlscale.config.schema.roots import COMMAND_BASES, COMMAND_GROUP, Roots
from mlscale.errors import MLScaleError

# Hydra's errors hold texts, not data: these patterns match the messages of Hydra 1.3.
_NOT_FOUND = re.compile(r"In '(?P<file>[^']*)': Could not (?:find|load) '(?P<group>.+)/(?P<option>[^/']*)'")
_AMBIGUOUS = re.compile(r"Ambiguous value for argument '(?P<key>[^=]*)=(?P<value>.*)'")
_OTHER_VALUE = re.compile(r"The value of '(?P<key>[^']*)' is (?P<value>.*) and not (?P<typed>.*)\.$")
_DELETE = re.compile(r"Could not delete (?:from config\.|.*?:)? ?'?(?P<key>[^'\s]+)'?")
_GROUP = re.compile(r"Could not override '(?P<key>[^']*)'")
_TWICE = re.compile(r"Multiple values for (?P<group>\S+?)\. To override a value use 'override \S+: (?P<option>.*)'")
_MORE_THAN_ONCE = re.compile(r"(?P<group>\S+) appears more than once in the final defaults list")
_IN = re.compile(r"In '(?P<group>.+)/(?P<option>[^/']+)': ")
_FORCED = re.compile(rf"force-add of config groups is not supported: '\+\+{COMMAND_GROUP}=(?P<value>[^']*)'")
_PLUGINS = ("optuna-sweeper", "ax-sweeper", "nevergrad-sweeper", "joblib-launcher", "submitit-launcher", "ray-launcher")


def collect_refusals(
    error: Exception,
    overrides: Sequence[str],
    roots: Roots,
    command: str,
    retry: Callable[[list[str]], None] | None,
) -> list[MLScaleError]:
    """Return every problem that keeps the config from composing; empty where `error` is not Hydra's.

    Args:
        retry: composes once more from fewer overrides; None to report the first problem only.
    """
    problems: list[MLScaleError] = []
    left = list(overrides)
    current: Exception | None = error
    fixed: list[str] = []
    # Hydra stops at its first error. Each pass removes one override of `left`, at the second try, so the loop ends.
    while current is not None:
        problem, culprit = _explain_error(current, left, roots, retry)
        if problem is None:
            # Not an error of Hydra: only the problems found so far are reported.
            return problems
        if culprit not in fixed:
            problems.append(problem)
        if culprit is None or culprit not in left or retry is None:
            break
        # With its fix where that is another option, so that one composition tries both.
        key, is_same = culprit.partition("=")[0], re.fullmatch(r"([\w/]+)=[\w-]+", problem.fix)
        fix = [f"{key}={problem.fix.partition('=')[2]}"] if is_same and is_same[1] == key.lstrip("+") else []
        fix = [] if culprit in fixed else fix
        fixed += fix
        left[left.index(culprit) : left.index(culprit) + 1] = fix
        try:
            retry(left)
            current = None
        except Exception as following:
            current = following
    return problems


def _explain_error(
    error: Exception, overrides: Sequence[str], roots: Roots, retry: Callable[[list[str]], None] | None
) -> tuple[MLScaleError | None, str | None]:
    text = str(error)
    if isinstance(error, MissingConfigException) and (match := _NOT_FOUND.search(text)):
        return _report_unknown_option(match["group"], match["option"], match["file"], overrides, roots)
    # A comma after `=` is a sweep in Hydra, which only a multirun allows.
    if match := _AMBIGUOUS.search(text):
        key, value = match["key"].lstrip("+"), match["value"]
        culprit = _find_override(overrides, key)
        together = f"\n{key}=[{value}], to have them together" if key in BUILDS_SEVERAL else ""
        fix = f"-m {key}={value}, which runs one job for each{together}"
        return MLScaleError(
            f"{key}={value} names several options", where=_describe_culprit(culprit, key), fix=fix
        ), culprit
    # Hydra raises a bare ValueError here, without the override: it is found by the form of its value.
    if "Config group override must be a string or a list" in text or isinstance(error, TypeError):
        culprit = next(
            (
                item
                for item in overrides
                if re.search(r"=(\[?(null|true|false|[+-]?[\d.]+(e[+-]?\d+)?)\b.*|\{.*)?$", item, re.IGNORECASE)
                and item.lstrip("+").partition("=")[0].partition("@")[0] in roots.groups
            ),
            None,
        )
        if culprit is None and isinstance(error, TypeError):
            return None, None
        key, _, value = (culprit or "?").lstrip("+").partition("=")
        return MLScaleError(
            f"'{key}={value}' does not name an option of the group '{key}'",
            where=_describe_culprit(culprit, key),
            why=f"options: {', '.join(roots.groups.get(key, ()))}",
            fix=suggest_option(key, value or None, Names((), roots.groups)),
        ), culprit
    if match := _OTHER_VALUE.search(text):
        culprit = f"~{match['key']}={match['typed']}"
        what = f"'{match['key']}' is {match['value']}, and only {match['typed']} would be removed"
        return MLScaleError(what, where=_describe_culprit(culprit, match["key"])), culprit
    if isinstance(error, ConfigCompositionException) and "delete" in text and (match := _DELETE.search(text)):
        return _report_absent_removal(match["key"], overrides, roots, retry)
    if match := _FORCED.search(text):  # a folder of settings, not a group to select from
        culprit = _find_override(overrides, COMMAND_GROUP)
        return MLScaleError(
            f"unknown key '{COMMAND_GROUP}'",
            where=_describe_culprit(culprit, COMMAND_GROUP),
            why="the command is the first word",
            fix=f"mlscale {match['value'] if match['value'] in COMMAND_BASES else 'train'}",
        ), culprit
    if match := _GROUP.search(text):
        # The text begins with the file where the defaults list of a file is wrong, not the command line.
        if (option_match := _IN.match(text)) and (close := find_nearest(match["key"], roots.groups)):
            file = roots.files.get(option_match["group"], {}).get(option_match["option"])
            fix = f"write '/{close}' in place of '{match['key']}'"
            where = f"{format_config_path(file) if file else option_match['option']}: defaults"
            return MLScaleError(f"unknown group '{match['key']}'", where=where, fix=fix), None
        culprit = _find_override(overrides, match["key"])
        return MLScaleError(
            f"'{match['key']}' can't be set this way",
            where=_describe_culprit(culprit, match["key"]),
            why=_get_first_line(text),
        ), culprit
    if match := _TWICE.search(text) or _MORE_THAN_ONCE.search(text):
        group = match["group"]
        selected_at, option = find_selecting_option(group, overrides, roots)
        option = match.groupdict().get("option") or option or "<option>"
        return MLScaleError(
            f"the group '{group}' is selected twice",
            where=selected_at or "the `defaults` of a config file",
            why="an option is selected already, by conf/base/run.yaml or a file before",
            fix=f"write `- override /{group}: {option}`",
        ), None
    if isinstance(error, yaml.YAMLError):
        return create_yaml_error(error), None
    if isinstance(error, (HydraException, OmegaConfBaseException)):
        return MLScaleError(
            "the config can't be composed",
            where="command line or config files",
            why=text.strip(),
        ), None
    return None, None


def _report_absent_removal(
    key: str, overrides: Sequence[str], roots: Roots, retry: Callable[[list[str]], None] | None
) -> tuple[MLScaleError, str | None]:
    culprit = next((item for item in overrides if item.startswith(f"~{key}")), None)
    entries = [f"{group}.{option}" for group in BUILDS_SEVERAL for option in roots.groups.get(group, ())]
    near = find_nearest(key, [*roots.groups, *entries, *_list_shipped_keys()])
    fix = f"leave {culprit or f'~{key}'} out"
    if near and retry is not None:
        # A near name may be absent, too: it is tried, for what is selected decides what there is to remove.
        with contextlib.suppress(Exception):
            retry([f"~{near}" if item == culprit else item for item in overrides])
            fix = f"~{near}"
    why = "mlscale config show prints what there is"
    return MLScaleError(f"no '{key}' to remove", where=_describe_culprit(culprit, key), why=why, fix=fix), culprit


def _list_shipped_keys() -> list[str]:
    return [field.path for option in get_shipped_fields().options for field in option.fields]


def _report_unknown_option(
    group: str, option: str, file: str, overrides: Sequence[str], roots: Roots
) -> tuple[MLScaleError, str | None]:
    if group not in roots.groups and (heads := [head for head in roots.groups if group.startswith(f"{head}/")]):
        # Of `optimizer=conf/optimizer/mine.yaml` Hydra reads the folders as parts of the group.
        group, option = max(heads, key=len), f"{group}/{option}".removeprefix(f"{max(heads, key=len)}/")
    culprit = next((item for item in overrides if _is_selecting(item, group, option)), None)
    what, where = f"unknown option '{option}' of the group '{group}'", _describe_culprit(culprit, group)
    if group.startswith("hydra/"):
        name = f"{option.partition('_')[0]}-{group.removeprefix('hydra/')}"
        fix = f"pip install hydra-{name}" if name in _PLUGINS else ""
        return MLScaleError(what, where=where, why="no plugin of Hydra gives it; each is a package", fix=fix), culprit
    # Not typed, so a defaults list selects it.
    selected_by = "" if culprit else find_selecting_file(group, option, overrides, roots)
    where = where if culprit else selected_by or f"{file}.yaml: defaults"
    spelled = group if group in roots.groups else (find_nearest(group, roots.groups) or group)
    options = roots.groups.get(spelled, ())
    why = f"options: {', '.join(options)}" if options else "no config folder has this group"
    meaning = find_value_meaning(spelled, option)
    name = re.sub(r"\.ya?ml$", "", option.rpartition("/")[2])
    if is_sentence(meaning):
        fix, why = "", f"not supported: {meaning}"
    elif name != option:
        expected = f"{'recipes' if spelled == 'recipe' else 'conf'}/{spelled}/{name}.yaml"
        fix, why = f"{spelled}={name}" if name in options else "", f"an option is a name: that of {expected}"
    else:
        fix = _suggest_option(spelled, option, culprit, roots)
    if selected_by and fix:
        near = find_nearest(option, options)
        fix = f"write '{near}' in place of '{option}'" if near else f"take '{option}' out, and type {fix}"
    return MLScaleError(what, where=where, why=why, fix=fix), culprit


def _suggest_option(group: str, option: str, culprit: str | None, roots: Roots) -> str:
    """Return the typed override with the option that is meant; of a list its other options stay."""
    # The separators are captured, so that a list keeps its form.
    words = re.split(r"([\[\],\s]+)", culprit.partition("=")[2]) if culprit else [option]
    if len(words) == 1:
        return suggest_option(group, option, Names((), roots.groups))
    best = find_nearest(option, [other for other in roots.groups.get(group, ()) if other not in words])
    return f"{group}={''.join(best if word == option else word for word in words)}" if best else ""


def _is_selecting(override: str, group: str, option: str) -> bool:
    key, _, value = override.lstrip("+").partition("=")
    return key.split("@")[0] == group and option in re.split(r"[\[\],\s]+", value)


def _find_override(overrides: Sequence[str], key: str) -> str | None:
    return next((item for item in overrides if item.lstrip("+~").split("=")[0] == key.lstrip("+")), None)


def _describe_culprit(culprit: str | None, key: str) -> str:
    return f"command line: {(culprit or key).lstrip('+')}"


def _get_first_line(text: str) -> str:
    return text.strip().splitlines()[0]
