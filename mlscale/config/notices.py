"""One line for every setting that has no effect here, and for every promise that is lost."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from mlscale.config.checks.strategy_support import collect_strategy_notices
from mlscale.config.signatures.unpacked_keywords import inspect_signature
from mlscale.config.targets import has_argument, has_precision_plugin, import_target, takes_group

if TYPE_CHECKING:
    from omegaconf import DictConfig

    from mlscale.config.derive import Devices

_FEW_UPDATES = 10  # of the average of the weights


def collect_notices(cfg: DictConfig, machine: Devices) -> list[str]:
    """Return the notices that the user should read before the run starts; empty if everything set has its effect."""
    return [
        *_collect_device_notices(cfg, machine),
        *_collect_group_notices(cfg),
        *_collect_averaging_notices(cfg),
        *_collect_promise_notices(cfg),
    ]


def _collect_device_notices(cfg: DictConfig, machine: Devices) -> list[str]:
    lines = []
    world, accelerator = cfg.derived.world_size, cfg.derived.accelerator
    has = machine.count_devices(accelerator)
    if has and has > world:
        lines.append(f"{world} of {has} {accelerator} devices are used: trainer.devices={has} uses all")
    if accelerator == "cpu" and world > machine.cores:
        lines.append(f"{world} processes share {machine.cores} cores: right, but slow")
    lines += collect_strategy_notices(cfg)
    if accelerator != "cuda" and cfg.get("tf32") is not None:
        lines.append(f"tf32 has no effect on {accelerator}: it is a way of CUDA devices to multiply")
    if accelerator == "cpu":
        for key in ("benchmark", "deterministic"):
            if cfg.trainer.get(key):
                lines.append(f"trainer.{key} has no effect on a CPU")
    lines += _collect_length_notices(cfg)
    if cfg.trainer.get("limit_val_batches") == 0 and str(cfg.metric).startswith("val/"):
        lines.append(f"no validation, so no {cfg.metric} to pick a best checkpoint by: metric=train/loss picks by loss")
    return lines


def _collect_length_notices(cfg: DictConfig) -> list[str]:
    """Return a line where a number of steps is out of reach: epochs end the run before."""
    steps, total = cfg.trainer.get("max_steps", -1), cfg.derived.get("total_steps")
    if not steps or steps < 0 or total is None or total >= steps:
        return []
    epochs = cfg.trainer.max_epochs
    return [
        f"trainer.max_steps={steps} has no effect: trainer.max_epochs={epochs} ends the run "
        f"after {total} step{'s' * (total != 1)}; trainer.max_epochs=-1 leaves it to the steps"
    ]


def _collect_group_notices(cfg: DictConfig) -> list[str]:
    """Return a line for each group whose object is not used."""
    lines = []
    idle = [name for name in ("model", "optimizer", "scheduler") if cfg.get(name) and not takes_group(cfg.task, name)]
    if idle:
        none = " ".join(f"{name}=none" for name in idle)
        has_or_have = "has" if len(idle) == 1 else "have"
        lines.append(
            f"{', '.join(idle)} {has_or_have} no effect: {cfg.task['_target_']} takes none, or has its own; "
            f"{none} silences this"
        )
    grouped = [key for key, none in (("param_groups", []), ("layer_decay", 1.0)) if cfg.get(key, none) != none]
    if grouped and not hasattr(import_target(cfg.task), "group_parameters"):
        lines.append(f"{', '.join(grouped)}: no effect, {cfg.task['_target_']} makes its optimizer itself")
    if cfg.get("compile") and not has_argument(cfg.task, "model"):
        lines.append(
            f"compile has no effect: {cfg.task['_target_']} takes no 'model'; torch.compile it there, "
            "compile=false silences this"
        )
    if has_precision_plugin(cfg):
        lines.append("precision has no effect: trainer.plugins brings its own")
    else:
        lines += _collect_precision_notices(cfg)
    names = [name for name, node in (cfg.get("callbacks") or {}).items() if node]
    if names and not any(
        name == "progress" or "Checkpoint" in str(cfg.callbacks[name].get("_target_")) for name in names
    ):
        lines.append(f"no callback saves checkpoints: callbacks=[default,{','.join(names)}] keeps the default ones")
    if cfg.get("augment") and cfg.get("data") and not has_argument(cfg.data, "augment"):
        lines.append(f"augment has no effect: {cfg.data['_target_']} takes no 'augment'; augment=none silences this")
    return lines


def _collect_precision_notices(cfg: DictConfig) -> list[str]:
    """Return a line for each setting of float16 next to another precision."""
    node: Any = cfg.get("precision") or {}
    return [
        f"precision.{key} has no effect: it is a setting of precision=fp16"
        for key in ("loss_scale", "growth_interval", "max_skipped", "on_cpu")
        if node.get("value") != "16-mixed" and node.get(key) not in (None, False)
    ]


def _collect_averaging_notices(cfg: DictConfig) -> list[str]:
    """Return a line if the run is too short for the average of its weights."""
    ema, steps = (cfg.get("callbacks") or {}).get("ema") or {}, cfg.derived.get("total_steps")
    if ema.get("_target_") != "mlscale.train.callbacks.EMA" or steps is None:
        return []
    every, start = max(1, ema.get("every", 10)), ema.get("start", 0)
    # The number of multiples of `every` among the steps after `start`: an update happens at each.
    updates = max(0, steps // every - start // every)
    fix = "callbacks.ema.start=0" if start >= steps else "callbacks.ema.every=1" if every > 1 else ""
    if updates >= _FEW_UPDATES or not fix:
        return []
    settings = f"callbacks.ema.every={every}" + f" and callbacks.ema.start={start}" * (start > 0)
    within = f"in {steps} step{'s' * (steps != 1)} with {settings}"
    if updates == 0:
        return [f"callbacks.ema has no effect {within}: {fix}"]
    times = "once" if updates == 1 else f"{updates} times"
    return [f"callbacks.ema renews the average {times} {within}: {fix} suits so short a run"]


def get_inelastic_source(cfg: DictConfig) -> str:
    """Return the source of a run's samples if it does not promise the same global batches on another number of
    processes; '' if it does.
    """
    if not cfg.get("data"):
        return "the task's own loader"
    promises: Any = getattr(import_target(cfg.data), "promises", None)
    return "" if promises is not None and promises.elastic else str(cfg.data["_target_"])


def _collect_batch_notices(cfg: DictConfig) -> list[str]:
    """Return a line where the config's batch size takes the place of that of a user's data, unless it was typed."""
    device_batch, own = cfg.derived.get("per_device_batch"), inspect_signature(import_target(cfg.data)).parameters
    default = own["batch_size"].default if device_batch and "batch_size" in own else None
    typed = any(word.startswith(("data.batch_size=", "resume=")) for word in cfg.derived.get("overrides") or ())
    if not isinstance(default, int) or default == device_batch or typed:
        return []
    fact = f"batch_size={device_batch} takes the place of {default}, the default of {cfg.data['_target_']}"
    return [f"{fact}: data.batch_size={default * cfg.data.batch_size // device_batch} keeps it"]


def _collect_promise_notices(cfg: DictConfig) -> list[str]:
    if not cfg.get("data"):
        return ["data=none: order and resume are whatever the task's own loaders give"]
    promises: Any = getattr(import_target(cfg.data), "promises", None)
    # A data module without `promises` may keep them, but does not state it.
    if promises is None:
        return [
            f"{cfg.data['_target_']} is used unchanged: exact order, exact resume and equal global batches on other "
            "device counts are not promised",
            *_collect_batch_notices(cfg),
        ]
    lost = [name for name in ("order", "resume", "elastic") if not getattr(promises, name)]
    return [f"{cfg.data['_target_']} does not promise: {', '.join(lost)}"] if lost else []
