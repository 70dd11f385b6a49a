"""The settings of a retraining cycle, and what of the typed overrides is for its training."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mlscale.errors import MLScaleError, raise_all

if TYPE_CHECKING:
    from omegaconf import DictConfig

    from mlscale.export.servable import Servable
    from mlscale.retrain.gate.gate_limits import GateLimits

# Keys of the cycle itself, which its training does not know.
_CYCLE_KEYS = ("ref", "events", "window", "replay", "passes", "lr_factor", "gate", "guard", "force", "trust",
        "registry", "runs_dir", "output", "log_format", "watch", "every_s", "degradation", "approved")  # fmt: skip
# Groups and keys that the cycle sets for its training: typed ones would contradict it.
_DECIDED_KEYS = ("data", "data.windows", "data.replay", "data.relabelled", "like", "init_from", "resume", "recipe")


def check_settings(cfg: DictConfig) -> None:
    """Check what no type says of the settings.

    Raises:
        MLScaleError: all that do not fit another one.
    """
    least, most, key = cfg.window.min_samples, cfg.window.max_samples, "window.max_samples"
    problems = []
    if most < least:
        why, fix = "it is window.min_samples or more", f"{key}={least}"
        problems.append(MLScaleError(f"{key} is {most}", where=key, why=why, fix=fix))
    if cfg.force and cfg.watch:
        why, fix = "each look would start a cycle: with watch=true the pauses are kept to", "force=false"
        problems.append(MLScaleError("force is True", where="force", why=why, fix=fix))
    raise_all(problems)
    list_training_overrides(cfg)


def list_approving_targets(cfg: DictConfig) -> list[str]:
    """Return the names of the targets in `approved`, which may be one name or a list."""
    return [cfg.approved] if isinstance(cfg.approved, str) else list(cfg.approved or ())


def parse_gate_limits(cfg: DictConfig, servable: Servable) -> GateLimits:
    """Return the limits of the gate.

    Raises:
        MLScaleError: a class is declared relabelled that the model does not have, or a target of several.
    """
    from mlscale.retrain.gate.gate_limits import GateLimits, find_relabelled_numbers

    # A name like 7 is read as a number.
    limits = GateLimits(**{**cfg.gate, "relabelled": tuple(map(str, cfg.gate.relabelled))})
    # Before the training: it would take hours until the gate finds a mistyped name.
    find_relabelled_numbers(servable.task_type, servable.names, limits.relabelled)
    if limits.relabelled and servable.names.targets and not servable.labels:
        raise MLScaleError(
            "a target can't be left out of the original data",
            where="gate.relabelled",
            why="each of its samples has all targets, and is trained on as a whole",
            fix="gate.old=false, which leaves out all of the original data",
        )
    return limits


def list_training_overrides(cfg: DictConfig) -> list[str]:
    """Return the typed overrides that are for the training.

    Raises:
        MLScaleError: one of them is decided by the cycle itself.
    """
    words = []
    for word in cfg.derived.overrides or []:
        key = word.lstrip("+~").partition("=")[0]
        group = key.partition(".")[0].partition("@")[0]
        if key in _DECIDED_KEYS or (group in _DECIDED_KEYS and group != "data"):
            raise MLScaleError(
                f"retraining sets '{key}' itself",
                where=f"command line: {word}",
                why="a challenger has its champion's config and weights, and is trained on its data and the window",
                fix=f"leave {word} out",
            )
        if group not in _CYCLE_KEYS:
            words.append(word)
    return words


def pass_on_trust(cfg: DictConfig) -> list[str]:
    """Return the override by which another command uses the config of the champion's run, too."""
    return ["trust=true"] if cfg.trust else []
