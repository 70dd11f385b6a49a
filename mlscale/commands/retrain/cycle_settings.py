"""The settings of a retraining cycle, and what of the typed overrides is for its training."""

from __future__ import annotations

from typing import TYPE_CHECKING

from omegaconf import OmegaConf

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
    """Check all settings.

    Raises:
        MLScaleError: all that are out of range.
    """
    wanted = {
        "window.held_out": (0 < cfg.window.held_out < 1, "a share between 0 and 1", "0.3"),
        "window.min_samples": (cfg.window.min_samples >= 2, "2 at least", "200"),
        "window.max_samples": (
            cfg.window.max_samples >= cfg.window.min_samples,
            "no fewer than window.min_samples",
            "",
        ),
        "replay": (0 < cfg.replay < 1, "a share between 0 and 1", "0.7"),
        "passes": (cfg.passes is None or cfg.passes >= 1, "1 at least, or null for what the model needs", "null"),
        "lr_factor": (cfg.lr_factor > 0, "above 0", "0.5"),
        "gate.alpha": (0 < cfg.gate.alpha < 0.5, "between 0 and 0.5", "0.05"),
        "gate.max_drop": (cfg.gate.max_drop >= 0, "0 or more", "0.03"),
        "gate.max_class_drop": (cfg.gate.max_class_drop > 0, "above 0", "0.1"),
        "gate.tolerance": (cfg.gate.tolerance >= 0, "0 or more", "0.1"),
        "gate.min_kappa": (-1 <= (cfg.gate.min_kappa or 0) < 1, "between -1 and 1, or null for any", "0.2"),
        "guard.factor": (cfg.guard.factor >= 1, "1 or more", "2"),
        "every_s": (cfg.every_s > 0, "above 0", "60"),
        # By force each look would start a cycle.
        "force": (not (cfg.force and cfg.watch), "of no use with watch=true, which keeps to the pauses", "false"),
    }
    problems = [
        MLScaleError(
            f"{key} is {OmegaConf.select(cfg, key)}",
            where=key,
            why=f"it is {what}",
            fix=f"{key}={fix or cfg.window.min_samples}",
        )
        for key, (holds, what, fix) in wanted.items()
        if not holds
    ]
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
