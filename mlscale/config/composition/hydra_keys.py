"""Hydra's own settings that have no effect here, and what to use instead. None is ignored silently."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from mlscale.config.schema.local_paths import create_address_error, is_address
from mlscale.errors import MLScaleError

# Why a setting has no effect, and what to type: {value} is what was typed, "" for leaving it out.
_INSTEAD: Mapping[str, tuple[str, str]] = {
    "hydra.run.dir": ("each run makes a folder of its own in runs_dir", "runs_dir={value}"),
    "hydra.run": ("each run makes a folder of its own in runs_dir", "runs_dir={value}"),
    "hydra.sweep.subdir": ("each run of a sweep makes a folder of its own in the sweep's", ""),
    "hydra.output_subdir": ("a run keeps config.yaml and derived.yaml in its folder", ""),
    "hydra.job.chdir": ("a run stays in the folder where it was started; its files go to its own folder", ""),
    "hydra.job.name": ("name is what a run is called", "name={value}"),
    "hydra.job.env_set": ("environment variables are set before the command", ""),
    "hydra.verbose": ("a run writes its log into the logs folder of its run folder", ""),
    "hydra.job_logging": ("a run writes its log into the logs folder of its run folder", ""),
    "hydra.hydra_logging": ("a run writes its log into the logs folder of its run folder", ""),
    "hydra.searchpath": ("config folders are named by a flag", "--config-dir {value}"),
    "hydra.mode": ("a flag asks for several jobs", ""),
    "hydra.callbacks": ("callbacks of a run are Lightning's", ""),
}
_OF_A_SWEEP = ("hydra.sweep.dir", "hydra.sweeper", "hydra.launcher")


def check_effect(word: str, *, multirun: bool) -> Iterator[MLScaleError]:
    """Yield the error for an override of Hydra's own settings, unless it has an effect."""
    typed, _, value = word.lstrip("+~").partition("=")
    key = typed.split("@", 1)[0].replace("/", ".")
    if key != "hydra" and not key.startswith("hydra."):
        return
    if _is_below(key, _OF_A_SWEEP):
        if not multirun:
            why = "it belongs to a sweep, which -m starts"
            yield MLScaleError(f"'{typed}' has no effect", where=_describe_word(word), why=why)
        if key == "hydra.sweep.dir" and is_address(value):
            yield create_address_error(key, value, _describe_word(word))
        return
    yield _create_effect_error(typed, key, _describe_word(word), value)


def check_file_content(content: Mapping[str, object], shown: str) -> Iterator[MLScaleError]:
    """Yield the errors for Hydra's own settings in a config file whose package is `_global_`.

    Args:
        content: what the file holds, in plain containers.
        shown: the file as messages name it.
    """
    defaults = content.get("defaults")
    for entry in defaults if isinstance(defaults, list) else []:
        for key in entry if isinstance(entry, dict) else []:
            name = str(key).rpartition(" ")[2].lstrip("/")
            if name.startswith("hydra/") and not _is_below(name.replace("/", "."), _OF_A_SWEEP):
                yield _create_effect_error(name, name.replace("/", "."), f"{shown}: defaults", "")
    for key in _iterate_paths("hydra", content.get("hydra", {})):
        if not _is_below(key, _OF_A_SWEEP):
            yield _create_effect_error(key, key, f"{shown}: {key}", "<folder>")


def _iterate_paths(path: str, node: object) -> Iterator[str]:
    if not isinstance(node, dict):
        yield path
        return
    for key, value in node.items():
        yield from _iterate_paths(f"{path}.{key}", value)


def _create_effect_error(typed: str, key: str, where: str, value: str) -> MLScaleError:
    # In the table's order: `hydra.run.dir` is listed before `hydra.run`, which it is below.
    known_key = next((name for name in _INSTEAD if _is_below(key, (name,))), "")
    why, fix = _INSTEAD.get(known_key, ("mlscale makes the folders and logs of a run itself", ""))
    fix = fix.replace("{value}", value.strip("[]'\"") or "<value>") or f"leave {typed} out"
    return MLScaleError(f"'{typed}' has no effect", where=where, why=why, fix=fix)


def _is_below(key: str, names: tuple[str, ...]) -> bool:
    return any(key == name or key.startswith(f"{name}.") for name in names)


def _describe_word(word: str) -> str:
    return f"command line: {word.lstrip('+')}"
