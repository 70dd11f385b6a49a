"""The message for a key that the config does not take: it is unknown, or another key owns its setting."""

from __future__ import annotations

from collections.abc import Iterator

from mlscale.config.checks.checked_config import STORED_CONFIG, CheckedConfig
from mlscale.config.checks.suggestions import Advice, advise_meaning, correct_front, suggest_key
from mlscale.config.names.foreign_names import find_meanings, find_value_meaning
from mlscale.config.names.suggest import format_override
from mlscale.config.schema import key_owners as rules
from mlscale.config.schema.roots import COMMAND_BASES
from mlscale.config.schema.target_nodes import join_path
from mlscale.errors import MLScaleError

_FEW = 12  # names that a message can hold


def check_unknown_key(config: CheckedConfig, path: str, value: object, why: str = "") -> Iterator[MLScaleError]:
    """Yield the problem of a key that nothing takes; of a dictionary, one for each of its leaves."""
    if path in rules.FORMER and config.describe_origin(path).startswith(STORED_CONFIG):
        return
    advice = _suggest_moved_node(config, path, value) or suggest_key(path, value, config.names)
    has_keys = isinstance(value, dict) and bool(value) and not (advice and advice.fix)
    is_misspelt_group = correct_front(path, config.names) not in ("", path)
    if isinstance(value, dict) and has_keys and ("_target_" not in value or is_misspelt_group):
        # By its leaves: each of them may be a misspelt key of its own.
        for key, item in value.items():
            yield from check_unknown_key(config, join_path(path, str(key)), item, why)
        return
    # A key of another command is valid, only in the wrong place: a near name would be a wrong suggestion.
    if owners := _find_other_owners(config, path):
        others = f", and of {', '.join(owners[1:])}" if owners[1:] else ""
        advice = Advice("", f"it is a key of `mlscale {owners[0]}`{others}")
        if owners == ["train"]:
            advice = Advice(f"leave {path} out", "it is a key of a training run")
    fix = advice.fix if advice else ""
    why = (advice.why if advice else "") or "; ".join(filter(None, (why, "" if fix else _list_siblings(config, path))))
    if config.is_in_file(path):
        fix = _suggest_in_file(path, fix)
    yield MLScaleError(f"unknown key '{path}'", where=config.describe_origin(path), why=why, fix=fix)


def _find_other_owners(config: CheckedConfig, path: str) -> list[str]:
    """Return the other commands that have a key of this name, where it means nothing here: `batch=32` of a training run
    is what it is elsewhere, `seconds=3` of a profile its profile.seconds.
    """
    fields = config.fields
    own = fields.get_own_fields(config.command) if config.command in COMMAND_BASES else {}
    if find_meanings(path) or any(name == f"{path}_s" or name.endswith(f".{path}") for name in own):
        return []
    owners = [name for name in COMMAND_BASES if name != config.command and path in fields.get_own_fields(name)]
    is_documented = config.command != "train" and any(
        field.path == path for option in fields.options for field in option.fields
    )
    return owners or ["train"] if owners or is_documented else []


def create_owned_key_error(config: CheckedConfig, path: str, value: object) -> MLScaleError:
    """Return the message for a key that another key or group owns."""
    owner = rules.OWNED[path]
    meant = find_value_meaning(path, value)
    advice = _suggest_moved_node(config, path, value)
    if advice is None and (meaning := meant or owner.meaning):
        advice = advise_meaning(meaning, path, value, config.names, whole=bool(meant))
    fix = advice.fix if advice else f"leave {path} out"
    if config.is_in_file(path):
        fix = _suggest_in_file(path, fix)
    why = "; ".join(filter(None, dict.fromkeys((owner.why, advice.why if advice else ""))))
    return MLScaleError(f"'{path}' is not set here", where=config.describe_origin(path), why=why, fix=fix)


def _suggest_moved_node(config: CheckedConfig, path: str, value: object) -> Advice | None:
    """Return the overrides for an object that was typed where another group owns it: `model.optimizer._target_=…`."""
    last = path.rpartition(".")[2]
    group = next((name for name in (last, *find_meanings(path)) if name in rules.BUILDS_ONE), "")
    if not group or not isinstance(value, dict) or not ("_target_" in value or (value and path in rules.OWNED)):
        return None
    words = [format_override(f"{group}.{key}", item) for key, item in value.items()]
    return Advice(" ".join(words), f"the group '{group}' owns it")


def _list_siblings(config: CheckedConfig, path: str) -> str:
    """Return the keys next to one where no name is near; "" where they are too many for a message."""
    head = path.rpartition(".")[0]
    siblings = [item.rpartition(".")[2] for item in config.names.paths if head and item.rpartition(".")[0] == head]
    return f"{head} takes {', '.join(siblings)}" if 0 < len(siblings) <= _FEW else ""


def _suggest_in_file(path: str, fix: str) -> str:
    """Return the fix for a key in a file: an override alone would leave the key there."""
    head, _, last = path.rpartition(".")
    key = fix.partition("=")[0]
    if fix.startswith("leave "):
        return fix
    if fix.count("=") == 1 and "." in key and key.rpartition(".")[0] == head:
        return f"write '{key.rpartition('.')[2]}' in place of '{last}'"
    return f"{fix}, and take '{path}' out of the file" if fix else f"take '{path}' out of the file"
